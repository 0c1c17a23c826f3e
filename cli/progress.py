"""Shows a run while it works: each task's state, and what its step prints.

On a terminal a table is redrawn in place; elsewhere (CI, a file) changes and log lines are printed
once each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kubeloop.local.pipelines.engine.executor_log import ExecutorFilter
from kubeloop.pipelines.runs import Run, RunState, Task

COLORS = {
    RunState.SUCCEEDED: "green",
    RunState.FAILED: "red",
    RunState.RUNNING: "cyan",
    RunState.SKIPPED: "yellow",
    RunState.CANCELED: "yellow",
    RunState.CANCELING: "yellow",
}


_SKIPPED = "its condition does not hold"


class RunView(Protocol):
    """Something that shows the state of a run again and again."""

    def show(self, run: Run) -> None:
        """Show `run` as it is now."""


class StepLogs:
    """The last lines of a run's running steps, read through the Kubernetes API."""

    def __init__(self, kubernetes: Any, *, namespace: str) -> None:  # Any: ApiClient is untyped
        from kubernetes.client import CoreV1Api

        self._core = CoreV1Api(kubernetes)
        self._namespace = namespace
        self._shown: dict[str, int] = {}
        self._quiet: dict[str, ExecutorFilter] = {}

    def read_new(self, run_id: str) -> list[tuple[str, str]]:
        """(task, line) pairs that were printed since the last call."""
        lines: list[tuple[str, str]] = []
        for pod in self._list_pods(run_id):
            name, task = pod.metadata.name, _task_of(pod)
            if pod.status.phase == "Pending":
                continue
            text = self._read(name)
            complete = text[: text.rfind("\n") + 1]
            seen = self._shown.get(name, 0)
            if len(complete) > seen:
                self._shown[name] = len(complete)
                quiet = self._quiet.setdefault(name, ExecutorFilter())
                lines += [(task, line) for line in quiet.filter(complete[seen:].splitlines())]
        return lines

    def _list_pods(self, run_id: str) -> list[Any]:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        selector = f"pipeline/runid={run_id},pipelines.kubeflow.org/v2_component=true"
        try:
            return list(
                self._core.list_namespaced_pod(self._namespace, label_selector=selector).items
            )
        except (ApiException, HTTPError):
            return []

    def _read(self, pod: str) -> str:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            response = self._core.read_namespaced_pod_log(
                pod, self._namespace, container="main", _preload_content=False
            )
            return bytes(response.data).decode(errors="replace")
        except (ApiException, HTTPError):
            return ""  # gone, not started yet, or no answer: shown at the next reading


class LineView:
    """Prints each change of a task and each log line once."""

    def __init__(self, console: Console, logs: StepLogs) -> None:
        self._console = console
        self._logs = logs
        self._states: dict[str, RunState] = {}

    def show(self, run: Run) -> None:
        """Print what is new."""
        for step, line in self._logs.read_new(run.run_id):
            self._console.print(Text(f"  [{step}] {line}"), soft_wrap=True)
        for task in run.tasks:
            # NB: the iterations of a loop have one name.
            key = task.task_id or task.name
            if not task.is_group and self._states.get(key) is not task.state:
                self._states[key] = task.state
                seconds = f" ({_seconds(task)} s)" if task.seconds is not None else ""
                why = f": {_SKIPPED}" if task.state is RunState.SKIPPED else ""
                state = f"{describe_state(task)}{seconds}{why}"
                self._console.print(f"{task.name}: {state}", soft_wrap=True)


class TableView:
    """Redraws a table of tasks with the last line of each running step."""

    def __init__(self, live: Live, logs: StepLogs) -> None:
        self._live = live
        self._logs = logs
        self._last: dict[str, str] = {}

    def show(self, run: Run) -> None:
        """Redraw."""
        self._last.update(self._logs.read_new(run.run_id))
        self._live.update(render_tasks(run, last_lines=self._last))


def render_tasks(run: Run, *, last_lines: dict[str, str] | None = None) -> Table:
    """A table of the run's tasks: name, state, seconds, and a note."""
    table = Table(box=None, pad_edge=False)
    for column in ("TASK", "STATE", "SECONDS", ""):
        table.add_column(
            column, no_wrap=column != "", justify="right" if column == "SECONDS" else "left"
        )
    for task in run.tasks:
        if task.is_group:
            continue
        note = find_cause(task.error) or (last_lines or {}).get(task.name, "")
        if task.state is RunState.SKIPPED:
            note = _SKIPPED
        table.add_row(
            task.name,
            Text(describe_state(task), style=COLORS.get(task.state, "")),
            _seconds(task),
            Text(note, overflow="ellipsis"),
        )
    return table


@contextlib.contextmanager
def following(console: Console, logs: StepLogs) -> Iterator[RunView]:
    """A view that fits where the console prints to."""
    if not console.is_terminal:
        yield LineView(console, logs)
        return
    with Live(console=console, refresh_per_second=8) as live:
        yield TableView(live, logs)


def find_cause(error: str) -> str:
    """The last line of an error, which in Python, and in our steps, says what it was."""
    return error.strip().rsplit("\n", 1)[-1].strip().removeprefix("Error: ")


def describe_state(task: Task) -> str:
    """The state in a word; KFP has none for a task that was never reached."""
    return "not run" if task.state is RunState.UNSPECIFIED else str(task.state)


def _seconds(task: Task) -> str:
    if task.seconds is not None:
        return f"{task.seconds:.1f}"
    if task.start_time is None or task.state.is_final:
        return ""
    return f"{(datetime.now(UTC) - task.start_time).total_seconds():.0f}…"


def _task_of(pod: Any) -> str:  # Any: a V1Pod
    annotations = pod.metadata.annotations or {}
    return str(annotations.get("kubeloop.dev/task", pod.metadata.name))
