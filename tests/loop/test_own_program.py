"""A plain PyTorch script is tuned, trained, judged and served by a pipeline, as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import kubeloop
from kubeloop.pipelines.packages import COMPILED
from kubeloop.testing.laptop import Laptop
from kubeloop.testing.s3_server import ACCESS_KEY, SECRET_KEY, s3_server

pytestmark = [pytest.mark.loop, pytest.mark.pinned]

SCRIPT = Path(kubeloop.__file__).parent / "docs" / "examples" / "plain_train.py"
PIPELINE = COMPILED / "image_classification.yaml"
BUCKET = "code"
SPACE = {"hidden": {"type": "categorical", "values": [24, 32]}}


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """A control plane that knows an object store."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch, s3_server(BUCKET) as url, Laptop(folder) as laptop:
        patch.setenv("S3_ENDPOINT", url.removeprefix("http://"))
        patch.setenv("S3_USE_HTTPS", "0")
        patch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        laptop.up()
        yield laptop


def publish(laptop: Laptop, script: Path, *, store: str = "") -> str:
    where = ("--store", store) if store else ()
    done = laptop.command.run("code", "publish", str(script), *where, "-o", "json")
    assert done.code == 0, done.err
    return str(done.json["uri"])


def run(laptop: Laptop, code: str) -> str:
    """Run the pipeline by KFP's own client; returns the run's id."""
    client = laptop.connect_pipelines()
    arguments = {
        "dataset_source": str(laptop.images),
        "endpoint_name": "own",
        "code": code,
        "hyperparameters": {"learning_rate": 0.05},
        "search_space": SPACE,
        "max_trials": 2,
        "trial_epochs": 3,
        "epochs": 20,
        "num_workers": 1,
        "min_gain": -1.0,
        "num_probes": 3,
    }
    started = client.create_run_from_pipeline_package(str(PIPELINE), arguments=arguments)
    assert laptop.wait_until_ended(started.run_id) == "SUCCEEDED", laptop.describe(started.run_id)
    return str(started.run_id)


def explain(laptop: Laptop, run_id: str) -> tuple[str, str]:
    """Why training ran, or came from the cache."""
    answer = laptop.command.run("runs", "why", run_id, "train-model", "-o", "json").json
    return answer["verdict"], " ".join(answer["reasons"])


def find_model(laptop: Laptop) -> str:
    endpoint = laptop.command.run("endpoints", "own", "-o", "json").json
    return str(endpoint["model_uri"])


def list_code(laptop: Laptop) -> list[str]:
    nodes = laptop.command.run("lineage", "own", "-o", "json").json["nodes"]
    return [node["digest"] for node in nodes if node["kind"] == "code"]


def test_a_plain_script_becomes_an_endpoint_and_a_changed_line_another_model(
    laptop: Laptop,
) -> None:
    first = publish(laptop, SCRIPT)
    changed = laptop.folder / "train.py"
    changed.write_text(SCRIPT.read_text().replace("nn.ReLU()", "nn.GELU()"))
    image = str(laptop.images / "b" / "000.png")

    run(laptop, first)
    model, code = find_model(laptop), list_code(laptop)
    answer = laptop.command.run("predict", "own", image, "-o", "json")
    again = run(laptop, first)
    unchanged = find_model(laptop)
    second = publish(laptop, changed, store=f"s3://{BUCKET}/archives")
    explained = explain(laptop, run(laptop, second))

    assert answer.json["predictions"][0]["label"] == "b"
    assert code == [f"sha256:{Path(first).stem}"]
    assert unchanged == model
    assert explain(laptop, again)[0] == "hit"
    assert second.startswith(f"s3://{BUCKET}/archives/")
    assert explained[0] == "missed"
    assert "input `code` changed" in explained[1]
    assert f"{Path(second).stem[-20:]}.zip" in explained[1]
    assert find_model(laptop) != model
    assert list_code(laptop) == [f"sha256:{Path(second).stem}"]
    verified = laptop.command.run("lineage", "own", "--verify")
    assert f"intact  code {Path(second).stem[:12]}" in verified.err
