"""What clients report of tasks and artifacts, through the API."""

# KFP reads annotations that are no types to mypy.
# mypy: disable-error-code="no-untyped-def, valid-type, type-arg, no-any-return, name-match"

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

component = dsl.component(base_image="python:3.11", install_kfp_package=False)


@component
def same(value: int) -> int:
    return value


@component
def self_reporting(url: str, token: str, folder: str, data: dsl.Output[dsl.Dataset]) -> str:
    """Report a model beside the declared output, as a step does that keeps its own book."""
    import json
    import pathlib
    import urllib.request

    def call(path: str, body: dict) -> dict:
        request = urllib.request.Request(
            f"{url}/apis/v2beta1/{path}",
            data=json.dumps(body).encode(),
            headers={"authorization": f"Bearer {token}", "content-type": "application/json"},
        )
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)

    pathlib.Path(data.path).write_text("rows")
    model = pathlib.Path(folder) / "model"
    model.write_text("weights")
    run_id, name = data.uri.split("/")[-4:-2]
    with urllib.request.urlopen(
        urllib.request.Request(
            f"{url}/apis/v2beta1/runs/{run_id}/tasks",
            headers={"authorization": f"Bearer {token}"},
        )
    ) as reply:
        tasks = json.load(reply)["tasks"]
    task_id = next(task["task_id"] for task in tasks if task["name"] == name)
    artifact = {
        "name": "model",
        "type": "Model",
        "uri": str(model),
        "namespace": "default",
        "metadata": {"accuracy": 0.5},
    }
    body = {"artifact": artifact, "run_id": run_id, "task_id": task_id, "producer_key": "model"}
    return call("artifacts", body)["artifact_id"]


@dsl.pipeline(name="reporting")
def reporting(url: str, token: str, folder: str) -> str:
    return self_reporting(url=url, token=token, folder=folder).outputs["Output"]


@dsl.pipeline(name="small")
def small(n: int = 1) -> int:
    return same(value=n).output


@pytest.fixture(scope="module")
def done(runner: Any) -> Any:
    """A run that has ended."""
    return runner.run(small)


class Api:
    """The API as a step calls it."""

    def __init__(self, runner: Any, run: Any) -> None:
        self._runner = runner
        self.run_id = run.run_id
        self.task = run.task("same")

    def get(self, path: str, **params: Any) -> Any:
        return self._runner.http("GET", path, params=params).raise_for_status().json()

    def post(self, path: str, body: Any) -> Any:
        reply = self._runner.http("POST", path, json=body)
        assert reply.is_success, reply.text
        return reply.json()

    def patch(self, path: str, body: Any) -> Any:
        reply = self._runner.http("PATCH", path, json=body)
        assert reply.is_success, reply.text
        return reply.json()

    def refusal(self, method: str, path: str, body: Any) -> tuple[int, int, str]:
        reply = self._runner.http(method, path, json=body)
        refused = reply.json()
        return reply.status_code, refused["code"], refused["message"]

    def artifact_request(self, **fields: Any) -> dict[str, Any]:
        artifact = {"name": "a", "type": "Dataset", "namespace": "default"}
        overridden = fields.pop("artifact", {})
        merged = {key: value for key, value in (artifact | overridden).items() if value != ""}
        body = {
            "artifact": merged,
            "run_id": self.run_id,
            "task_id": self.task["task_id"],
            "producer_key": "data",
            **fields,
        }
        return {key: value for key, value in body.items() if value != ""}

    def relation(self, made: str, **fields: Any) -> dict[str, Any]:
        body = {
            "artifact_id": made,
            "run_id": self.run_id,
            "task_id": self.task["task_id"],
            "type": "TASK_OUTPUT_INPUT",
            "producer": {"task_name": "elsewhere"},
            "key": "data",
            **fields,
        }
        return {key: value for key, value in body.items() if value != ""}


@pytest.fixture
def api(runner: Any, done: Any) -> Api:
    return Api(runner, done)


