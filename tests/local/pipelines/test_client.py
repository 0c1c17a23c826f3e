"""Every method of KFP's client does on this machine what it does on a cluster.

The generated clients of both SDKs that kubeloop supports are the specification: what they can call
is served.
"""

# KFP reads annotations that are no types to mypy.
# mypy: disable-error-code="no-untyped-def, valid-type, type-arg, no-any-return, name-match"

import inspect
import itertools
import json
import re
import warnings
from pathlib import Path
from typing import Any

import kfp
import kfp_server_api
import pytest
from kfp import dsl
from kfp_server_api.exceptions import ApiException

component = dsl.component(base_image="python:3.11", install_kfp_package=False)
_NUMBERS = itertools.count()
_YEARLY = "0 0 0 1 1 *"
_NOT_SERVED = ("Auth", "Visualization", "Report", "DummyFilter")  # for the agents of a cluster


@component
def same(value: int) -> int:
    return value


@component
def broken(value: int) -> int:
    raise ValueError(value)


@dsl.container_component
def rest():
    return dsl.ContainerSpec(image="busybox", command=["sleep", "600"])


@dsl.pipeline(name="resting")
def resting():
    rest().set_caching_options(False)


@dsl.pipeline(name="small")
def small(n: int = 1) -> int:
    return same(value=n).output


@dsl.pipeline(name="failing")
def failing(n: int = 1):
    broken(value=n)


@pytest.fixture
def client(runner: Any) -> kfp.Client:
    return runner.client


@pytest.fixture(scope="module")
def package(runner: Any) -> str:
    return runner.compile(small)


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"thing {next(_NUMBERS)}"


@pytest.fixture
def experiment_id(client: kfp.Client, name: str) -> str:
    return client.create_experiment(name).experiment_id


@pytest.fixture
def pipeline(client: kfp.Client, package: str, name: str) -> Any:
    return client.upload_pipeline(package, pipeline_name=name)


@pytest.fixture
def version(client: kfp.Client, pipeline: Any) -> Any:
    return client.list_pipeline_versions(pipeline.pipeline_id).pipeline_versions[0]


@pytest.fixture
def schedule(client: kfp.Client, experiment_id: str, package: str, name: str) -> Any:
    return client.create_recurring_run(
        experiment_id, name, cron_expression=_YEARLY, pipeline_package_path=package
    )


def _equals(key: str, value: str) -> str:
    predicate = {"operation": 1, "key": key, "stringValue": value}
    return json.dumps({"predicates": [predicate]})


def _status(error: pytest.ExceptionInfo[ApiException]) -> tuple[int, int]:
    return error.value.status, json.loads(error.value.body)["code"]


def test_the_test_covers_all_methods_of_the_client() -> None:
    """So that a method added by a later SDK is noticed."""
    own = {
        name
        for name, value in vars(kfp.Client).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }
    text = Path(__file__).read_text()
    helped = {"set_user_namespace", "get_user_namespace"}  # these call nothing
    assert {name for name in own - helped if f"client.{name}(" not in text} == set()


def test_every_call_of_the_generated_client_is_served(runner: Any) -> None:
    called = []
    for api in vars(kfp_server_api).values():
        if not inspect.isclass(api) or not api.__name__.endswith("ServiceApi"):
            continue
        if api.__name__.startswith(_NOT_SERVED):
            continue
        found = re.findall(r"call_api\(\s*'([^']+)', '([A-Z]+)'", inspect.getsource(api))
        called += [(method, re.sub(r"\{[^}]+\}", "x", path)) for path, method in found]
    assert len(called) > 30
    for method, path in called:
        reply = runner.http(method, path.removeprefix("/apis/v2beta1/"), json={})
        assert "is no call of this API" not in reply.text, (method, path)


def test_get_kfp_healthz(client: kfp.Client) -> None:
    assert client.get_kfp_healthz().multi_user is False


def test_create_experiment(client: kfp.Client, name: str) -> None:
    made = client.create_experiment(name, description="d")
    assert (made.display_name, made.description, made.storage_state) == (name, "d", "AVAILABLE")
    assert client.create_experiment(name).experiment_id == made.experiment_id


