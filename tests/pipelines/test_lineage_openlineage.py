import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from kubeloop.errors import InputError, PermanentError, TransientError
from kubeloop.pipelines.lineage.openlineage import (
    build_events,
    name_dataset,
    render_lines,
    send,
)
from kubeloop.testing.recorded_runs import (
    GivenArtifact,
    GivenRun,
    GivenTask,
    MemoryMetadata,
    digits_run,
)

RUN = "10000000-0000-4000-8000-000000000000"
FACETS = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "properties": {
            "_producer": {"type": "string", "format": "uri"},
            "_schemaURL": {"type": "string", "format": "uri"},
        },
        "required": ["_producer", "_schemaURL"],
    },
}
DATASETS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "namespace": {"type": "string", "minLength": 1},
            "name": {"type": "string", "minLength": 1},
            "facets": FACETS,
        },
        "required": ["namespace", "name"],
    },
}
RUN_EVENT = {
    "type": "object",
    "properties": {
        "eventTime": {"type": "string", "format": "date-time"},
        "producer": {"type": "string", "format": "uri"},
        "schemaURL": {"type": "string", "format": "uri"},
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "run": {
            "type": "object",
            "properties": {"runId": {"type": "string", "format": "uuid"}, "facets": FACETS},
            "required": ["runId"],
        },
        "job": {
            "type": "object",
            "properties": {
                "namespace": {"type": "string"},
                "name": {"type": "string"},
                "facets": FACETS,
            },
            "required": ["namespace", "name"],
        },
        "inputs": DATASETS,
        "outputs": DATASETS,
    },
    "required": ["eventTime", "producer", "schemaURL", "run", "job"],
}
"""What the specification, version 2-0-2, asks of a run event."""
REQUIRED = {
    "parent": {"run", "job"},
    "errorMessage": {"message", "programmingLanguage"},
    "jobType": {"processingType", "integration"},
    "datasetType": {"datasetType"},
    "version": {"datasetVersion"},
    "schema": {"fields"},
    "dataSource": {"name", "uri"},
}
"""What it asks of the facets that are used."""


def events_of(*tasks: GivenTask) -> list[dict[str, Any]]:
    source = MemoryMetadata([GivenRun(run_id=RUN, pipeline="tables", tasks=tasks)])
    return build_events(source, RUN, namespace="default")


def of_job(events: list[dict[str, Any]], name: str) -> dict[str, dict[str, Any]]:
    return {event["eventType"]: event for event in events if event["job"]["name"] == name}


