"""Artifacts: written, taken, described, imported, and their records."""

# KFP reads annotations that are no types to mypy.
# mypy: disable-error-code="no-untyped-def, valid-type, type-arg, no-any-return, name-match"

from pathlib import Path
from typing import Any

from kfp import dsl

component = dsl.component(base_image="python:3.11", install_kfp_package=False)


@component
def write(text: str, data: dsl.Output[dsl.Dataset], scores: dsl.Output[dsl.Metrics]) -> str:
    from pathlib import Path

    Path(data.path).write_text(text)
    data.metadata["length"] = len(text)
    scores.log_metric("accuracy", 0.5)
    return data.uri


@component
def read(data: dsl.Input[dsl.Dataset]) -> str:
    from pathlib import Path

    return f"{Path(data.path).read_text()} {data.metadata['length']} {data.name}"


@component
def look(model: dsl.Input[dsl.Model]) -> str:
    return f"{model.uri} {model.metadata}"


@component
def make_folder(folder: dsl.Output[dsl.Artifact]) -> None:
    from pathlib import Path

    Path(folder.path).mkdir()
    Path(folder.path, "part").write_text("x")


@dsl.pipeline(name="artifacts")
def artifacts(text: str = "hello") -> dsl.Dataset:
    written = write(text=text)
    read(data=written.outputs["data"])
    make_folder()
    return written.outputs["data"]


@dsl.pipeline(name="imported")
def imported(uri: str, tag: str = "t"):
    constant = dsl.importer(artifact_uri="s3://bucket/model", artifact_class=dsl.Model)
    look(model=constant.output)
    given = dsl.importer(
        artifact_uri=uri, artifact_class=dsl.Model, reimport=True, metadata={"a": {"b": [1, tag]}}
    )
    look(model=given.output)


def test_artifacts_are_plain_paths_below_the_root_of_the_run(runner: Any) -> None:
    run = runner.run(artifacts)
    assert run.state == "SUCCEEDED", run.error
    (data,) = run.artifacts("write", "data")
    root = runner.stage.pipeline_root / "artifacts" / run.run_id / "write"
    assert Path(data["uri"]).parent.parent == root
    assert Path(data["uri"]).name == "data"
    assert Path(data["uri"]).read_text() == "hello"
    assert run.output("write") == data["uri"]


def test_artifacts_carry_type_name_metadata_and_digest(runner: Any) -> None:
    run = runner.run(artifacts)
    (data,) = run.artifacts("write", "data")
    (scores,) = run.artifacts("write", "scores")
    assert (data["type"], data["name"], data["metadata"]) == ("Dataset", "data", {"length": 5})
    assert (scores["type"], scores["metadata"]) == ("Metric", {"accuracy": 0.5})
    assert data["digest"].startswith("sha256:")
    (folder,) = run.artifacts("make-folder", "folder")
    assert folder["digest"].startswith("sha256:")
    assert run.output("read") == "hello 5 data"


def test_tasks_that_take_and_give_an_artifact_are_found_through_it(runner: Any) -> None:
    run = runner.run(artifacts, text="lineage")
    (data,) = run.artifacts("write", "data")
    reply = runner.http("GET", "artifact_tasks", params={"artifact_ids": data["artifact_id"]})
    relations = {item["task_id"]: item for item in reply.json()["artifact_tasks"]}
    given = relations[run.task("write")["task_id"]]
    taken = relations[run.task("read")["task_id"]]
    assert (given["type"], given["key"]) == ("OUTPUT", "data")
    assert (taken["type"], taken["key"]) == ("TASK_OUTPUT_INPUT", "data")
    assert taken["producer"] == {"task_name": "write", "key": "data"}
    artifact = runner.http("GET", f"artifacts/{data['artifact_id']}").json()
    assert artifact == data


def test_artifact_relations_are_listed_by_task_and_side(runner: Any) -> None:
    run = runner.run(artifacts, text="sides")
    task_id = run.task("read")["task_id"]
    inputs = runner.http("GET", "artifact_tasks", params={"task_ids": task_id, "type": "INPUT"})
    outputs = runner.http("GET", "artifact_tasks", params={"task_ids": task_id, "type": "OUTPUT"})
    assert [item["key"] for item in inputs.json()["artifact_tasks"]] == ["data"]
    assert [item["key"] for item in outputs.json()["artifact_tasks"]] == ["executor-logs"]


def test_a_pipelines_output_artifact_is_its_tasks_artifact(runner: Any) -> None:
    run = runner.run(artifacts)
    output = run.tasks[0]["outputs"]["artifacts"][0]["artifacts"]
    assert output == run.artifacts("write", "data")


def test_importer_names_an_artifact_without_reading_it(runner: Any) -> None:
    run = runner.run(imported, uri="/data/models/7", tag="blue")
    assert run.state == "SUCCEEDED", run.error
    assert run.output("look") == "s3://bucket/model {}"
    assert run.output("look-2") == "/data/models/7 {'a': {'b': [1, 'blue']}}"
    assert run.artifacts("importer", "artifact")[0]["type"] == "Model"


def test_importer_reuses_the_artifact_unless_it_is_to_import_again(runner: Any) -> None:
    first, second = runner.run(imported, uri="/m"), runner.run(imported, uri="/m")

    def identifier(run: Any, task: str) -> str:
        return str(run.artifacts(task, "artifact")[0]["artifact_id"])

    assert identifier(first, "importer") == identifier(second, "importer")
    assert identifier(first, "importer-2") != identifier(second, "importer-2")


def test_an_artifacts_bytes_can_be_read_through_the_api(runner: Any) -> None:
    run = runner.run(artifacts)
    task_id = run.task("write")["task_id"]
    reply = runner.http("GET", f"runs/{run.run_id}/nodes/{task_id}/artifacts/data:read")
    assert reply.json() == {"data": "aGVsbG8="}


def test_what_a_step_printed_is_an_artifact_of_each_attempt(runner: Any, tmp_path: Path) -> None:
    @dsl.container_component
    def say_twice(marker: str):
        script = 'echo "here $KFP_RETRY_INDEX"; test -e "$0" || { touch "$0"; exit 3; }'
        return dsl.ContainerSpec(image="busybox", command=["sh", "-c", script], args=[marker])

    @dsl.pipeline(name="printing")
    def printing(marker: str):
        say_twice(marker=marker).set_retry(1, backoff_duration="0s").set_caching_options(False)

    run = runner.run(printing, marker=str(tmp_path / "marker"))
    assert run.state == "SUCCEEDED", run.error
    names = ("executor-logs", "executor-logs-1")
    logs = [run.artifacts("say-twice", name)[0] for name in names]
    assert [Path(log["uri"]).read_text() for log in logs] == ["here 0\n", "here 1\n"]
    assert {log["type"] for log in logs} == {"Artifact"}