def test_get_experiment(client: kfp.Client, experiment_id: str, name: str) -> None:
    assert client.get_experiment(experiment_id=experiment_id).display_name == name
    assert client.get_experiment(experiment_name=name).experiment_id == experiment_id
    with pytest.raises(ValueError, match="No experiment is found"):
        client.get_experiment(experiment_name="nobody's")
    with pytest.raises(ApiException) as missing:
        client.get_experiment(experiment_id="nobody's")
    assert _status(missing) == (404, 5)


def test_list_experiments(client: kfp.Client, experiment_id: str, name: str) -> None:
    found = client.list_experiments(filter=_equals("display_name", name))
    assert [item.experiment_id for item in found.experiments] == [experiment_id]
    first = client.list_experiments(page_size=1, sort_by="created_at desc")
    assert first.experiments[0].experiment_id == experiment_id
    second = client.list_experiments(page_size=1, page_token=first.next_page_token)
    assert second.experiments[0].experiment_id != experiment_id
    assert second.total_size == first.total_size


def test_archive_experiment_and_unarchive_experiment(
    client: kfp.Client, experiment_id: str
) -> None:
    client.archive_experiment(experiment_id)
    assert client.get_experiment(experiment_id).storage_state == "ARCHIVED"
    client.unarchive_experiment(experiment_id)
    assert client.get_experiment(experiment_id).storage_state == "AVAILABLE"


def test_delete_experiment(client: kfp.Client, experiment_id: str) -> None:
    client.delete_experiment(experiment_id)
    with pytest.raises(ApiException) as missing:
        client.get_experiment(experiment_id)
    assert _status(missing) == (404, 5)


def test_upload_pipeline(client: kfp.Client, package: str, name: str) -> None:
    made = client.upload_pipeline(package, pipeline_name=name, description="d")
    (version,) = client.list_pipeline_versions(made.pipeline_id).pipeline_versions
    assert (made.display_name, made.description) == (name, "d")
    assert (version.display_name, version.description) == (name, "d")
    assert version.pipeline_spec["pipelineInfo"]["name"] == "small"
    with pytest.raises(ApiException) as refused:
        client.upload_pipeline(package, pipeline_name=name)
    assert refused.value.status == 409


def test_upload_pipeline_from_pipeline_func(client: kfp.Client, name: str) -> None:
    made = client.upload_pipeline_from_pipeline_func(small, pipeline_name=name)
    assert client.get_pipeline_id(name) == made.pipeline_id


def test_upload_pipeline_version(client: kfp.Client, pipeline: Any, package: str) -> None:
    by_id = client.upload_pipeline_version(package, "v2", pipeline_id=pipeline.pipeline_id)
    by_name = client.upload_pipeline_version(
        package, "v3", pipeline_name=pipeline.display_name, description="d"
    )
    assert by_id.pipeline_id == by_name.pipeline_id == pipeline.pipeline_id
    assert (by_name.display_name, by_name.description) == ("v3", "d")


def test_upload_pipeline_version_from_pipeline_func(client: kfp.Client, pipeline: Any) -> None:
    made = client.upload_pipeline_version_from_pipeline_func(
        small, "v2", pipeline_id=pipeline.pipeline_id
    )
    assert made.pipeline_id == pipeline.pipeline_id


def test_get_pipeline(client: kfp.Client, pipeline: Any) -> None:
    assert client.get_pipeline(pipeline.pipeline_id).display_name == pipeline.display_name


def test_get_pipeline_id(client: kfp.Client, pipeline: Any) -> None:
    assert client.get_pipeline_id(pipeline.display_name) == pipeline.pipeline_id
    assert client.get_pipeline_id("nobody's") is None


def test_list_pipelines(client: kfp.Client, pipeline: Any) -> None:
    newest = client.list_pipelines(page_size=1, sort_by="created_at desc")
    assert newest.pipelines[0].pipeline_id == pipeline.pipeline_id
    found = client.list_pipelines(filter=_equals("display_name", pipeline.display_name))
    assert (found.total_size, found.pipelines[0].pipeline_id) == (1, pipeline.pipeline_id)


