"""When a task is run, by the states of those before it."""

from __future__ import annotations

import pytest

from kubeloop.local.pipelines.engine.context import Slots
from kubeloop.local.pipelines.engine.scheduling import Decision, combine, decide, explain_drop
from kubeloop.local.pipelines.spec import ir
from kubeloop.local.pipelines.storage.records import TaskState

SUCCEEDED, FAILED, RUNNING = TaskState.SUCCEEDED, TaskState.FAILED, TaskState.RUNNING
SKIPPED, NOT_RUN, CACHED = TaskState.SKIPPED, TaskState.NOT_RUN, TaskState.CACHED
ALWAYS = ir.TriggerStrategy.ALL_UPSTREAM_TASKS_COMPLETED


def _task(
    *upstream: str,
    strategy: ir.TriggerStrategy = ir.TriggerStrategy.ALL_UPSTREAM_TASKS_SUCCEEDED,
) -> ir.Task:
    return ir.Task(
        name="t",
        display_name="t",
        component="c",
        parameters={},
        artifacts={},
        upstream=upstream,
        strategy=strategy,
    )


@pytest.mark.parametrize(
    ("states", "decision"),
    [
        ({}, Decision.WAIT),
        ({"a": RUNNING, "b": SUCCEEDED}, Decision.WAIT),
        ({"a": SUCCEEDED, "b": CACHED}, Decision.RUN),
        ({"a": SKIPPED, "b": RUNNING}, Decision.DROP),
        ({"a": SUCCEEDED, "b": FAILED}, Decision.DROP),
        ({"a": NOT_RUN}, Decision.DROP),
    ],
)
def test_a_task_runs_once_all_before_it_succeeded(
    states: dict[str, TaskState], decision: Decision
) -> None:
    assert decide(_task("a", "b"), states, has_failed=False) is decision


@pytest.mark.parametrize(
    ("states", "decision"),
    [
        ({"a": RUNNING}, Decision.WAIT),
        ({"a": FAILED}, Decision.RUN),
        ({"a": SKIPPED}, Decision.RUN),
        ({"a": SUCCEEDED}, Decision.RUN),
        ({"a": NOT_RUN}, Decision.DROP),
    ],
)
def test_an_exit_task_runs_whatever_became_of_those_before_it(
    states: dict[str, TaskState], decision: Decision
) -> None:
    assert decide(_task("a", strategy=ALWAYS), states, has_failed=True) is decision


def test_after_a_failure_nothing_new_is_begun() -> None:
    assert decide(_task(), {}, has_failed=False) is Decision.RUN
    assert decide(_task(), {"other": FAILED}, has_failed=True) is Decision.DROP


def test_a_dropped_task_says_why() -> None:
    task = _task("a")
    assert explain_drop(task, {"a": FAILED}, is_canceling=False) == "not run: task 'a' failed"
    assert "was false" in explain_drop(task, {"a": SKIPPED}, is_canceling=False)
    assert "'b' failed" in explain_drop(task, {"b": FAILED}, is_canceling=False)
    assert "terminated" in explain_drop(task, {}, is_canceling=True)


def test_a_dag_fails_if_one_of_its_tasks_did() -> None:
    assert combine([SUCCEEDED, SKIPPED, NOT_RUN]) is SUCCEEDED
    assert combine([SUCCEEDED, FAILED]) is FAILED


def test_slots_are_given_in_turn_and_forced_ones_count() -> None:
    slots, woken = Slots(1), list[str]()
    assert slots.take("running", wake=lambda: None, force=True)
    assert not slots.take("a", wake=lambda: woken.append("a"))
    assert not slots.take("a", wake=lambda: woken.append("a twice"))
    assert not slots.take("b", wake=lambda: woken.append("b"))
    slots.release("unknown")
    slots.release("running")
    assert woken == ["a"]
    assert slots.take("a", wake=lambda: None)
    assert not slots.take("c", wake=lambda: woken.append("c"))
    slots.release("b")
    assert woken == ["a"]
    slots.release("a")
    assert woken == ["a", "c"]
    assert not slots.take("d", wake=lambda: None)
