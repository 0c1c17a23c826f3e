"""What cannot run is refused with KFP's status and code, and the fault by name.

A pipeline comes in by three doors: an upload, a run, a recurring run. Each has to refuse alike.
"""

# KFP reads annotations that are no types to mypy.
# mypy: disable-error-code="no-untyped-def, valid-type, type-arg, no-any-return, name-match"

import copy
import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import dsl
from kfp_server_api.exceptions import ApiException

component = dsl.component(base_image="python:3.11", install_kfp_package=False)
_LIMIT = 32 * 1024 * 1024


@component
def same(value: int) -> int:
    return value


@dsl.pipeline(name="two")
def two(n: int, note: str = "x"):
    first = same(value=n)
    same(value=first.output)


@pytest.fixture(scope="module")
def compiled(runner: Any) -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load(Path(runner.compile(two)).read_text())
    return spec


def _without_name(spec: dict[str, Any]) -> None:
    spec["pipelineInfo"] = {}


def _with_circle(spec: dict[str, Any]) -> None:
    spec["root"]["dag"]["tasks"]["same"]["dependentTasks"] = ["same-2"]


def _without_input(spec: dict[str, Any]) -> None:
    del spec["root"]["dag"]["tasks"]["same"]["inputs"]


def _with_unknown_component(spec: dict[str, Any]) -> None:
    spec["root"]["dag"]["tasks"]["same"]["componentRef"]["name"] = "comp-other"


def _without_executor(spec: dict[str, Any]) -> None:
    del spec["deploymentSpec"]["executors"]["exec-same"]


def _with_unknown_executor(spec: dict[str, Any]) -> None:
    spec["deploymentSpec"]["executors"]["exec-same"] = {"customJob": {}}


_BROKEN = [
    (_without_name, ["has no name"]),
    (_with_circle, ["circle", "'same'", "'same-2'"]),
    (_without_input, ["'same'", "input 'value'"]),
    (_with_unknown_component, ["'comp-other'", "'comp-same'"]),
    (_without_executor, ["'exec-same'"]),
    (_with_unknown_executor, ["exec-same", "customJob"]),
]
_PARAMETERS = [
    ({}, ["'n'", "required"]),
    ({"n": "one"}, ["'n'", "'one'", "whole number"]),
    ({"n": 1.5}, ["'n'", "1.5"]),
    ({"n": 1, "m": 2}, ["'m'", "accepts n: NUMBER_INTEGER"]),
    ({"n": 1, "note": 5}, ["'note'", "5"]),
]


def _break(compiled: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    spec = copy.deepcopy(compiled)
    change(spec)
    return spec


def _check(reply: Any, fragments: list[str]) -> None:
    assert (reply.status_code, reply.json()["code"]) == (400, 3), reply.text
    for fragment in fragments:
        assert fragment in reply.json()["message"]


def _upload(runner: Any, data: bytes, *, name: str = "bad") -> Any:
    files = {"uploadfile": ("package", data)}
    return runner.http("POST", "pipelines/upload", params={"name": name}, files=files)


def _recurring(**fields: Any) -> dict[str, Any]:
    return {
        "display_name": "x",
        "max_concurrency": "1",
        "trigger": {"periodic_schedule": {"interval_second": "3600"}},
        "runtime_config": {"parameters": {"n": 1}},
        **fields,
    }


@pytest.mark.parametrize(("change", "fragments"), _BROKEN)
def test_broken_pipelines_are_refused_at_every_door(
    runner: Any, compiled: dict[str, Any], change: Any, fragments: list[str]
) -> None:
    spec = _break(compiled, change)
    uploaded = _upload(runner, yaml.safe_dump(spec).encode())
    assert uploaded.status_code == 400
    for fragment in fragments:
        assert fragment in uploaded.json()["error_message"]
    run = {"display_name": "x", "pipeline_spec": spec}
    _check(runner.http("POST", "runs", json=run), fragments)
    recurring = runner.http("POST", "recurringruns", json=_recurring(pipeline_spec=spec))
    _check(recurring, fragments)
    assert runner.client.get_pipeline_id("bad") is None


@pytest.mark.parametrize(("parameters", "fragments"), _PARAMETERS)
def test_wrong_parameters_are_refused_before_anything_runs(
    runner: Any, compiled: dict[str, Any], parameters: dict[str, Any], fragments: list[str]
) -> None:
    body = {"pipeline_spec": compiled, "runtime_config": {"parameters": parameters}}
    _check(runner.http("POST", "runs", json={"display_name": "x", **body}), fragments)
    _check(runner.http("POST", "recurringruns", json=_recurring(**body)), fragments)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"display_name": ""}, "needs a display_name"),
        ({"pipeline_spec": None}, "Give a pipeline_spec or a pipeline_version_reference"),
        ({"pipeline_version_reference": {"pipeline_id": "x"}}, "not several"),
        ({"max_concurrency": None}, "max_concurrency of a recurring run is 0; give 1 to 10"),
        ({"max_concurrency": "0"}, "give 1 to 10"),
        ({"max_concurrency": 11}, "give 1 to 10"),
        ({"max_concurrency": "many"}, "whole number, not 'many'"),
        ({"trigger": None}, "cron_schedule or a periodic_schedule"),
        ({"trigger": {"cron_schedule": {"cron": "61 * * * * *"}}}, "second '61'"),
        ({"trigger": {"cron_schedule": {"cron": "every day"}}}, "2 fields"),
        ({"trigger": {"periodic_schedule": {"interval_second": "0"}}}, "is 0; give 1 or more"),
        (
            {
                "trigger": {
                    "cron_schedule": {
                        "cron": "@daily",
                        "start_time": "2026-02-01T00:00:00Z",
                        "end_time": "2026-01-01T00:00:00Z",
                    }
                }
            },
            "is before its start_time",
        ),
        ({"mode": "SOMETIMES"}, "'SOMETIMES'"),
        ({"no_catchup": "yes"}, "true or false"),
        ({"runtime_config": {"parameters": [1]}}, "JSON object"),
        ({"pipeline_root": "/x"}, "no field 'pipeline_root'"),
    ],
)
def test_recurring_runs_that_are_not_valid_are_refused(
    runner: Any, compiled: dict[str, Any], fields: dict[str, Any], fault: str
) -> None:
    before = runner.client.list_recurring_runs().total_size
    body = {"pipeline_spec": compiled, **fields}
    _check(runner.http("POST", "recurringruns", json=_recurring(**body)), [fault])
    assert runner.client.list_recurring_runs().total_size == before