def test_delete_pipeline(client: kfp.Client, pipeline: Any, version: Any) -> None:
    with pytest.raises(ApiException) as refused:
        client.delete_pipeline(pipeline.pipeline_id)
    assert _status(refused) == (400, 9)
    client.delete_pipeline_version(pipeline.pipeline_id, version.pipeline_version_id)
    client.delete_pipeline(pipeline.pipeline_id)
    assert client.get_pipeline_id(pipeline.display_name) is None


def test_list_pipeline_versions(client: kfp.Client, pipeline: Any, package: str) -> None:
    client.upload_pipeline_version(package, "v2", pipeline_id=pipeline.pipeline_id)
    newest = client.list_pipeline_versions(
        pipeline.pipeline_id, page_size=1, sort_by="created_at desc"
    )
    assert [item.display_name for item in newest.pipeline_versions] == ["v2"]
    found = client.list_pipeline_versions(
        pipeline.pipeline_id, filter=_equals("display_name", pipeline.display_name)
    )
    assert [item.display_name for item in found.pipeline_versions] == [pipeline.display_name]


def test_get_pipeline_version(client: kfp.Client, pipeline: Any, version: Any) -> None:
    found = client.get_pipeline_version(pipeline.pipeline_id, version.pipeline_version_id)
    assert found.pipeline_spec["root"] == version.pipeline_spec["root"]


def test_delete_pipeline_version(client: kfp.Client, pipeline: Any, version: Any) -> None:
    client.delete_pipeline_version(pipeline.pipeline_id, version.pipeline_version_id)
    with pytest.raises(ApiException) as missing:
        client.get_pipeline_version(pipeline.pipeline_id, version.pipeline_version_id)
    assert _status(missing) == (404, 5)


def test_tags_and_display_names_are_changed_and_searched(
    runner: Any, pipeline: Any, version: Any
) -> None:
    path = f"pipelines/{pipeline.pipeline_id}"
    tagged = runner.http("PATCH", path, json={"tags": {"team": "vision", "stage": "dev"}}).json()
    assert tagged["display_name"] == pipeline.display_name
    renamed = runner.http("PATCH", path, json={"display_name": f"{pipeline.display_name} new"})
    assert renamed.json()["tags"] == {"team": "vision", "stage": "dev"}
    found = runner.http("GET", "pipelines", params={"filter": _equals("tags.team", "vision")})
    assert [item["pipeline_id"] for item in found.json()["pipelines"]] == [pipeline.pipeline_id]
    assert runner.http("PATCH", path, json={"tags": {"t": "x" * 64}}).status_code == 400
    of_version = f"{path}/versions/{version.pipeline_version_id}"
    changed = runner.http("PATCH", of_version, json={"tags": {"a": "b"}}).json()
    assert (changed["tags"], changed["display_name"]) == ({"a": "b"}, version.display_name)


def test_run_pipeline_and_wait_for_run_completion(
    client: kfp.Client, experiment_id: str, package: str
) -> None:
    run = client.run_pipeline(experiment_id, "by package", package, params={"n": 4})
    done = client.wait_for_run_completion(run.run_id, timeout=30, sleep_duration=0.02)
    assert (done.state, done.display_name) == ("SUCCEEDED", "by package")
    assert (done.experiment_id, done.runtime_config.parameters) == (experiment_id, {"n": 4})


def test_run_pipeline_of_a_version(client: kfp.Client, experiment_id: str, version: Any) -> None:
    run = client.run_pipeline(
        experiment_id,
        "by version",
        pipeline_id=version.pipeline_id,
        version_id=version.pipeline_version_id,
    )
    reference = client.get_run(run.run_id).pipeline_version_reference
    assert reference.pipeline_version_id == version.pipeline_version_id


def test_create_run_from_pipeline_func(client: kfp.Client) -> None:
    result = client.create_run_from_pipeline_func(small, arguments={"n": 2})
    done = client.wait_for_run_completion(result.run_id, timeout=30, sleep_duration=0.02)
    assert done.state == "SUCCEEDED"
    assert done.runtime_config.parameters == {"n": 2}