def test_a_step_reports_an_artifact_of_its_own(runner: Any, tmp_path: Path) -> None:
    run = runner.run(reporting, url=runner.stage.url, token="token-of-tests", folder=str(tmp_path))
    assert run.state == "SUCCEEDED", run.error
    (model,) = run.artifacts("self-reporting", "model")
    assert model["artifact_id"] == run.output("")
    assert (model["type"], model["metadata"]) == ("Model", {"accuracy": 0.5})
    assert model["digest"] == f"sha256:{hashlib.sha256(b'weights').hexdigest()}"
    (data,) = run.artifacts("self-reporting", "data")
    assert data["artifact_id"] != model["artifact_id"]
    details = runner.client.get_run(run.run_id).run_details.task_details
    outputs = next(task.outputs for task in details if task.display_name == "self-reporting")
    assert outputs["model"].artifact_ids == [model["artifact_id"]]

    again = runner.run(
        reporting, url=runner.stage.url, token="token-of-tests", folder=str(tmp_path)
    )
    assert again.states() == {"self-reporting": "CACHED"}
    assert again.artifacts("self-reporting", "model") == [model]
    (tmp_path / "model").write_text("other weights")
    third = runner.run(
        reporting, url=runner.stage.url, token="token-of-tests", folder=str(tmp_path)
    )
    assert third.states() == {"self-reporting": "SUCCEEDED"}


