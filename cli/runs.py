"""`kubeloop run` and `kubeloop runs`: compiled pipelines and what became of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
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
    errors,
    print_json,
)
from kubeloop.errors import KubeloopError
from kubeloop.interruption import hold_back_interrupts
from kubeloop.pipelines.runs import Run, RunState

_END_SECONDS = 60.0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(run)
    app.command()(runs)


def run(
    file: Annotated[Path, typer.Argument(help="A compiled pipeline (YAML).", show_default=False)],
    *,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", help="name=value; repeat for several."),
    ] = None,
    name: Annotated[str, typer.Option(help="Display name of the run.")] = "",
    experiment: Annotated[str, typer.Option(help="KFP experiment; made when missing.")] = "Default",
    pipeline_root: Annotated[
        str, typer.Option(help="Where artifacts go; empty: the server's default.")
    ] = "",
    cache: Annotated[
        bool | None, typer.Option("--cache/--no-cache", help="Override the tasks' own setting.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Follow the run to its end.")
    ] = True,
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    namespace: NamespaceOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Run a compiled pipeline and follow it; exits with 1 when it does not succeed.

    Ctrl-C ends the run with what it started; `--no-wait` leaves it running.

    Examples:
        kubeloop run pipelines/compiled/image_classification.yaml -p dataset_source=photos/

        kubeloop run pipeline.yaml -p epochs=5 --context prod
    """
    from kubeloop.pipelines.packages import read_package
    from kubeloop.pipelines.parameters import parse_parameters
    from kubeloop.pipelines.runs import submit

    package = read_package(file)
    values = parse_parameters(parameter or [], spec=package.spec)
    session = Session.open(state, context=context, namespace=namespace)
    if not context:
        values = {key: resolve_path(value) for key, value in values.items()}
    client = session.connect_pipelines()

    def begin() -> str:
        return submit(
            client,
            package,
            parameters=values,
            run_name=name,
            experiment=experiment,
            pipeline_root=pipeline_root,
            enable_caching=cache,
        )

    if not wait:
        run_id = begin()
        print_json({"run_id": run_id}) if output is Output.JSON else console.print(run_id)
        return
    final = execute(session, client, begin, quiet=output is Output.JSON)
    if output is Output.JSON:
        print_json(describe(final))
    raise typer.Exit(report_outcome(final))


def runs(
    run_id: Annotated[
        str, typer.Argument(help="A run, to see its tasks; else the newest runs are listed.")
    ] = "",
    *,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many runs to list.")] = 20,
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """List runs, newest first, with the failed task of each; or show one run's tasks.

    Examples:
        kubeloop runs

        kubeloop runs 0f3c9a54-2b1e-4c57-9a53-0d9e3c2f7b11 --output json
    """
    from kubeloop.pipelines.runs import get_run, list_runs

    client = Session.open(state, context=context).connect_pipelines()
    if run_id:
        found = get_run(client, run_id)
        print_json(describe(found)) if output is Output.JSON else print_run(found)
        return
    listed = [
        get_run(client, found.run_id) if found.state is RunState.FAILED else found
        for found in list_runs(client, page_size=limit)
    ]
    if output is Output.JSON:
        print_json([describe(found) for found in listed])
        return
    table = Table(box=None, pad_edge=False)
    for column in ("RUN ID", "NAME", "STATE", "STARTED", "SECONDS", "FAILED TASK"):
        table.add_column(column, no_wrap=column == "RUN ID")
    for found in listed:
        table.add_row(*_row(found))
    console.print(table if listed else "No runs.")


def resolve_path(value: Any) -> Any:  # Any: a parameter's JSON value
    """Make a relative path absolute, since steps run in folders of their own.

    `photos/`, `./photos` and `~/photos` are paths; `photos` may be a name and stays.
    """
    if not isinstance(value, str) or "://" in value or "/" not in value:
        return value
    path = Path(value).expanduser()
    return str(path.resolve()) if value.startswith(("~", ".")) or path.exists() else value


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


def print_run(run: Run) -> None:
    """Print one run with its tasks."""
    from kubeloop.cli.progress import render_tasks

    console.print(f"{run.name}  {run.run_id}  {run.state}", soft_wrap=True)
    for name, value in run.parameters.items():
        console.print(Text(f"  {name} = {value}"), soft_wrap=True)
    console.print(render_tasks(run))


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


def _row(run: Run) -> tuple[str | Text, ...]:
    from kubeloop.cli.progress import COLORS

    seconds = (
        f"{(run.finished_at - run.created_at).total_seconds():.1f}"
        if run.finished_at and run.created_at
        else ""
    )
    return (
        run.run_id,
        run.name,
        Text(run.state, style=COLORS.get(run.state, "")),
        f"{run.created_at:%Y-%m-%d %H:%M:%S}" if run.created_at else "",
        seconds,
        run.failed_task.name if run.failed_task else "",
    )
