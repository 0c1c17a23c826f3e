"""`kubeloop runs`: what became of pipelines. Lists, or shows one run; the rest is sub-commands."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from kubeloop.cli import run_compare, run_control, run_logs, run_why
from kubeloop.cli.following import describe
from kubeloop.cli.groups import ListOrShowGroup
from kubeloop.cli.options import (
    DEFAULT_STATE,
    ContextOption,
    Output,
    OutputOption,
    Session,
    StateOption,
    console,
    print_json,
)
from kubeloop.cli.run_names import RunArgument
from kubeloop.pipelines.runs import Run, RunState


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        cls=ListOrShowGroup,
        name="runs",
        rich_markup_mode="markdown",
        help="List runs, or show, explain, compare and steer them.\n\n`kubeloop runs` lists, and"
        " `kubeloop runs RUN` shows one. A run is named by its id, the start of it, or its display"
        " name.\n\nExamples:\n\n    kubeloop runs\n\n    kubeloop runs 0f3c9a54\n\n"
        "    kubeloop runs why 0f3c train-model",
    )
    group.command(name="list")(list_)
    group.command()(show)
    for module in (run_why, run_logs, run_compare, run_control):
        module.register(group)
    app.add_typer(group)


def list_(
    *,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many runs to list.")] = 20,
    archived: Annotated[bool, typer.Option("--archived", help="Archived runs as well.")] = False,
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """List runs, newest first, with the failed task of each.

    Examples:
        kubeloop runs

        kubeloop runs list --limit 5 --output json
    """
    from kubeloop.pipelines.runs import get_run, list_runs

    client = Session.open(state, context=context).connect_pipelines()
    listed = [
        get_run(client, found.run_id) if found.state is RunState.FAILED else found
        for found in list_runs(client, page_size=limit)
        if archived or not found.is_archived
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


def show(
    run: RunArgument,
    *,
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Show a run's parameters and tasks.

    Examples:
        kubeloop runs show 0f3c9a54

        kubeloop runs show "nightly training" --output json
    """
    from kubeloop.pipelines.run_control import find_run
    from kubeloop.pipelines.runs import get_run

    client = Session.open(state, context=context).connect_pipelines()
    found = get_run(client, find_run(client, run))
    print_json(describe(found)) if output is Output.JSON else print_run(found)


def print_run(run: Run) -> None:
    """Print one run with its tasks."""
    from kubeloop.cli.progress import render_tasks

    console.print(Text(f"{run.name}  {run.run_id}  {run.state}"), soft_wrap=True)
    for name, value in run.parameters.items():
        console.print(Text(f"  {name} = {value}"), soft_wrap=True)
    console.print(render_tasks(run))


def _row(run: Run) -> tuple[str | Text, ...]:
    from kubeloop.cli.progress import COLORS

    return (
        run.run_id,
        run.name,
        Text(run.state, style=COLORS.get(run.state, "")),
        f"{run.created_at:%Y-%m-%d %H:%M:%S}" if run.created_at else "",
        "" if run.seconds is None else f"{run.seconds:.1f}",
        run.failed_task.name if run.failed_task else "",
    )
