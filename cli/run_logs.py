"""`kubeloop runs logs`: what the steps of a run printed."""

from __future__ import annotations

import codecs
import time
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import typer
from rich.text import Text

from kubeloop.cli.options import (
    DEFAULT_STATE,
    ContextOption,
    NamespaceOption,
    Output,
    OutputOption,
    Session,
    StateOption,
    console,
    print_json,
)
from kubeloop.cli.run_names import RunArgument, complete_task
from kubeloop.errors import InputError, PermanentError
from kubeloop.local.pipelines.engine.executor_log import ExecutorFilter
from kubeloop.pipelines.runs import Run, Task

_CONTAINER = "main"
_POLL_SECONDS = 0.2


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command()(logs)


def logs(
    run: RunArgument,
    task: Annotated[str, typer.Argument(help="Task; else all.", autocompletion=complete_task)] = "",
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on printing until the task ends.")
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Also what KFP's executor says around the function.")
    ] = False,
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    namespace: NamespaceOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Print the logs of a task, all its tries one after the other; or of all tasks.

    Examples:
        kubeloop runs logs 0f3c9a54 train-model

        kubeloop runs logs 0f3c9a54 train-model --follow
    """
    from kubeloop.pipelines.run_control import find_run
    from kubeloop.pipelines.runs import get_run

    session = Session.open(state, context=context, namespace=namespace)
    client = session.connect_pipelines()
    run_id = find_run(client, run)
    found = get_run(client, run_id)
    if task and follow:
        follow_task(session, client, run_id, find_tasks(found, task)[0].name, raw=raw)
        return
    tasks = find_tasks(found, task) if task else [t for t in found.tasks if not t.is_group]
    printed = {}
    for item in tasks:
        for pod in list_pods(found, item):
            if (text := read_log(session, pod)) is not None:
                printed[pod] = {"task": item.name, "pod": pod, "log": text}
    if task and not printed:
        raise PermanentError(explain_missing(found, tasks[0]))
    if output is Output.JSON:
        print_json(list(printed.values()))
        return
    for entry in printed.values():
        for line in select_lines(entry["log"].splitlines(), raw=raw):
            console.print(Text(line if task else f"[{entry['task']}] {line}"), soft_wrap=True)


def find_tasks(run: Run, name: str) -> list[Task]:
    """The tasks of that name; in a loop there are several.

    A step comes before a group that is called the same, as a pipeline of one step may be.

    Raises:
        InputError: There is none.
    """
    if found := [task for task in run.tasks if name in (task.name, task.task_id)]:
        return [task for task in found if not task.is_group] or found
    names = ", ".join(dict.fromkeys(task.name for task in run.tasks if not task.is_group))
    raise InputError(f"Run {run.run_id} has no task {name!r}; it has {names or 'none yet'}.")


def list_pods(run: Run, task: Task) -> list[str]:
    """Pods of a task, and of what it stands for: on a cluster its executor is a task of its own."""
    by_id = {item.task_id: item for item in run.tasks}
    pods: dict[str, None] = {}

    def collect(item: Task) -> None:
        for name in (*item.failed_pods, item.pod_name, *item.child_pods):
            if name and not name.endswith("-driver") and "-driver-" not in name:
                pods[name] = None
        for child in item.child_ids:
            if child in by_id:
                collect(by_id[child])

    collect(task)
    return list(pods)


def explain_missing(run: Run, task: Task) -> str:
    """Why there is nothing to print."""
    if not list_pods(run, task):
        return (
            f"Task {task.name} of run {run.run_id} has no pod: its state is {task.state}, and a"
            " cached or skipped task runs nothing (see `kubeloop runs why`)."
        )
    return (
        f"The pods of task {task.name} of run {run.run_id} are gone, and their logs with them;"
        " look for an artifact named executor-logs."
    )


def read_log(session: Session, pod: str) -> str | None:
    """What a pod printed; None when it is gone."""
    from kubernetes.client import ApiException, CoreV1Api

    try:
        response = CoreV1Api(session.kubernetes).read_namespaced_pod_log(
            pod, session.namespace, container=_CONTAINER, _preload_content=False
        )
    except ApiException:
        return None
    return bytes(response.data).decode(errors="replace")


def select_lines(lines: Iterable[str], *, raw: bool) -> Iterator[str]:
    """What the function printed; with `raw` everything."""
    quiet = ExecutorFilter()
    for line in lines:
        yield from [line] if raw else quiet.filter([line])


def follow_task(session: Session, client: Any, run_id: str, name: str, *, raw: bool) -> None:
    """Print a task's log as it grows, over its tries, until the task ends."""
    from kubeloop.pipelines.runs import get_run

    done: set[str] = set()
    while True:
        run = get_run(client, run_id)
        tasks = find_tasks(run, name)
        pods = [pod for task in tasks for pod in list_pods(run, task) if pod not in done]
        for pod in pods:
            if print_stream(session, pod, raw=raw):
                done.add(pod)
        if run.state.is_final or (tasks and all(task.state.is_final for task in tasks)):
            return
        time.sleep(_POLL_SECONDS)


def print_stream(session: Session, pod: str, *, raw: bool) -> bool:
    """Print a pod's log until the pod ends; False when it has not started."""
    from kubernetes.client import ApiException, CoreV1Api

    try:
        response = CoreV1Api(session.kubernetes).read_namespaced_pod_log(
            pod, session.namespace, container=_CONTAINER, follow=True, _preload_content=False
        )
    except ApiException:
        return False
    with response:
        for line in select_lines(read_lines(response.stream(amt=None)), raw=raw):
            console.print(Text(line), soft_wrap=True)
    return True


def read_lines(chunks: Iterator[bytes]) -> Iterator[str]:
    """Whole lines of a stream of bytes, each as soon as it is there."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    rest = ""
    for chunk in chunks:
        *lines, rest = (rest + decoder.decode(chunk)).split("\n")
        yield from lines
    if rest:
        yield rest
