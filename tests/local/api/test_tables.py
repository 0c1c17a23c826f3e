"""Cells, as kubectl prints them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kubeloop.local.api.jsonpath import find_value, find_values, set_value
from kubeloop.local.api.printing import human_duration, pod_state
from kubeloop.local.api.resources import (
    EVENTS,
    EXPERIMENTS,
    INFERENCE_SERVICES,
    JOBS,
    PERSISTENT_VOLUME_CLAIMS,
    RESOURCES,
    Resource,
)
from kubeloop.local.api.tables import TableOptions, render_table

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def cells(resource: Resource, manifest: dict[str, Any]) -> dict[str, Any]:
    manifest = {"metadata": {"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"}, **manifest}
    table = render_table(resource, [manifest], options=TableOptions(), now=NOW)
    names = [column["name"] for column in table["columnDefinitions"]]
    return dict(zip(names, table["rows"][0]["cells"], strict=True))


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (200, "3m20s"),
        (10 * 60, "10m"),
        (3 * 3600 + 60, "3h1m"),
        (8 * 3600, "8h"),
        (48 * 3600, "2d"),
        (49 * 3600, "2d1h"),
        (8 * 86400, "8d"),
        (2 * 365 * 86400, "2y"),
        (3 * 365 * 86400 + 86400, "3y1d"),
        (9 * 365 * 86400, "9y"),
    ],
)
def test_durations_read_well(seconds: int, expected: str) -> None:
    assert human_duration(timedelta(seconds=seconds)) == expected


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: str(resource.plural))
def test_a_bare_object_of_any_kind_has_a_cell_a_column(resource: Resource) -> None:
    row = cells(resource, {})
    assert row["Name"] == "x"
    assert "24h" in row.values() or resource is EVENTS


def test_experiments_show_their_newest_condition() -> None:
    conditions = [{"type": "Created", "status": "True"}, {"type": "Running", "status": "True"}]
    row = cells(EXPERIMENTS, {"status": {"conditions": conditions}})
    assert (row["Type"], row["Status"], row["Age"]) == ("Running", "True", "24h")


def test_inference_services_show_readiness_and_traffic() -> None:
    traffic = [
        {"percent": 20, "latestRevision": True, "revisionName": "r2"},
        {"percent": 80, "tag": "prev", "revisionName": "r1"},
    ]
    status = {
        "url": "http://x",
        "conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}],
        "components": {"predictor": {"traffic": traffic}},
    }
    assert list(cells(INFERENCE_SERVICES, {"status": status}).values()) == [
        "x", "http://x", "True", 80, 20, "r1", "r2", "24h",
    ]  # fmt: skip


def test_jobs_show_completions_and_how_long_they_took() -> None:
    status = {
        "succeeded": 1,
        "startTime": "2026-01-01T00:00:00Z",
        "completionTime": "2026-01-01T00:01:30Z",
        "conditions": [{"type": "Complete", "status": "True"}],
    }
    row = cells(JOBS, {"spec": {"completions": 1}, "status": status})
    assert (row["Status"], row["Completions"], row["Duration"]) == ("Complete", "1/1", "90s")


def test_events_say_what_about_whom_and_when() -> None:
    event = {
        "involvedObject": {"kind": "Pod", "name": "p"},
        "type": "Warning",
        "reason": "BackOff",
        "message": "again\n",
        "lastTimestamp": "2026-01-01T23:59:00Z",
    }
    row = cells(EVENTS, event)
    assert (row["Last Seen"], row["Object"], row["Message"]) == ("60s", "pod/p", "again")


def test_claims_show_what_they_got() -> None:
    status = {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}
    row = cells(PERSISTENT_VOLUME_CLAIMS, {"status": status})
    assert (row["Status"], row["Capacity"], row["Access Modes"]) == ("Bound", "1Gi", "RWO")


def in_state(part: str, **state: Any) -> dict[str, Any]:
    return {part: [{"state": state}]}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, "Unknown"),
        ({"phase": "Pending"}, "Pending"),
        ({"phase": "Failed", "reason": "Evicted"}, "Evicted"),
        (in_state("containerStatuses", waiting={"reason": "CrashLoopBackOff"}), "CrashLoopBackOff"),
        (in_state("containerStatuses", terminated={"exitCode": 3}), "ExitCode:3"),
        (in_state("containerStatuses", terminated={"exitCode": 1, "reason": "Error"}), "Error"),
        (in_state("initContainerStatuses", running={}), "Init:0/1"),
        (in_state("initContainerStatuses", terminated={"exitCode": 1}), "Init:ExitCode:1"),
        ({"phase": "X", **in_state("initContainerStatuses", terminated={"exitCode": 0})}, "X"),
    ],
)
def test_pods_show_one_word(status: dict[str, Any], expected: str) -> None:
    pod = {"metadata": {"name": "p"}, "spec": {"initContainers": [{}]}, "status": status}
    assert pod_state(pod) == expected


def test_dying_pods_are_terminating() -> None:
    assert pod_state({"metadata": {"deletionTimestamp": "x"}, "status": {"phase": "Running"}}) == (
        "Terminating"
    )


def test_paths_lead_to_values() -> None:
    manifest = {"a": {"b": [{"c": 1, "k": True}, {"c": 2, "k": "x"}]}}
    assert find_values(manifest, ".a.b[*].c") == [1, 2]
    assert find_value(manifest, ".a.b[-1:].c") == 2
    assert find_value(manifest, ".a.b[0].c") == 1
    assert find_value(manifest, ".a.b[?(@.k=='x')].c") == 2
    assert find_value(manifest, ".a.b[?(@.k==true)].c") == 1
    assert find_value(manifest, ".a.none.c") is None
    assert find_value(manifest, ".a.b[7].c") is None
    set_value(manifest, ".a.d.e", 3)
    assert find_value(manifest, ".a.d.e") == 3


def test_a_path_of_another_form_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be read from position 2"):
        find_values({}, ".a..b")