def test_what_does_not_exist_is_not_found(runner: Any, compiled: dict[str, Any]) -> None:
    for body in (
        {"pipeline_spec": compiled, "experiment_id": "nobody's"},
        {"pipeline_version_reference": {"pipeline_version_id": "nobody's"}},
        {"pipeline_version_reference": {"pipeline_id": "nobody's"}},
    ):
        config = {"runtime_config": {"parameters": {"n": 1}}}
        run = runner.http("POST", "runs", json={"display_name": "x", **config, **body})
        recurring = runner.http("POST", "recurringruns", json=_recurring(**body))
        for reply in (run, recurring):
            assert (reply.status_code, reply.json()["code"]) == (404, 5)
            assert "nobody's" in reply.json()["message"]


def test_a_version_of_another_pipeline_is_refused(runner: Any, compiled: dict[str, Any]) -> None:
    data = yaml.safe_dump(compiled).encode()
    first, second = (_upload(runner, data, name=f"owner {n}").json() for n in (1, 2))
    version = runner.client.list_pipeline_versions(first["pipeline_id"]).pipeline_versions[0]
    reference = {
        "pipeline_id": second["pipeline_id"],
        "pipeline_version_id": version.pipeline_version_id,
    }
    body = {"display_name": "x", "pipeline_version_reference": reference}
    _check(runner.http("POST", "runs", json=body), ["belongs to pipeline", first["pipeline_id"]])


def test_the_client_shows_the_servers_sentence(runner: Any) -> None:
    package = runner.compile(two)
    with pytest.raises(ApiException, match="is required") as refused:
        runner.client.create_run_from_pipeline_package(package, arguments={})
    assert json.loads(refused.value.body)["code"] == 3


def _zip(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _tar(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _aliases() -> bytes:
    """A short text whose aliases stand for billions of values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 10)
    ]
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "is empty"),
        (b" \n ", "is empty"),
        (b"# nothing\n", "holds no document"),
        (b"a: [1", "not valid YAML"),
        (b"\xff\xfe\x00", "is not text"),
        (b"just text", "not an object"),
        (b"[" * 5000, "not valid YAML"),
        (b"a: 1\n---\nb: 2\n---\nc: 3\n", "3 documents"),
        (b"pipelineInfo: {name: x}\n", "no schemaVersion"),
        (b"apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec: {}\n", "KFP v1"),
        (_aliases(), "too large"),
    ],
)
def test_texts_that_are_no_pipeline_are_refused(runner: Any, data: bytes, fault: str) -> None:
    refused = _upload(runner, data)
    assert refused.status_code == 400
    assert fault in refused.json()["error_message"]
    assert runner.client.get_pipeline_id("bad") is None


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"PK\x03\x04broken", "broken zip"),
        (_zip(), "holds no file"),
        (_zip(**{"readme.txt": b"x"}), "holds 'readme.txt'"),
        (_zip(**{"a.yaml": b"x", "b.yaml": b"y"}), "holds 'a.yaml', 'b.yaml'"),
        (_zip(**{"a.yaml": b"a: 1"}), "has no name"),
        (_zip(**{"../pipeline.yaml": b"x"}), "'../pipeline.yaml' that lies outside"),
        (_zip(**{"/etc/pipeline.yaml": b"x"}), "'/etc/pipeline.yaml' that lies outside"),
        (_zip(**{"pipeline.yaml": b"\0" * (_LIMIT + 1)}), "unpacks to more than 33554432"),
        (b"\x1f\x8bbroken", "broken tar.gz"),
        (gzip.compress(b"no archive"), "broken tar.gz"),
        (_tar(), "holds no file"),
        (_tar(**{"a.yaml": b"x", "b.yaml": b"y"}), "holds 'a.yaml', 'b.yaml'"),
        (_tar(**{"a/../../pipeline.yaml": b"x"}), "that lies outside"),
        (_tar(**{"junk": b"\0" * (_LIMIT + 1), "pipeline.yaml": b"x"}), "unpacks to more than"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_archives_that_hold_no_pipeline_are_refused(runner: Any, data: bytes, fault: str) -> None:
    assert len(data) < 1_000_000
    refused = _upload(runner, data)
    assert refused.status_code == 400
    assert fault in refused.json()["error_message"]


def test_an_upload_larger_than_32_mib_is_refused(runner: Any) -> None:
    refused = _upload(runner, b"#" * (_LIMIT + 1))
    assert refused.status_code == 400
    assert "33554432" in refused.json()["error_message"]


def test_an_upload_without_a_file_is_refused(runner: Any) -> None:
    refused = runner.http("POST", "pipelines/upload", files={"other": ("package", b"x")})
    assert refused.status_code == 400
    assert "'uploadfile'" in refused.json()["error_message"]