def test_create_run_from_pipeline_package(client: kfp.Client, package: str, name: str) -> None:
    result = client.create_run_from_pipeline_package(
        package, run_name=name, experiment_name=name, enable_caching=False
    )
    found = client.get_experiment(experiment_name=name)
    assert client.get_run(result.run_id).experiment_id == found.experiment_id


def test_get_run(client: kfp.Client, runner: Any, package: str) -> None:
    done = runner.run(package)
    run = client.get_run(done.run_id)
    assert {task.display_name: task.state for task in run.run_details.task_details} == {
        "small": "SUCCEEDED",
        "same": "SUCCEEDED",
    }
    assert [change.state for change in run.state_history] == ["PENDING", "RUNNING", "SUCCEEDED"]
    with pytest.raises(ApiException) as missing:
        client.get_run("nobody's")
    assert _status(missing) == (404, 5)


def test_list_runs(client: kfp.Client, experiment_id: str, package: str) -> None:
    made = [client.run_pipeline(experiment_id, f"r{n}", package).run_id for n in range(3)]
    first = client.list_runs(experiment_id=experiment_id, page_size=2, sort_by="name desc")
    assert [run.display_name for run in first.runs] == ["r2", "r1"]
    rest = client.list_runs(experiment_id=experiment_id, page_token=first.next_page_token)
    assert [run.run_id for run in rest.runs] == [made[0]]
    found = client.list_runs(experiment_id=experiment_id, filter=_equals("name", "r1"))
    assert [run.run_id for run in found.runs] == [made[1]]


def test_archive_run_and_unarchive_run(client: kfp.Client, runner: Any, package: str) -> None:
    run_id = runner.run(package).run_id
    client.archive_run(run_id)
    assert client.get_run(run_id).storage_state == "ARCHIVED"
    client.unarchive_run(run_id)
    assert client.get_run(run_id).storage_state == "AVAILABLE"


def test_terminate_run(client: kfp.Client, runner: Any) -> None:
    run_id = runner.submit(resting)
    client.terminate_run(run_id)
    assert runner.wait(run_id).state == "FAILED"
    with pytest.raises(ApiException) as refused:
        client.terminate_run(run_id)
    assert _status(refused) == (400, 9)


def test_retry_run(client: kfp.Client, runner: Any) -> None:
    run_id = runner.run(failing).run_id
    client._run_api.run_service_retry_run(run_id)
    assert runner.wait(run_id).state == "FAILED"
    states = [change.state for change in client.get_run(run_id).state_history]
    assert states == ["PENDING", "RUNNING", "FAILED"] * 2


def test_a_run_is_cloned_as_the_user_interface_does_it(client: kfp.Client, runner: Any) -> None:
    """A new run from the source and the configuration of the old one: KFP has no other call."""
    original = client.get_run(runner.run(small, n=5).run_id)
    clone = kfp_server_api.V2beta1Run(
        display_name=f"Clone of {original.display_name}",
        pipeline_spec=original.pipeline_spec,
        pipeline_version_reference=original.pipeline_version_reference,
        runtime_config=original.runtime_config,
        service_account=original.service_account,
        experiment_id=original.experiment_id,
    )
    made = client._run_api.run_service_create_run(clone)
    assert made.run_id != original.run_id
    assert runner.wait(made.run_id).output("") == 5


def test_delete_run(client: kfp.Client, runner: Any, package: str) -> None:
    run_id = runner.run(package).run_id
    client.delete_run(run_id)
    with pytest.raises(ApiException) as missing:
        client.get_run(run_id)
    assert _status(missing) == (404, 5)


def test_create_recurring_run_from_a_package(
    client: kfp.Client, experiment_id: str, package: str, name: str
) -> None:
    made = client.create_recurring_run(
        experiment_id,
        name,
        description="d",
        start_time="2026-01-01T00:00:00Z",
        end_time="2126-01-01T00:00:00Z",
        cron_expression=_YEARLY,
        max_concurrency=3,
        no_catchup=True,
        params={"n": 2},
        pipeline_package_path=package,
        enabled=False,
        service_account="sa",
    )
    assert (made.display_name, made.description, made.status) == (name, "d", "DISABLED")
    assert (made.mode, made.experiment_id, made.service_account) == ("DISABLE", experiment_id, "sa")
    assert (made.no_catchup, made.max_concurrency) == (True, "3")
    assert made.trigger.cron_schedule.cron == _YEARLY
    assert made.trigger.cron_schedule.end_time.year == 2126
    assert made.runtime_config.parameters == {"n": 2}
    assert made.pipeline_spec["pipelineInfo"]["name"] == "small"


