from pathlib import Path

import pytest
import yaml

from kubeloop.pipelines.compiling import compile_all
from kubeloop.pipelines.packages import COMPILED, read_package

pytestmark = pytest.mark.pinned
UNCACHED = (
    "ingest-dataset", "find-champion", "deploy-model", "probe-endpoint", "report-lineage"
)  # fmt: skip


def load(path: Path) -> list[object]:
    return list(yaml.safe_load_all(path.read_text()))


def test_compiled_pipelines_equal_their_source(tmp_path: Path) -> None:
    written = compile_all(tmp_path)
    assert sorted(p.name for p in written) == sorted(p.name for p in COMPILED.glob("*.yaml"))
    for path in written:
        assert load(path) == load(COMPILED / path.name), f"{path.name} is stale: run `make compile`"


def test_compiled_pipelines_hold_no_secret_and_no_local_path() -> None:
    for path in COMPILED.glob("*.yaml"):
        text = path.read_text()
        assert "/home/" not in text
        assert str(COMPILED.parents[1]) not in text
        assert "secretName: kubeloop-object-store" in text


@pytest.mark.parametrize("pipeline", ["image_classification", "text_classification", "retrain"])
def test_steps_that_look_or_act_outside_never_come_from_the_cache(pipeline: str) -> None:
    spec = read_package(COMPILED / f"{pipeline}.yaml").spec
    tasks = {
        name: task
        for component in (spec["root"], *spec["components"].values())
        for name, task in component.get("dag", {}).get("tasks", {}).items()
    }

    for name in UNCACHED:
        run_id = tasks[name]["inputs"]["parameters"]["run_id"]
        assert run_id == {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}
        assert "enableCache" not in tasks[name]["cachingOptions"]


@pytest.mark.parametrize("pipeline", ["image_classification", "text_classification", "retrain"])
def test_the_variant_that_is_judged_and_served_is_trained(pipeline: str) -> None:
    spec = read_package(COMPILED / f"{pipeline}.yaml").spec
    tasks = spec["root"]["dag"]["tasks"]

    given = {"componentInputParameter": "serve_variant"}
    trained = tasks["train-model"]["inputs"]["parameters"]
    assert trained["serve_variant"] == given
    assert trained["variant_tolerance"] == {"componentInputParameter": "variant_tolerance"}
    assert tasks["evaluate-model"]["inputs"]["parameters"]["variant"] == given