def facets_of(event: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    holders = [event["run"], event["job"], *event.get("inputs", []), *event.get("outputs", [])]
    for holder in holders:
        yield from holder.get("facets", {}).items()


def check(event: dict[str, Any]) -> None:
    validator = Draft202012Validator(RUN_EVENT, format_checker=FormatChecker())
    assert [error.message for error in validator.iter_errors(event)] == []
    for name, facet in facets_of(event):
        assert REQUIRED[name] <= facet.keys()
        assert f"/{facet['_schemaURL'].rpartition('/')[2]}.json#/$defs/" in facet["_schemaURL"]


@pytest.mark.parametrize("is_failed", [True, False])
def test_events_are_valid(*, is_failed: bool) -> None:
    given = digits_run(1, run_id=RUN)
    tasks = [*given.tasks, GivenTask(name="last", is_failed=is_failed)]

    events = build_events(
        MemoryMetadata([GivenRun(run_id=RUN, tasks=tasks)]), RUN, namespace="default"
    )

    assert len(events) == 12
    for event in events:
        check(json.loads(json.dumps(event)))


def test_each_task_starts_and_ends_within_its_run() -> None:
    events = events_of(GivenTask(name="good"), GivenTask(name="bad", is_failed=True))

    assert of_job(events, "tables").keys() == {"START", "COMPLETE"}
    assert of_job(events, "tables.good").keys() == {"START", "COMPLETE"}
    bad = of_job(events, "tables.bad")
    assert bad.keys() == {"START", "FAIL"}
    assert bad["FAIL"]["run"]["facets"]["errorMessage"]["message"] == "it broke"
    parent = bad["FAIL"]["run"]["facets"]["parent"]
    assert parent["run"] == {"runId": RUN}
    assert parent["job"] == {"namespace": "default", "name": "tables"}


def test_events_of_a_task_share_an_identifier_that_is_the_same_each_time() -> None:
    first, second = (of_job(events_of(GivenTask(name="a")), "tables.a") for _ in range(2))

    assert first["START"]["run"]["runId"] == first["COMPLETE"]["run"]["runId"]
    assert first == second


def test_datasets_are_named_by_place_and_carry_their_version() -> None:
    table = GivenArtifact(
        name="table",
        type="Dataset",
        uri="s3://bucket/a table#1",
        digest="sha256:" + "a" * 64,
        metadata={"schema": {"age": "int64"}},
    )
    events = events_of(
        GivenTask(name="write", gives={"out": [table]}),
        GivenTask(name="read", takes={"given": [(f"{RUN}/write", "out")]}),
    )

    write, read = of_job(events, "tables.write"), of_job(events, "tables.read")

    assert write["START"]["outputs"] == []
    (made,) = write["COMPLETE"]["outputs"]
    assert (made["namespace"], made["name"]) == ("s3://bucket", "a table#1")
    assert made["facets"]["version"]["datasetVersion"] == "sha256:" + "a" * 64
    assert made["facets"]["schema"]["fields"] == [{"name": "age", "type": "int64"}]
    assert read["START"]["inputs"] == [made]


def test_raw_data_is_an_input_of_the_task_that_ingested_it() -> None:
    given = digits_run(1, run_id=RUN)
    events = build_events(MemoryMetadata([given]), RUN, namespace="default")

    ingest = of_job(events, "image-classification.ingest-dataset")["COMPLETE"]

    assert [(item["namespace"], item["name"]) for item in ingest["inputs"]] == [
        ("file", "/data/digits")
    ]


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("/data/x", ("file", "/data/x")),
        ("file:///data/x", ("file", "/data/x")),
        ("s3://bucket/a/b", ("s3://bucket", "a/b")),
        ("gs://bucket/a?b", ("gs://bucket", "a?b")),
        ("https://host:8080/a", ("https://host:8080", "a")),
        ("s3://bucket", ("s3://bucket", "/")),
    ],
)
def test_places_are_named_as_openlineage_names_them(uri: str, name: tuple[str, str]) -> None:
    assert name_dataset(uri) == name


def test_lines_hold_an_event_each() -> None:
    events = events_of(GivenTask(name="a"))

    lines = render_lines(events).splitlines()

    assert [json.loads(line)["eventType"] for line in lines] == [e["eventType"] for e in events]


def test_unknown_run_is_refused() -> None:
    with pytest.raises(InputError, match="not found"):
        build_events(MemoryMetadata([]), RUN, namespace="default")


class Server:
    """An OpenLineage server that takes what it is sent."""

    def __init__(self, status: int) -> None:
        self.taken: list[tuple[str, str, dict[str, Any]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the base class's name
                body = self.rfile.read(int(self.headers["content-length"]))
                token = self.headers.get("authorization", "")
                outer.taken.append((self.path, token, json.loads(body)))
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def test_events_are_sent_where_the_user_says() -> None:
    events = events_of(GivenTask(name="a"))

    with Server(201) as server:
        send(events, server.url, token="secret")
        send(events[:1], f"{server.url}/own/path")

    paths = [(path, token) for path, token, _ in server.taken]
    assert paths == [("/api/v1/lineage", "Bearer secret")] * 4 + [("/own/path", "")]
    assert [event for *_, event in server.taken[:4]] == json.loads(json.dumps(events, default=str))


@pytest.mark.parametrize(("status", "kind"), [(422, PermanentError), (503, TransientError)])
def test_refusals_of_the_server_are_told(status: int, kind: type[Exception]) -> None:
    with Server(status) as server, pytest.raises(kind, match=f"HTTP {status}"):
        send(events_of(GivenTask(name="a")), server.url)


def test_server_that_does_not_answer_is_told() -> None:
    with pytest.raises(TransientError, match="Failed to send events to http://127"):
        send(events_of(), "http://127.0.0.1:9")
