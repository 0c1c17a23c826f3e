"""Runs that a command starts or joins: shown until they end, ended by Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.text import Text

from kubeloop.cli.options import Output, Session, console, errors, print_json
from kubeloop.errors import KubeloopError
from kubeloop.interruption import hold_back_interrupts
from kubeloop.pipelines.runs import Run, RunState

_END_SECONDS = 60.0

WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the run to its end.")]


def execute(session: Session, client: Any, begin: Callable[[], str], *, quiet: bool = False) -> Run:
    """Begin a run and show it until it ends; Ctrl-C ends it and waits for its clean-up."""
    run_id = ""
    try:
        with hold_back_interrupts():
            run_id = begin()
        if not quiet:
            console.print(f"Run {run_id}", soft_wrap=True)
        return follow(session, client, run_id, quiet=quiet)
    except KeyboardInterrupt:
        if run_id:
            end(client, run_id)
        raise


def follow(session: Session, client: Any, run_id: str, *, quiet: bool = False) -> Run:
    """Show a run until it ends."""
    from kubeloop.cli.progress import StepLogs, following
    from kubeloop.pipelines.runs import wait

    if quiet:
        return wait(client, run_id)
    logs = StepLogs(session.kubernetes, namespace=session.namespace)
    with following(console, logs) as view:
        return wait(client, run_id, on_change=view.show)


def end(client: Any, run_id: str) -> None:
    """Terminate a run, and wait until what it started is gone."""
    from kubeloop.pipelines.runs import terminate, wait

    errors.print(f"Ending run {run_id}; Ctrl-C again does not wait for it…", soft_wrap=True)
    try:
        terminate(client, run_id)
        wait(client, run_id, timeout_seconds=_END_SECONDS)
    except KubeloopError as error:
        errors.print(f"[red]Error:[/red] {error}", soft_wrap=True)
        return
    errors.print(f"Run {run_id} was ended.", soft_wrap=True)


def report_outcome(run: Run) -> int:
    """Say on standard error why a run failed, the cause last; returns the exit code."""
    from kubeloop.cli.progress import find_cause

    if run.state is RunState.SUCCEEDED:
        return 0
    task = run.failed_task
    where = f" in task {task.name}" if task else ""
    why = (task.error if task else "") or run.error or "no message"
    if console.is_terminal:  # elsewhere every line was printed when it came
        errors.print(Text(why, "dim"), soft_wrap=True)
    errors.print(f"[red]Error:[/red] Run {run.run_id} ended {run.state}{where}:", soft_wrap=True)
    errors.print(Text(f"  {find_cause(why)}"), soft_wrap=True)
    errors.print(f"See `kubeloop runs {run.run_id}`.", soft_wrap=True)
    return 1


def print_started(run_id: str, *, output: Output) -> None:
    """Say the id of a run that goes on without the command."""
    print_json({"run_id": run_id}) if output is Output.JSON else console.print(run_id)


def finish(run: Run, *, output: Output) -> int:
    """Say how a followed run ended; returns the exit code."""
    if output is Output.JSON:
        print_json(describe(run))
    return report_outcome(run)


def describe(run: Run) -> dict[str, Any]:
    """A run as JSON."""
    return {
        "run_id": run.run_id,
        "name": run.name,
        "state": run.state,
        "created_at": run.created_at,
        "finished_at": run.finished_at,
        "error": run.error,
        "parameters": dict(run.parameters),
        "failed_task": run.failed_task.name if run.failed_task else None,
        "tasks": [
            {
                "name": task.name,
                "state": task.state,
                "seconds": task.seconds,
                "error": task.error,
            }
            for task in run.tasks
        ],
    }