def test_an_artifact_is_an_output_of_its_task(api: Api, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("content")
    artifact = {"uri": str(file), "metadata": {"rows": 3.0}, "description": "d"}
    made = api.post("artifacts", api.artifact_request(artifact=artifact, producer_key="new"))
    assert api.get(f"artifacts/{made['artifact_id']}") == made
    assert (made["metadata"], made["description"]) == ({"rows": 3}, "d")
    (relation,) = api.get("artifact_tasks", artifact_ids=made["artifact_id"])["artifact_tasks"]
    assert (relation["type"], relation["key"]) == ("OUTPUT", "new")
    assert relation["producer"] == {"task_name": "same", "key": "new"}
    task = api.get(f"tasks/{api.task['task_id']}")
    (entry,) = [item for item in task["outputs"]["artifacts"] if item["artifact_key"] == "new"]
    assert entry["artifacts"] == [made]
    assert entry["producer"] == {"task_name": "same", "key": "new"}


def test_metrics_carry_their_number(api: Api) -> None:
    artifact = {"type": "Metric", "name": "loss", "number_value": 0}
    assert api.post("artifacts", api.artifact_request(artifact=artifact))["number_value"] == 0


def test_artifacts_are_created_together_or_not_at_all(api: Api) -> None:
    before = api.get("artifacts")["total_size"]
    requests = [api.artifact_request(producer_key=key) for key in ("one", "two")]
    made = api.post("artifacts:batchCreate", {"artifacts": requests})["artifacts"]
    assert len({artifact["artifact_id"] for artifact in made}) == 2
    broken = [api.artifact_request(), api.artifact_request(task_id="nobody's")]
    refused = api.refusal("POST", "artifacts:batchCreate", {"artifacts": broken})
    assert refused[:2] == (404, 5)
    assert api.get("artifacts")["total_size"] == before + 2


def test_artifacts_are_filtered_and_paged(api: Api) -> None:
    for number in range(3):
        artifact = {"name": f"page {number}", "type": "HTML"}
        api.post("artifacts", api.artifact_request(artifact=artifact))
    predicate = {"operation": "IS_SUBSTRING", "key": "name", "stringValue": "page"}
    query = {"filter": json.dumps({"predicates": [predicate]}), "sort_by": "name desc"}
    first = api.get("artifacts", page_size=2, **query)
    rest = api.get("artifacts", page_token=first["next_page_token"])
    names = [artifact["name"] for artifact in first["artifacts"] + rest["artifacts"]]
    assert names == ["page 2", "page 1", "page 0"]
    assert (first["total_size"], rest["next_page_token"]) == (3, "")
    assert api.get("artifacts", namespace="elsewhere")["total_size"] == 0


@pytest.mark.parametrize(
    ("fields", "status", "fault"),
    [
        ({"artifact": {"artifact_id": "x"}}, 400, "artifact_id"),
        ({"artifact": {"name": ""}}, 400, "The name of an artifact is missing"),
        ({"artifact": {"namespace": ""}}, 400, "The namespace of an artifact is missing"),
        ({"artifact": {"type": ""}}, 400, "The type of an artifact is missing"),
        ({"artifact": {"type": "Picture"}}, 400, "'Picture' is not one of"),
        ({"artifact": {"type": "Metric"}}, 400, "needs a number_value"),
        ({"artifact": {"type": "Metric", "number_value": "much"}}, 400, "'much'"),
        ({"artifact": {"type": "ClassificationMetric"}}, 400, "needs metadata"),
        ({"artifact": {"metadata": [1]}}, 400, "metadata of an artifact is an object"),
        ({"artifact": {"size": 1}}, 400, "no field 'size'"),
        ({"run_id": ""}, 400, "The run_id of an artifact is missing"),
        ({"task_id": ""}, 400, "The task_id of an artifact is missing"),
        ({"producer_key": ""}, 400, "The producer_key of an artifact is missing"),
        ({"run_id": "another"}, 400, "not to 'another'"),
        ({"task_id": "another"}, 404, "Task 'another' not found"),
    ],
)
def test_artifacts_that_lack_something_are_refused(
    api: Api, fields: dict[str, Any], status: int, fault: str
) -> None:
    code, _, message = api.refusal("POST", "artifacts", api.artifact_request(**fields))
    assert (code, fault in message) == (status, True), message


def test_a_task_that_takes_an_artifact_is_told_by_a_relation(api: Api) -> None:
    made = api.post("artifacts", api.artifact_request())["artifact_id"]
    body = {"artifact_task": api.relation(made, producer={"task_name": "p", "iteration": 2})}
    relation = api.post("artifact_tasks", body)
    assert relation["producer"] == {"task_name": "p", "key": "data", "iteration": "2"}
    assert api.post("artifact_tasks", body) == relation
    found = api.get("artifact_tasks", artifact_ids=made, type="TASK_OUTPUT_INPUT")
    assert found["artifact_tasks"] == [relation]
    task = api.get(f"tasks/{api.task['task_id']}")
    taken = [item for item in task["inputs"]["artifacts"] if item["artifact_key"] == "data"]
    assert made in [artifact["artifact_id"] for artifact in taken[0]["artifacts"]]


def test_relations_are_created_together(api: Api) -> None:
    made = api.post("artifacts", api.artifact_request())["artifact_id"]
    relations = [api.relation(made, key=key) for key in ("x", "y")]
    created = api.post("artifact_tasks:batchCreate", {"artifact_tasks": relations})
    assert [relation["key"] for relation in created["artifact_tasks"]] == ["x", "y"]
    assert api.refusal("POST", "artifact_tasks:batchCreate", {})[:2] == (400, 3)


def test_relations_of_the_plans_form_are_understood(api: Api) -> None:
    made = api.post("artifacts", api.artifact_request())["artifact_id"]
    planned = {
        "artifact_id": made,
        "run_id": api.run_id,
        "task_id": api.task["task_id"],
        "type": "INPUT",
        "producer_task_name": "p",
        "producer_key": "k",
        "artifact_key": "planned",
    }
    relation = api.post("artifact_tasks", {"artifact_task": planned})
    assert (relation["producer"], relation["key"]) == ({"task_name": "p", "key": "k"}, "planned")


@pytest.mark.parametrize(
    ("fields", "status", "fault"),
    [
        ({"artifact_id": ""}, 400, "artifact_id"),
        ({"type": ""}, 400, "type of an artifact_task is missing"),
        ({"producer": ""}, 400, "producer of an artifact_task is missing"),
        ({"key": ""}, 400, "key of an artifact_task is missing"),
        ({"run_id": "another"}, 400, "not to 'another'"),
        ({"artifact_id": "another"}, 404, "Artifact 'another' not found"),
    ],
)
def test_relations_that_lack_something_are_refused(
    api: Api, fields: dict[str, Any], status: int, fault: str
) -> None:
    made = api.post("artifacts", api.artifact_request())["artifact_id"]
    body = {"artifact_task": api.relation(made, **fields)}
    code, _, message = api.refusal("POST", "artifact_tasks", body)
    assert (code, fault in message) == (status, True), message


def test_a_client_keeps_tasks_of_its_own(api: Api) -> None:
    made = api.post(
        f"runs/{api.run_id}/tasks",
        {
            "name": "epoch",
            "display_name": "Epoch 1",
            "parent_task_id": api.task["task_id"],
            "type": "LOOP_ITERATION",
            "type_attributes": {"iteration_index": "1"},
            "state": "RUNNING",
            "inputs": {
                "parameters": [
                    {
                        "parameter_key": "rate",
                        "value": 0.1,
                        "type": "TASK_OUTPUT_INPUT",
                        "producer": {"task_name": "tune", "key": "best"},
                    }
                ]
            },
            "pods": [{"name": "pod-1", "uid": "u", "type": "EXECUTOR"}],
        },
    )
    assert (made["scope_path"], made["type"]) == ("root.same.epoch", "LOOP_ITERATION")
    assert made["type_attributes"] == {"iteration_index": "1"}
    assert made["inputs"]["parameters"][0]["producer"] == {"task_name": "tune", "key": "best"}
    assert made["pods"] == [{"name": "pod-1", "uid": "u", "type": "EXECUTOR"}]
    assert "start_time" in made
    changed = api.patch(
        f"runs/{api.run_id}/tasks/{made['task_id']}",
        {
            "state": "FAILED",
            "error": {"code": 2, "message": "diverged"},
            "status_metadata": {"message": "m", "custom_properties": {"loss": 9.0}},
            "outputs": {"parameters": [{"parameter_key": "loss", "value": 9}]},
        },
    )
    assert [change["state"] for change in changed["state_history"]] == ["RUNNING", "FAILED"]
    assert (changed["state"], changed["error"]["message"]) == ("FAILED", "diverged")
    assert changed["status_metadata"] == {"message": "m", "custom_properties": {"loss": 9}}
    assert changed["outputs"]["parameters"][0]["value"] == 9
    assert changed["inputs"] == made["inputs"]
    assert changed["end_time"] >= changed["start_time"]
    assert api.get(f"tasks/{made['task_id']}") == changed
    assert api.patch(f"tasks/{made['task_id']}", changed) == changed
    parent = api.get(f"tasks/{api.task['task_id']}")
    assert made["task_id"] in [child["task_id"] for child in parent["child_tasks"]]
    assert made["task_id"] in [task["task_id"] for task in api.get(f"runs/{api.run_id}")["tasks"]]


def test_tasks_of_clients_are_changed_together_or_not_at_all(api: Api) -> None:
    made = [
        api.post("tasks", {"name": name, "run_id": api.run_id})["task_id"] for name in ("a", "b")
    ]
    changes = {identifier: {"status": "SUCCEEDED"} for identifier in made}
    changed = api.post("tasks:batchUpdate", {"tasks": changes})["tasks"]
    assert {task["state"] for task in changed.values()} == {"SUCCEEDED"}
    broken = {made[0]: {"state": "FAILED"}, "nobody's": {"state": "FAILED"}}
    assert api.refusal("POST", "tasks:batchUpdate", {"tasks": broken})[:2] == (404, 5)
    assert api.get(f"tasks/{made[0]}")["state"] == "SUCCEEDED"


def test_tasks_are_listed_below_their_run_with_pages_and_filters(api: Api) -> None:
    for number in range(3):
        api.post("tasks", {"name": f"listed {number}", "run_id": api.run_id})
    predicate = {"operation": "IS_SUBSTRING", "key": "name", "stringValue": "listed"}
    query = {"filter": json.dumps({"predicates": [predicate]}), "order_by": "name desc"}
    first = api.get(f"runs/{api.run_id}/tasks", page_size=2, **query)
    token = first["next_page_token"]
    rest = api.get(f"runs/{api.run_id}/tasks", page_token=token)
    names = [task["name"] for task in first["tasks"] + rest["tasks"]]
    assert names == ["listed 2", "listed 1", "listed 0"]


@pytest.mark.parametrize(
    ("body", "status", "fault"),
    [
        ({}, 400, "The name of a task is missing"),
        ({"name": "t", "task_id": "x"}, 400, "task_id of a new task"),
        ({"name": "t", "run_id": "another"}, 400, "another run than the path"),
        ({"name": "t", "parent_task_id": "nobody's"}, 400, "is no task of run"),
        ({"name": "t", "state": "LOST"}, 400, "'LOST' is not one of"),
        ({"name": "t", "type": "CUBE"}, 400, "'CUBE' is not one of"),
        ({"name": "t", "start_time": "noon"}, 400, "'noon' is no time"),
        ({"name": "t", "inputs": {"parameters": [{"value": 1}]}}, 400, "needs a parameter_key"),
        ({"name": "t", "colour": 1}, 400, "no field 'colour'"),
    ],
)
def test_tasks_that_lack_something_are_refused(
    api: Api, body: dict[str, Any], status: int, fault: str
) -> None:
    code, _, message = api.refusal("POST", f"runs/{api.run_id}/tasks", body)
    assert (code, fault in message) == (status, True), message


def test_the_engines_tasks_are_not_changed_by_clients(api: Api) -> None:
    code, grpc, message = api.refusal("PATCH", f"tasks/{api.task['task_id']}", {"state": "FAILED"})
    assert (code, grpc) == (400, 9)
    assert "the engine keeps" in message
    assert api.refusal("PATCH", "tasks/nobody's", {"state": "FAILED"})[:2] == (404, 5)
    assert api.refusal("POST", "tasks", {"name": "t", "run_id": "nobody's"})[:2] == (404, 5)
