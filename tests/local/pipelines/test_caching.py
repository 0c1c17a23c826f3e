"""When a task takes the outputs of an earlier one."""

# KFP reads annotations that are no types to mypy.
# mypy: disable-error-code="no-untyped-def, valid-type, type-arg, no-any-return, name-match"

from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

component = dsl.component(base_image="python:3.11", install_kfp_package=False)


@component
def copy(source: dsl.Input[dsl.Dataset], target: dsl.Output[dsl.Dataset]) -> str:
    from pathlib import Path

    text = Path(source.path).read_text()
    Path(target.path).write_text(text)
    return text


@component
def stamp(name: str) -> str:
    import time

    return f"{name} {time.time_ns()}"


@dsl.pipeline(name="copying")
def copying(path: str):
    imported = dsl.importer(artifact_uri=path, artifact_class=dsl.Dataset)
    first = copy(source=imported.output)
    copy(source=first.outputs["target"])


@dsl.pipeline(name="stamping")
def stamping(name: str = "n"):
    stamp(name=name)
    stamp(name=name).set_caching_options(False)


@dsl.pipeline(name="stamping-elsewhere")
def stamping_elsewhere(name: str = "n"):
    stamp(name=name)


@dsl.pipeline(name="keyed")
def keyed(name: str):
    stamp(name=name).set_caching_options(True, cache_key="always the same")


def told(run: Any, path: str) -> dict[str, Any]:
    """What the engine says of a task's look-up in the cache."""
    properties: dict[str, Any] = run.task(path)["status_metadata"]["custom_properties"]
    return properties


def test_equal_inputs_reuse_outputs_and_artifacts(runner: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("one")
    first = runner.run(copying, path=str(source))
    second = runner.run(copying, path=str(source))
    assert first.states()["copy"] == "SUCCEEDED"
    assert second.states()["copy"] == "CACHED"
    assert second.task("copy")["status"] == "SUCCEEDED"
    assert second.artifacts("copy", "target") == first.artifacts("copy", "target")
    assert second.output("copy") == "one"
    cached_from = told(second, "copy")["cached_from_task_id"]
    assert cached_from == first.task("copy")["task_id"]
    assert second.task("copy")["cache_fingerprint"] == first.task("copy")["cache_fingerprint"]


def test_a_file_changed_at_the_same_path_misses(runner: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("before")
    runner.run(copying, path=str(source))
    source.write_text("after")
    changed = runner.run(copying, path=str(source))
    assert changed.states()["copy"] == "SUCCEEDED"
    assert changed.output("copy-2") == "after"


def test_equal_content_at_another_path_hits(runner: Any, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("equal content")
    (tmp_path / "b").write_text("equal content")
    runner.run(copying, path=str(tmp_path / "a"))
    assert runner.run(copying, path=str(tmp_path / "b")).states()["copy"] == "CACHED"


def test_outputs_that_changed_since_are_not_reused(runner: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("to be spoiled")
    first = runner.run(copying, path=str(source))
    Path(first.artifacts("copy", "target")[0]["uri"]).write_text("spoiled")
    second = runner.run(copying, path=str(source))
    assert second.states()["copy"] == "SUCCEEDED"
    assert second.output("copy-2") == "to be spoiled"


def test_caching_is_per_task_and_per_pipeline(runner: Any) -> None:
    first, second = runner.run(stamping), runner.run(stamping)
    elsewhere = runner.run(stamping_elsewhere)
    assert second.output("stamp") == first.output("stamp")
    assert second.output("stamp-2") != first.output("stamp-2")
    assert elsewhere.states()["stamp"] == "SUCCEEDED"


def test_caching_can_be_turned_off_for_a_run(runner: Any) -> None:
    first = runner.run(stamping, name="off")
    package = runner.compile(stamping)
    started = runner.client.create_run_from_pipeline_package(
        package, arguments={"name": "off"}, enable_caching=False
    )
    second = runner.wait(started.run_id)
    assert second.output("stamp") != first.output("stamp")


def test_another_value_misses_and_the_parts_say_why(runner: Any) -> None:
    first, second = runner.run(stamping, name="x"), runner.run(stamping, name="y")
    assert second.states()["stamp"] == "SUCCEEDED"

    def parts(run: Any) -> set[tuple[str, str]]:
        return set(told(run, "stamp")["fingerprint_parts"].items())

    assert {name for name, _ in parts(first) ^ parts(second)} == {"input parameter name"}


def test_a_cache_key_replaces_the_inputs(runner: Any) -> None:
    first, second = runner.run(keyed, name="x"), runner.run(keyed, name="y")
    assert second.output("stamp") == first.output("stamp")


def test_a_failed_task_is_no_cache_entry(runner: Any, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    assert runner.run(copying, path=missing).state == "FAILED"
    assert runner.run(copying, path=missing).states()["copy"] == "FAILED"


@pytest.mark.parametrize("num_runs", [3])
def test_a_cached_task_is_no_source_for_others(runner: Any, num_runs: int) -> None:
    runs = [runner.run(stamping, name="chain") for _ in range(num_runs)]
    sources = {told(run, "stamp").get("cached_from_task_id") for run in runs[1:]}
    assert sources == {runs[0].task("stamp")["task_id"]}


def test_a_step_with_an_effect_outside_acts_in_every_run_if_it_takes_the_runs_id(
    runner: Any, tmp_path: Path
) -> None:
    @dsl.container_component
    def act(folder: str, run: str, out: dsl.OutputPath(str)):
        script = 'touch "$0/$1"; printf done > "$2"'
        return dsl.ContainerSpec(
            image="busybox", command=["sh", "-c", script], args=[folder, run, out]
        )

    @dsl.pipeline(name="acting")
    def acting(folder: str):
        act(folder=folder, run=dsl.PIPELINE_JOB_ID_PLACEHOLDER).set_caching_options(False)

    package = runner.compile(acting)
    for _ in range(2):
        started = runner.client.create_run_from_pipeline_package(
            package, arguments={"folder": str(tmp_path)}, enable_caching=True
        )
        assert runner.wait(started.run_id).states()["act"] == "SUCCEEDED"
        assert (tmp_path / started.run_id).exists()
