"""The KFP v2beta1 API: experiments, pipelines, lists, refusals, the token."""

# KFP reads annotations that are no types to mypy.
# mypy: disable-error-code="no-untyped-def, valid-type, type-arg, no-any-return, name-match"

import asyncio
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from kfp import dsl
from kfp_server_api.exceptions import ApiException

from kubeloop.local.pipelines.api import Pipelines, PipelinesConfig
from kubeloop.testing.api import memory_api
from kubeloop.testing.pipelines import running_pipelines

component = dsl.component(base_image="python:3.11", install_kfp_package=False)


@component
def same(value: int) -> int:
    return value


@dsl.pipeline(name="small", description="What it does.")
def small(n: int = 1) -> int:
    return same(value=n).output


@pytest.fixture(scope="module")
def package(runner: Any) -> Path:
    return Path(runner.compile(small))


def test_health_needs_no_token_and_everything_else_does(runner: Any) -> None:
    base = f"{runner.stage.url}/apis/v2beta1"
    assert httpx.get(f"{base}/healthz").json()["multi_user"] is False
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic x"}):
        refused = httpx.get(f"{base}/experiments", headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (401, 16)


def test_the_default_experiment_exists_and_takes_runs_that_name_none(
    runner: Any, package: Path
) -> None:
    default = runner.client.get_experiment(experiment_name="Default")
    spec = yaml.safe_load(package.read_text())
    body = {"display_name": "bare", "pipeline_spec": spec}
    run = runner.http("POST", "runs", json=body).json()
    assert run["experiment_id"] == default.experiment_id
    assert (run["state"], run["scheduled_at"]) == ("PENDING", run["created_at"])
    with pytest.raises(ApiException, match="cannot be deleted"):
        runner.client.delete_experiment(default.experiment_id)


def test_experiments_are_made_once_found_archived_and_deleted(runner: Any) -> None:
    client = runner.client
    made = client.create_experiment("mine", description="d")
    assert client.create_experiment("mine").experiment_id == made.experiment_id
    assert client.get_experiment(experiment_name="mine").description == "d"
    client.archive_experiment(made.experiment_id)
    assert client.get_experiment(made.experiment_id).storage_state == "ARCHIVED"
    client.unarchive_experiment(made.experiment_id)
    client.delete_experiment(made.experiment_id)
    with pytest.raises(ApiException) as missing:
        client.get_experiment(made.experiment_id)
    assert missing.value.status == 404
    assert json.loads(missing.value.body)["code"] == 5


def test_archiving_an_experiment_archives_its_runs_and_guards_them(
    runner: Any, package: Path
) -> None:
    client = runner.client
    made = client.create_experiment("archived")
    run = client.run_pipeline(made.experiment_id, "r", str(package))
    client.wait_for_run_completion(run.run_id, timeout=30, sleep_duration=0.02)
    client.archive_experiment(made.experiment_id)
    assert client.get_run(run.run_id).storage_state == "ARCHIVED"
    with pytest.raises(ApiException, match="unarchive"):
        client.unarchive_run(run.run_id)
    with pytest.raises(ApiException, match="archived"):
        client.run_pipeline(made.experiment_id, "r", str(package))
    client.unarchive_experiment(made.experiment_id)
    client.unarchive_run(run.run_id)
    assert client.get_run(run.run_id).storage_state == "AVAILABLE"


def _zip(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("pipeline.yaml", data)
    return buffer.getvalue()


def _tar(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo("pipeline.yaml")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize(("suffix", "pack"), [(".yaml", bytes), (".zip", _zip), (".tar.gz", _tar)])
def test_pipelines_are_uploaded_run_by_version_and_deleted(
    runner: Any, package: Path, tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    client = runner.client
    file = tmp_path / f"package{suffix}"
    file.write_bytes(pack(package.read_bytes()))
    name = f"uploaded{suffix}"
    pipeline = client.upload_pipeline(str(file), pipeline_name=name, description="about it")
    assert client.get_pipeline_id(name) == pipeline.pipeline_id
    (version,) = client.list_pipeline_versions(pipeline.pipeline_id).pipeline_versions
    assert version.pipeline_spec["pipelineInfo"]["name"] == "small"
    second = client.upload_pipeline_version(
        str(file), pipeline_version_name="v2", pipeline_id=pipeline.pipeline_id
    )
    experiment = client.get_experiment(experiment_name="Default")
    run = client.run_pipeline(
        experiment.experiment_id,
        "by version",
        pipeline_id=pipeline.pipeline_id,
        version_id=second.pipeline_version_id,
        params={"n": 41},
    )
    done = runner.wait(run.run_id)
    assert done.output("") == 41
    reference = done.json["pipeline_version_reference"]
    assert reference["pipeline_version_id"] == second.pipeline_version_id
    with pytest.raises(ApiException, match="2 versions"):
        client.delete_pipeline(pipeline.pipeline_id)
    for item in (version, second):
        client.delete_pipeline_version(pipeline.pipeline_id, item.pipeline_version_id)
    client.delete_pipeline(pipeline.pipeline_id)
    assert client.get_pipeline_id(name) is None


def test_a_name_that_is_taken_is_refused(runner: Any, package: Path) -> None:
    runner.client.upload_pipeline(str(package), pipeline_name="taken")
    with pytest.raises(ApiException) as refused:
        runner.client.upload_pipeline(str(package), pipeline_name="taken")
    assert refused.value.status == 409
    assert "'taken' exists" in json.loads(refused.value.body)["error_message"]


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({}, "display_name"),
        ({"display_name": "x"}, "pipeline_spec"),
        ({"display_name": "x", "colour": 1}, "no field 'colour'"),
        ({"display_name": "x", "pipeline_spec": []}, "not list"),
        ({"display_name": 3}, "display_name is a text"),
        ([], "not list"),
    ],
)
def test_runs_that_lack_something_are_refused(runner: Any, body: Any, fault: str) -> None:
    refused = runner.http("POST", "runs", json=body)
    assert (refused.status_code, refused.json()["code"]) == (400, 3)
    assert fault in refused.json()["message"]


def test_a_root_elsewhere_is_refused_and_a_local_one_is_used(
    runner: Any, package: Path, tmp_path: Path
) -> None:
    client = runner.client
    with pytest.raises(ApiException, match="cannot be used"):
        client.create_run_from_pipeline_package(str(package), pipeline_root="gs://bucket/root")
    run = client.create_run_from_pipeline_package(
        str(package), pipeline_root=str(tmp_path), enable_caching=False
    )
    done = runner.wait(run.run_id)
    assert done.json["runtime_config"]["pipeline_root"] == str(tmp_path)
    assert (tmp_path / "small" / done.run_id / "same").is_dir()


def test_unknown_things_are_not_found(runner: Any) -> None:
    for path in ("runs/x", "experiments/x", "pipelines/x", "tasks/x", "artifacts/x", "nothing"):
        missing = runner.http("GET", path)
        assert (missing.status_code, missing.json()["code"]) == (404, 5)
    assert runner.http("POST", "runs/x:terminate").status_code == 404
    body = {"display_name": "x", "pipeline_version_reference": {"pipeline_version_id": "y"}}
    assert runner.http("POST", "runs", json=body).status_code == 404


def test_lists_are_sorted_filtered_and_paged(
    tmp_path: Path, make_runner: Callable[[Any], Any]
) -> None:
    with running_pipelines(tmp_path / "stage") as stage:
        runner = make_runner(stage)
        for name in ("b", "a", "d", "c"):
            runner.client.create_experiment(name)

        def names(**params: Any) -> list[str]:
            listed = runner.http("GET", "experiments", params=params).json()
            return [item["display_name"] for item in listed["experiments"]]

        assert names() == ["Default", "b", "a", "d", "c"]
        assert names(sort_by="display_name desc") == ["d", "c", "b", "a", "Default"]
        predicate = {"operation": "IS_SUBSTRING", "key": "display_name", "stringValue": "ef"}
        assert names(filter=json.dumps({"predicates": [predicate]})) == ["Default"]
        several = {"operation": 8, "key": "name", "stringValues": {"values": ["a", "c"]}}
        assert names(filter=json.dumps({"predicates": [several]})) == ["a", "c"]
        later = {"operation": 3, "key": "created_at", "timestampValue": "2000-01-01T00:00:00Z"}
        assert len(names(filter=json.dumps({"predicates": [later]}))) == 5
        _check_pages(runner)


def _check_pages(runner: Any) -> None:
    seen: list[str] = []
    params = {"page_size": "2", "sort_by": "display_name"}
    first = runner.http("GET", "experiments", params=params).json()
    page = first
    while True:
        assert page["total_size"] == 5
        seen += [item["display_name"] for item in page["experiments"]]
        if not page["next_page_token"]:
            break
        params = {"page_size": "2", "page_token": page["next_page_token"]}
        page = runner.http("GET", "experiments", params=params).json()
    assert seen == ["Default", "a", "b", "c", "d"]
    for bad in (
        {"page_token": first["next_page_token"], "sort_by": "created_at"},
        {"page_token": "nonsense"},
        {"page_size": "-1"},
        {"sort_by": "colour"},
        {"sort_by": "name upwards"},
        {"filter": "{"},
        {"filter": '{"predicates": [{"operation": 1, "key": "colour", "stringValue": ""}]}'},
    ):
        assert runner.http("GET", "experiments", params=bad).status_code == 400


def test_runs_are_listed_by_experiment_and_state(runner: Any, package: Path) -> None:
    client = runner.client
    made = client.create_experiment("listed")
    run = client.run_pipeline(made.experiment_id, "r", str(package))
    runner.wait(run.run_id)
    listed = client.list_runs(experiment_id=made.experiment_id)
    assert [item.run_id for item in listed.runs] == [run.run_id]
    predicate = {"operation": 1, "key": "state", "string_value": "FAILED"}
    failed = client.list_runs(
        experiment_id=made.experiment_id, filter=json.dumps({"predicates": [predicate]})
    )
    assert not failed.runs


def test_tasks_are_listed_by_run_and_by_parent(runner: Any, package: Path) -> None:
    run = runner.run(str(package))
    root = run.tasks[0]
    by_run = runner.http("GET", "tasks", params={"run_id": run.run_id}).json()
    by_parent = runner.http("GET", "tasks", params={"parent_id": root["task_id"]}).json()
    assert [item["name"] for item in by_run["tasks"]] == ["small", "same"]
    assert [item["name"] for item in by_parent["tasks"]] == ["same"]
    one = runner.http("GET", f"tasks/{root['task_id']}").json()
    assert one == root
    assert [child["name"] for child in one["child_tasks"]] == ["same"]
    assert runner.http("GET", "tasks").json()["total_size"] >= 2


def test_requests_are_turned_away_while_the_control_plane_stops(tmp_path: Path) -> None:
    async def scenario() -> None:
        config = PipelinesConfig(pipeline_root=tmp_path, token="t")
        headers = {"authorization": "Bearer t"}
        async with memory_api() as client:
            async with Pipelines(client, config) as pipelines:
                transport = httpx.ASGITransport(app=pipelines.app)
                http = httpx.AsyncClient(transport=transport, base_url="http://kfp")
                assert (await http.get("/apis/v2beta1/runs", headers=headers)).status_code == 200
            refused = await http.get("/apis/v2beta1/runs", headers=headers)
            await http.aclose()
        assert (refused.status_code, refused.json()["code"]) == (503, 14)
        assert "stopping" in refused.json()["message"]

    asyncio.run(scenario())
