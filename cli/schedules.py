"""`kubeloop schedules`: pipelines that run again and again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from kubeloop.cli.assignments import ParametersOption, read_parameters, refuse_faults
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
from kubeloop.errors import InputError

if TYPE_CHECKING:
    from kubeloop.pipelines.packages import PipelinePackage
    from kubeloop.pipelines.schedules import UploadedPipeline

SchedulesArgument = Annotated[
    list[str],
    typer.Argument(help="Ids, starts of them, or display names.", show_default=False),
]


class SchedulesGroup(TyperGroup):
    """`kubeloop schedules` means `schedules list`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # Any: click's Context
        """Put in the sub-command that was left out."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        cls=SchedulesGroup,
        name="schedules",
        rich_markup_mode="markdown",
        help="Run pipelines again and again: by cron expression or interval.\n\nExamples:\n\n"
        "    kubeloop schedules\n\n"
        '    kubeloop schedules create pipeline.yaml --cron "0 30 6 * * MON-FRI"',
    )
    group.command(name="list")(list_)
    for command in (create, enable, disable, delete):
        group.command()(command)
    app.add_typer(group)


def list_(
    *,
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """List schedules, newest first, with the latest run of each.

    Examples:
        kubeloop schedules

        kubeloop schedules list --output json
    """
    from kubeloop.pipelines.schedules import list_runs_of, list_schedules

    client = Session.open(state, context=context).connect_pipelines()
    table = Table(box=None, pad_edge=False)
    for column in ("SCHEDULE ID", "NAME", "STATUS", "TRIGGER", "RUNS", "LATEST RUN", "ERROR"):
        table.add_column(column, no_wrap=column in ("SCHEDULE ID", "STATUS"))
    described = []
    for found in list_schedules(client):
        runs, count = list_runs_of(client, found.schedule_id)
        latest = {"run_id": runs[0].run_id, "state": runs[0].state} if runs else None
        described.append({**asdict(found), "num_runs": count, "latest_run": latest})
        table.add_row(
            found.schedule_id,
            found.name,
            Text("ENABLED", "green") if found.is_enabled else Text("DISABLED", "yellow"),
            found.trigger,
            str(count),
            f"{runs[0].run_id[:8]} {runs[0].state}" if runs else "",
            Text(found.error, "red"),
        )
    if output is Output.JSON:
        print_json(described)
        return
    console.print(table if described else "No schedules.")


def create(
    file: Annotated[
        Path | None, typer.Argument(help="A compiled pipeline (YAML).", show_default=False)
    ] = None,
    *,
    pipeline: Annotated[
        str,
        typer.Option(
            help="Instead of a file: an uploaded pipeline; each run takes its newest version.",
            metavar="NAME",
            show_default=False,
        ),
    ] = "",
    cron: Annotated[
        str,
        typer.Option(
            help="SECOND MINUTE HOUR DAY MONTH [WEEKDAY], @hourly, @daily, …; times are UTC.",
            show_default=False,
        ),
    ] = "",
    every: Annotated[
        str,
        typer.Option(help="Interval instead of --cron: 90s, 15m, 1h30m, 1d.", show_default=False),
    ] = "",
    parameter: ParametersOption = None,
    name: Annotated[str, typer.Option(help="Display name; empty: the pipeline's.")] = "",
    experiment: Annotated[str, typer.Option(help="KFP experiment; made when missing.")] = "Default",
    start: Annotated[
        str, typer.Option(help="Nothing starts before, as 2026-01-31T06:00 (local time).")
    ] = "",
    end: Annotated[str, typer.Option(help="Nothing starts after.")] = "",
    max_concurrency: Annotated[
        int, typer.Option(min=1, max=10, help="Runs at a time; further ones wait.")
    ] = 1,
    catch_up: Annotated[
        bool, typer.Option("--catch-up/--no-catch-up", help="Make up for each run missed.")
    ] = True,
    enabled: Annotated[
        bool, typer.Option("--enabled/--disabled", help="Start runs from the beginning.")
    ] = True,
    pipeline_root: Annotated[
        str, typer.Option(help="Where artifacts go; empty: the server's default.")
    ] = "",
    cache: Annotated[
        bool | None, typer.Option("--cache/--no-cache", help="Override the tasks' own setting.")
    ] = None,
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Run a pipeline by cron expression or interval, while the control plane is up.

    Text parameters may hold [[ScheduledTime]], [[CurrentTime]], [[Index]] and [[RunUUID]].

    Examples:
        kubeloop schedules create pipeline.yaml --cron "0 30 6 * * MON-FRI" -p epochs=5

        kubeloop schedules create pipeline.yaml --every 1h --no-catch-up

        kubeloop schedules create pipeline.yaml --cron @daily -p "day=[[ScheduledTime.2006-01-02]]"

        kubeloop schedules create --pipeline training --cron @daily
    """
    from kubeloop.pipelines.packages import read_package
    from kubeloop.pipelines.schedules import (
        ScheduleConfig,
        find_pipeline,
        parse_interval,
        schedule,
    )

    if (file is None) == (not pipeline):
        raise InputError("Give a compiled pipeline, or an uploaded one with --pipeline NAME.")
    if pipeline and cache is not None:
        raise InputError("--cache and --no-cache go with a file; an uploaded pipeline says itself.")
    config = ScheduleConfig(
        cron=cron,
        every_seconds=parse_interval(every) if every else 0,
        start=_read_time(start, "--start"),
        end=_read_time(end, "--end"),
        max_concurrency=max_concurrency,
        catch_up=catch_up,
        enabled=enabled,
    )
    session = Session.open(state, context=context)
    source: PipelinePackage | UploadedPipeline
    if file is None:
        source = find_pipeline(session.connect_pipelines(), pipeline)
        package = source.package
    else:
        source = package = read_package(file)
    values = read_parameters(parameter, package, is_here=not context)
    refuse_faults(package, values)
    identifier = schedule(
        session.connect_pipelines(),
        source,
        config=config,
        parameters=values,
        name=name,
        experiment=experiment,
        pipeline_root=pipeline_root,
        enable_caching=cache,
    )
    if output is Output.JSON:
        print_json({"schedule_id": identifier})
    else:
        console.print(identifier, soft_wrap=True)


