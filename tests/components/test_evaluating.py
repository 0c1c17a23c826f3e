import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from kubeloop.components.evaluating import Champion, find_champion, judge, log_judgement
from kubeloop.datasets import Commit, IngestConfig, ingest
from kubeloop.errors import InputError
from kubeloop.kserve.deployments import apply, connect
from kubeloop.kserve.inference_services import InferenceServiceConfig
from kubeloop.testing.image_folders import write_image_folder
from kubeloop.testing.official_clients import close_connections
from kubeloop.testing.servers import running_api
from kubeloop.testing.stripe_models import AlwaysTop, ByBrightness, write_model
from kubeloop.training.evaluation import EvaluationConfig


@pytest.fixture(scope="module")
def commit(tmp_path_factory: pytest.TempPathFactory) -> Commit:
    folder = tmp_path_factory.mktemp("stripes")
    source = write_image_folder(folder / "source", dict.fromkeys(("top", "middle", "bottom"), 20))
    return ingest(IngestConfig(name="stripes", source=str(source), store=str(folder / "store")))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("good"), ByBrightness())


@pytest.fixture(scope="module")
def poor(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("poor"), AlwaysTop())


@pytest.fixture
def with_kserve(tmp_path: Path) -> Callable[[Callable[[Any], None]], None]:
    """Runs a scenario with KServe's client of an API server."""

    async def run(scenario: Callable[[Any], None]) -> None:
        async with running_api(tmp_path) as api:
            client = connect(config_file=str(api.kubeconfig))
            try:
                await asyncio.to_thread(scenario, client)
            finally:
                apis = (client.core_api, client.app_api, client.api_instance)
                await asyncio.to_thread(close_connections, *apis)

    return lambda scenario: asyncio.run(run(scenario))


def test_the_champion_is_what_the_endpoint_serves(
    with_kserve: Callable[[Callable[[Any], None]], None],
) -> None:
    def scenario(client: Any) -> None:
        assert find_champion("digits", namespace="default", client=client).model_uri == ""

        apply(InferenceServiceConfig(name="digits", model_uri="/models/m"), client=client)

        found = find_champion("digits", namespace="default", client=client)
        assert found == Champion(endpoint="digits", model_uri="/models/m")

    with_kserve(scenario)


def test_without_an_endpoint_nobody_is_asked() -> None:
    assert find_champion("", namespace="default", client=object()) == Champion()


def test_a_model_without_a_champion_passes_and_says_so(commit: Commit, poor: str) -> None:
    champion = Champion(endpoint="digits")

    judged = judge(poor, commit.uri, EvaluationConfig(), champion=champion)

    assert judged.beats_champion
    assert (judged.champion_accuracy, judged.new_labels_accuracy) == (0.0, 1.0)
    assert judged.verdict.startswith("There is no endpoint 'digits' yet")


def test_a_worse_model_loses_to_the_champion(commit: Commit, good: str, poor: str) -> None:
    champion = Champion(endpoint="digits", model_uri=good)

    judged = judge(poor, commit.uri, EvaluationConfig(), champion=champion)

    assert not judged.beats_champion
    assert judged.champion_accuracy == 1.0
    assert "loses to the served one: accuracy 0.3333 against 1.0000 on 9" in judged.verdict


def test_a_champion_that_is_gone_is_an_error(commit: Commit, good: str, tmp_path: Path) -> None:
    champion = Champion(endpoint="digits", model_uri=str(tmp_path / "gone"))

    with pytest.raises(
        InputError, match=r"'digits' serves cannot be compared: .* no model package"
    ):
        judge(good, commit.uri, EvaluationConfig(), champion=champion)


def test_artifacts_hold_what_the_user_interface_draws(
    commit: Commit, good: str, poor: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    champion = Champion(endpoint="digits", model_uri=poor)
    judged = judge(good, commit.uri, EvaluationConfig(), champion=champion, min_gain=0.1)
    metrics, confusion = dsl.Metrics(), dsl.ClassificationMetrics()
    report = dsl.HTML(uri=str(tmp_path / "report"))

    log_judgement(judged, metrics=metrics, confusion=confusion, report=report)

    logged = metrics.metadata
    assert logged["accuracy"] == logged["f1/top"] == logged["roc_area"] == 1.0
    assert logged["champion_accuracy"] == pytest.approx(1 / 3)
    assert logged["worst_slice_accuracy"] == 1.0
    matrix = confusion.metadata["confusionMatrix"]
    assert [row["row"] for row in matrix["rows"]] == [[3, 0, 0], [0, 3, 0], [0, 0, 3]]
    ends = [confusion.metadata["confidenceMetrics"][place] for place in (0, -1)]
    assert [point["falsePositiveRate"] for point in ends] == [0.0, 1.0]
    assert [point["confidenceThreshold"] for point in ends] == [1.0, 0.0]
    assert "Champion and challenger" in (tmp_path / "report").read_text()
    assert "holds against the served one" in capsys.readouterr().out
