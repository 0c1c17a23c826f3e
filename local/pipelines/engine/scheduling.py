"""When a task of a DAG is run, and how the DAG ends: pure rules over the states of its tasks.

As in KFP: a task runs once all its upstream succeeded; one that is to run whatever became of its
upstream waits only for its end; and after the first failure in a DAG nothing new is started in it
but the tasks of that second kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum, auto

from kubeloop.local.pipelines.spec import ir
from kubeloop.local.pipelines.storage.records import TaskState


class Decision(Enum):
    """What to do with a task that was not begun."""

    WAIT = auto()
    RUN = auto()
    DROP = auto()
    """It will never run."""


def decide(task: ir.Task, states: Mapping[str, TaskState], *, has_failed: bool) -> Decision:
    """Whether to begin a task.

    Args:
        task: The task, not begun.
        states: States of the tasks of the same DAG that were begun or dropped.
        has_failed: Whether a task of this DAG failed.
    """
    upstream = [states.get(name) for name in task.upstream]
    is_waiting = any(state is None or not state.is_done for state in upstream)
    if task.strategy is ir.TriggerStrategy.ALL_UPSTREAM_TASKS_COMPLETED:
        if is_waiting:
            return Decision.WAIT
        ran = [state for state in upstream if state is not TaskState.NOT_RUN]
        return Decision.RUN if ran or not upstream else Decision.DROP
    if has_failed:
        return Decision.DROP
    ended = [state for state in upstream if state is not None and state.is_done]
    if any(not state.has_outputs for state in ended):
        return Decision.DROP
    return Decision.WAIT if is_waiting else Decision.RUN


def explain_drop(task: ir.Task, states: Mapping[str, TaskState], *, is_canceling: bool) -> str:
    """Why a task will never run, for its status."""
    if is_canceling:
        return "not run: the run was terminated"
    for name in task.upstream:
        match states.get(name):
            case TaskState.FAILED:
                return f"not run: task {name!r} failed"
            case TaskState.SKIPPED:
                return f"not run: the condition of task {name!r} was false"
            case TaskState.NOT_RUN:
                return f"not run: task {name!r} was not run"
    failed = next((name for name, state in states.items() if state is TaskState.FAILED), "")
    return f"not run: task {failed!r} failed before its turn"


def combine(states: Iterable[TaskState]) -> TaskState:
    """How a DAG ends whose tasks all ended in these states."""
    return TaskState.FAILED if TaskState.FAILED in set(states) else TaskState.SUCCEEDED