def test_create_recurring_run_from_a_version(
    client: kfp.Client, experiment_id: str, version: Any, name: str
) -> None:
    made = client.create_recurring_run(
        experiment_id,
        name,
        interval_second=3600,
        pipeline_id=version.pipeline_id,
        version_id=version.pipeline_version_id,
    )
    assert made.trigger.periodic_schedule.interval_second == "3600"
    assert made.pipeline_version_reference.pipeline_version_id == version.pipeline_version_id
    assert made.status == "ENABLED"


def test_runs_of_a_recurring_run_carry_its_id_and_are_listed_by_it(
    client: kfp.Client, runner: Any, experiment_id: str, package: str, name: str
) -> None:
    made = client.create_recurring_run(
        experiment_id,
        name,
        start_time="2026-01-01T00:00:00Z",
        end_time="2026-01-03T00:00:00Z",
        interval_second=86400,
        params={"n": 6},
        pipeline_package_path=package,
    )
    of_it = _equals("recurring_run_id", made.recurring_run_id)
    runner.until(lambda: client.list_runs(filter=of_it).total_size == 2)
    runs = client.list_runs(filter=of_it, sort_by="scheduled_at").runs
    assert [run.scheduled_at.day for run in runs] == [2, 3]
    assert {run.recurring_run_id for run in runs} == {made.recurring_run_id}
    assert {run.experiment_id for run in runs} == {experiment_id}
    assert [runner.wait(run.run_id).output("") for run in runs] == [6, 6]


def test_get_recurring_run(client: kfp.Client, schedule: Any) -> None:
    found = client.get_recurring_run(schedule.recurring_run_id)
    assert found.to_dict() == schedule.to_dict()
    with pytest.raises(ApiException) as missing:
        client.get_recurring_run("nobody's")
    assert _status(missing) == (404, 5)


def test_list_recurring_runs(client: kfp.Client, schedule: Any, name: str, package: str) -> None:
    second = client.create_recurring_run(
        schedule.experiment_id, f"{name} b", interval_second=9999, pipeline_package_path=package
    )
    both = client.list_recurring_runs(
        experiment_id=schedule.experiment_id, sort_by="name desc", page_size=1
    )
    assert (both.recurring_runs[0].display_name, both.total_size) == (f"{name} b", 2)
    rest = client.list_recurring_runs(
        experiment_id=schedule.experiment_id, page_token=both.next_page_token
    )
    assert [item.display_name for item in rest.recurring_runs] == [name]
    found = client.list_recurring_runs(filter=_equals("id", second.recurring_run_id))
    assert [item.display_name for item in found.recurring_runs] == [f"{name} b"]


def test_disable_recurring_run_and_enable_recurring_run(client: kfp.Client, schedule: Any) -> None:
    identifier = schedule.recurring_run_id
    client.disable_recurring_run(identifier)
    assert client.get_recurring_run(identifier).status == "DISABLED"
    client.enable_recurring_run(identifier)
    assert client.get_recurring_run(identifier).status == "ENABLED"


def test_the_old_names_of_recurring_runs_work(client: kfp.Client, schedule: Any) -> None:
    identifier = schedule.recurring_run_id
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        client.disable_job(identifier)
        assert client.get_recurring_run(identifier).status == "DISABLED"
        client.enable_job(identifier)
        assert client.get_recurring_run(identifier).status == "ENABLED"
        client.delete_job(identifier)
    with pytest.raises(ApiException):
        client.get_recurring_run(identifier)


def test_delete_recurring_run(client: kfp.Client, schedule: Any) -> None:
    client.delete_recurring_run(schedule.recurring_run_id)
    with pytest.raises(ApiException) as missing:
        client.enable_recurring_run(schedule.recurring_run_id)
    assert _status(missing) == (404, 5)
