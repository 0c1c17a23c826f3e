"""The store: what is put is read back equal, also by the next process."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from kubeloop.errors import InputError
from kubeloop.local.pipelines.storage.records import (
    ArtifactTask,
    Attempt,
    InputKind,
    Origin,
    Run,
    RuntimeState,
    StateChange,
    Task,
    TaskState,
    TaskType,
    TaskValues,
)
from kubeloop.local.pipelines.storage.store import Store

RUN = Run(
    run_id="r",
    experiment_id="e",
    display_name="run",
    created_at=1.5,
    scheduled_at=1.5,
    namespace="default",
    spec={"root": {}},
    parameters={"n": 1, "items": [1, "a", None]},
    pipeline_name="p",
    root="/artifacts/p/r",
    state=RuntimeState.RUNNING,
    state_history=(StateChange(state="RUNNING", time=2.0),),
)
TASK = Task(
    task_id="t",
    run_id="r",
    parent_id="",
    name="step",
    display_name="Step",
    path="root.step",
    type=TaskType.RUNTIME,
    state=TaskState.SUCCEEDED,
    create_time=1.0,
    end_time=3.0,
    state_history=(StateChange(state="SUCCEEDED", time=3.0, message="m"),),
    inputs=TaskValues(
        parameters={"a": 1.5},
        artifacts={"data": ("x", "y")},
        origins={"a": Origin(kind=InputKind.TASK_OUTPUT_INPUT, task_name="b", key="k")},
    ),
    attempt=Attempt(number=2, retry_index=1, pod_name="step-1", folder="/f"),
    failed_pods=("step-0",),
    pipeline_name="p",
    fingerprint="f",
)


def test_records_are_read_back_equal_by_the_next_process(tmp_path: Path) -> None:
    with Store(tmp_path / "pipelines.db") as store:
        store.runs.put(RUN)
        store.tasks.put(TASK)
    with Store(tmp_path / "pipelines.db") as store:
        assert store.runs.get("r") == RUN
        assert store.tasks_of("r") == [TASK]
        assert store.unfinished_runs() == [RUN]
        assert store.runs.get("other") is None


def test_putting_again_replaces_and_keeps_the_order() -> None:
    with Store(None) as store:
        for name in ("a", "b"):
            store.tasks.put(replace(TASK, task_id=name))
        store.tasks.put(replace(TASK, task_id="a", error="changed"))
        assert [(task.task_id, task.error) for task in store.tasks_of("r")] == [
            ("a", "changed"),
            ("b", ""),
        ]


def test_only_succeeded_tasks_of_the_pipeline_are_cache_entries_newest_first() -> None:
    with Store(None) as store:
        store.tasks.put(replace(TASK, task_id="older", end_time=1.0))
        store.tasks.put(replace(TASK, task_id="newer", end_time=2.0))
        store.tasks.put(replace(TASK, task_id="failed", state=TaskState.FAILED))
        store.tasks.put(replace(TASK, task_id="cached", state=TaskState.CACHED))
        store.tasks.put(replace(TASK, task_id="elsewhere", pipeline_name="q"))
        found = store.find_cached("f", pipeline_name="p")
        assert [task.task_id for task in found] == ["newer", "older"]


def test_a_transaction_is_all_or_nothing() -> None:
    with Store(None) as store:
        with pytest.raises(RuntimeError):
            _fail_in_transaction(store)
        assert store.runs.get("r") is None
        assert store.tasks.get("t") is None


def _fail_in_transaction(store: Store) -> None:
    with store.transaction():
        store.runs.put(RUN)
        with store.transaction():
            store.tasks.put(TASK)
        raise RuntimeError


def test_the_default_experiment_is_made_once() -> None:
    with Store(None) as store:
        first = store.default_experiment(namespace="default", now=1.0)
        assert store.default_experiment(namespace="default", now=2.0) == first


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pipelines.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(InputError, match="format 99"):
        Store(path)


def test_what_was_told_during_an_earlier_attempt_is_left_out() -> None:
    told = [
        ArtifactTask(
            id=f"at-{attempt}",
            artifact_id=f"a-{attempt}",
            run_id="r",
            task_id="t",
            type=InputKind.OUTPUT,
            key="model",
            producer_task_name="step",
            producer_key="model",
            reported_by=attempt,
        )
        for attempt in (1, 2)
    ]
    with Store(None) as store:
        for relation in told:
            store.artifact_tasks.put(relation)
        (task,) = store.with_reports([TASK])
    assert task.outputs.artifacts == {"model": ("a-2",)}
    assert task.inputs == TASK.inputs


def test_tasks_of_clients_are_not_the_engines() -> None:
    with Store(None) as store:
        store.tasks.put(TASK)
        store.tasks.put(replace(TASK, task_id="own", is_reported=True))
        assert [task.task_id for task in store.tasks_of("r")] == ["t"]
        assert [task.task_id for task in store.all_tasks_of("r")] == ["t", "own"]
