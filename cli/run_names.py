"""How a user names a run: its id, the start of it, or its display name; completed by the shell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kubeloop.cli.options import Session
from kubeloop.errors import KubeloopError

_SHORT_ID_LENGTH = 8


def complete_run(ctx: Any, incomplete: str) -> list[tuple[str, str]]:  # Any: click's Context
    """Short ids of the newest runs, with name and state beside them."""
    from kubeloop.pipelines.runs import list_runs

    try:
        session = Session.open(
            Path(ctx.params.get("state") or "~/.kubeloop"), context=ctx.params.get("context") or ""
        )
        runs = list_runs(session.connect_pipelines(), page_size=50)
    except KubeloopError:
        return []  # a shell's completion has nowhere to say why
    return [
        (run.run_id[:_SHORT_ID_LENGTH], f"{run.name} {run.state}")
        for run in runs
        if run.run_id.startswith(incomplete)
    ]


def complete_task(ctx: Any, incomplete: str) -> list[str]:  # Any: click's Context
    """Tasks of the run named before."""
    from kubeloop.pipelines.run_control import find_run
    from kubeloop.pipelines.runs import get_run

    try:
        session = Session.open(
            Path(ctx.params.get("state") or "~/.kubeloop"), context=ctx.params.get("context") or ""
        )
        client = session.connect_pipelines()
        tasks = get_run(client, find_run(client, ctx.params["run"])).tasks
    except (KubeloopError, KeyError):
        return []
    return [task.name for task in tasks if not task.is_group and task.name.startswith(incomplete)]


RunArgument = Annotated[
    str,
    typer.Argument(
        help="Run id, the start of one, or a display name.",
        show_default=False,
        autocompletion=complete_run,
    ),
]
RunsArgument = Annotated[
    list[str],
    typer.Argument(
        help="Run ids, starts of them, or display names.",
        show_default=False,
        autocompletion=complete_run,
    ),
]
TaskArgument = Annotated[
    str, typer.Argument(help="Task of the run.", show_default=False, autocompletion=complete_task)
]
