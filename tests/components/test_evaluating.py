from pathlib import Path

import pytest
from kfp import dsl

from kubeloop.components import evaluating
from kubeloop.components.evaluating import judge, log_judgement
from kubeloop.datasets import Commit, IngestConfig, ingest
from kubeloop.errors import InputError, TransientError
from kubeloop.testing.image_folders import write_image_folder
from kubeloop.testing.stripe_models import LABELS, AlwaysTop, ByBrightness, write_model
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


def test_a_model_without_a_champion_passes(commit: Commit, poor: str) -> None:
    judged = judge(poor, commit.uri, EvaluationConfig())

    assert judged.beats_champion
    assert judged.champion_accuracy == 0.0
    assert judged.new_labels_accuracy == judged.evaluation.accuracy == pytest.approx(1 / 3)
    assert judged.verdict == ""


def test_a_worse_model_loses_to_the_champion(commit: Commit, good: str, poor: str) -> None:
    judged = judge(poor, commit.uri, EvaluationConfig(), champion_uri=good)

    assert not judged.beats_champion
    assert judged.champion_accuracy == 1.0
    assert "loses to the served one: accuracy 0.3333 against 1.0000 on 9" in judged.verdict


def test_a_champion_that_is_gone_is_an_error(commit: Commit, good: str, tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")

    with pytest.raises(InputError, match=r"be compared with the served one: .*gone.*another"):
        judge(good, commit.uri, EvaluationConfig(), champion_uri=gone)


def test_a_damaged_champion_is_an_error_that_says_what_to_do(
    commit: Commit, good: str, tmp_path: Path
) -> None:
    served = write_model(tmp_path, AlwaysTop())
    (Path(served) / "model.pt2").write_bytes(b"damaged")

    with pytest.raises(InputError, match=r"with the served one: .*damaged after it was written"):
        judge(good, commit.uri, EvaluationConfig(), champion_uri=served)


def test_a_champion_whose_store_is_down_is_worth_another_try(
    commit: Commit, good: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise TransientError("Failed to read object s3://models/served/model.json.")

    monkeypatch.setattr(evaluating, "compare", fail)

    with pytest.raises(TransientError, match=r"The served model cannot be read just now: Failed"):
        judge(good, commit.uri, EvaluationConfig(), champion_uri="s3://models/served")


def test_a_champion_of_other_data_is_an_error_that_says_what_to_do(
    commit: Commit, good: str, tmp_path: Path
) -> None:
    others = write_model(tmp_path, AlwaysTop(), labels=("a", "b", "c"))

    with pytest.raises(InputError, match=r"with the served one: .*'a', 'b', 'c'.*no examples"):
        judge(good, commit.uri, EvaluationConfig(), champion_uri=others)


def test_an_image_model_cannot_judge_texts(good: str, tmp_path: Path) -> None:
    source = tmp_path / "texts.csv"
    rows = [f"{label} {n},{label}" for label in LABELS for n in range(20)]
    source.write_text("\n".join(["text,label", *rows]))
    config = IngestConfig(
        name="texts", source=str(source), store=str(tmp_path), kind="text_classification"
    )

    with pytest.raises(InputError, match=r"is of images, the dataset .* is for text_class"):
        judge(good, ingest(config).uri, EvaluationConfig())


def test_a_label_that_nothing_is_scored_on_does_not_count_as_known(
    tmp_path: Path, good: str
) -> None:
    old = write_image_folder(tmp_path / "old", {"top": 20, "middle": 20})
    new = write_image_folder(tmp_path / "new", {"bottom": 1})
    ingest(IngestConfig(name="s", source=str(old), store=str(tmp_path / "store")))
    extended = ingest(
        IngestConfig(name="s", source=str(new), store=str(tmp_path / "store"), extend=True)
    )
    served = write_model(tmp_path, ByBrightness(), labels=("other", "middle", "top"))

    judged = judge(good, extended.uri, EvaluationConfig(), champion_uri=served)

    assert judged.beats_champion
    assert judged.new_labels_accuracy == 0.0
    assert "The test split has no example of the new labels bottom" in judged.verdict


def test_artifacts_hold_what_the_user_interface_draws(
    commit: Commit, good: str, poor: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = judge(good, commit.uri, EvaluationConfig(), champion_uri=poor, min_gain=0.1)
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