def enable(
    schedules: SchedulesArgument,
    *,
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Let schedules start runs again; those that catch up make up for what they missed.

    Example:
        kubeloop schedules enable nightly
    """
    from kubeloop.pipelines.schedules import enable as do

    _for_each(schedules, do, "enabled", session=Session.open(state, context=context), output=output)


def disable(
    schedules: SchedulesArgument,
    *,
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Let schedules start no more runs; those that are active go on.

    Example:
        kubeloop schedules disable nightly
    """
    from kubeloop.pipelines.schedules import disable as do

    session = Session.open(state, context=context)
    _for_each(schedules, do, "disabled", session=session, output=output)


def delete(
    schedules: SchedulesArgument,
    *,
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Delete schedules; the runs that they started stay.

    Example:
        kubeloop schedules delete nightly 4be1
    """
    from kubeloop.pipelines.schedules import delete as do

    _for_each(schedules, do, "deleted", session=Session.open(state, context=context), output=output)


def _for_each(
    names: list[str],
    do: Callable[[Any, str], None],
    done: str,
    *,
    session: Session,
    output: Output,
) -> None:
    """Do something to each schedule; all names are looked up before the first is touched."""
    from kubeloop.pipelines.schedules import find_schedule

    client = session.connect_pipelines()
    found = [find_schedule(client, name) for name in names]
    for schedule in found:
        do(client, schedule.schedule_id)
        if output is Output.TEXT:
            console.print(f"Schedule {schedule.name} ({schedule.schedule_id}) {done}.")
    if output is Output.JSON:
        print_json([{"schedule_id": item.schedule_id, "result": done} for item in found])


def _read_time(text: str, option: str) -> datetime | None:
    """A time as a user writes it; without a zone it is local."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        msg = f"{option} takes a time such as 2026-01-31 or 2026-01-31T06:00, not {text!r}."
        raise InputError(msg) from None
