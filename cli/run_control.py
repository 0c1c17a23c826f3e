"""`kubeloop runs terminate`, `retry`, `clone`, `archive`, `unarchive` and `delete`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from kubeloop.cli.assignments import ParametersOption, resolve_path
from kubeloop.cli.following import WaitOption, execute, finish, follow, print_started
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
from kubeloop.cli.run_names import RunArgument, RunsArgument


def register(group: typer.Typer) -> None:
    """Add the commands."""
    for command in (terminate, retry, clone, archive, unarchive, delete):
        group.command()(command)


def terminate(
    runs: RunsArgument,
    *,
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """End runs; their steps clean up what they started.

    Example:
        kubeloop runs terminate 0f3c9a54
    """
    from kubeloop.pipelines.runs import terminate as do

    _for_each(runs, do, "terminated", session=Session.open(state, context=context), output=output)


def archive(
    runs: RunsArgument,
    *,
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Take runs out of the lists; their record stays.

    Example:
        kubeloop runs archive 0f3c9a54 71d0
    """
    from kubeloop.pipelines.run_control import archive as do

    _for_each(runs, do, "archived", session=Session.open(state, context=context), output=output)


def unarchive(
    runs: RunsArgument,
    *,
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Bring archived runs back.

    Example:
        kubeloop runs unarchive 0f3c9a54
    """
    from kubeloop.pipelines.run_control import unarchive as do

    _for_each(runs, do, "unarchived", session=Session.open(state, context=context), output=output)


def delete(
    runs: RunsArgument,
    *,
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Delete runs and their record; artifacts stay, since other runs may use them.

    Example:
        kubeloop runs delete 0f3c9a54 71d0
    """
    from kubeloop.pipelines.run_control import delete as do

    _for_each(runs, do, "deleted", session=Session.open(state, context=context), output=output)


def _for_each(
    names: list[str],
    do: Callable[[Any, str], None],
    done: str,
    *,
    session: Session,
    output: Output,
) -> None:
    """Do something to each run; all names are looked up before the first is touched."""
    from kubeloop.pipelines.run_control import find_run

    client = session.connect_pipelines()
    found = [find_run(client, name) for name in names]
    for run_id in found:
        do(client, run_id)
        if output is Output.TEXT:
            console.print(f"Run {run_id} {done}.", soft_wrap=True)
    if output is Output.JSON:
        print_json([{"run_id": run_id, "result": done} for run_id in found])


def retry(
    run: RunArgument,
    *,
    wait: WaitOption = True,
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    namespace: NamespaceOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Run the tasks of a failed run again that did not succeed; exits with 1 when they fail again.

    Example:
        kubeloop runs retry 0f3c9a54
    """
    from kubeloop.pipelines.run_control import find_run
    from kubeloop.pipelines.run_control import retry as do

    session = Session.open(state, context=context, namespace=namespace)
    client = session.connect_pipelines()
    run_id = find_run(client, run)
    do(client, run_id)
    if not wait:
        print_started(run_id, output=output)
        return
    final = follow(session, client, run_id, quiet=output is Output.JSON)
    raise typer.Exit(finish(final, output=output))


def clone(
    run: RunArgument,
    *,
    parameter: ParametersOption = None,
    name: Annotated[str, typer.Option(help="Display name of the new run.")] = "",
    wait: WaitOption = True,
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    namespace: NamespaceOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Run the same pipeline with the same parameters once more, those given with -p aside.

    Examples:
        kubeloop runs clone 0f3c9a54

        kubeloop runs clone 0f3c9a54 -p epochs=20
    """
    session = Session.open(state, context=context, namespace=namespace)
    raise typer.Exit(
        start_clone(session, run, parameter or [], name=name, wait=wait, output=output)
    )


def start_clone(
    session: Session,
    run: str,
    assignments: list[str],
    *,
    name: str,
    wait: bool,
    output: Output,
) -> int:
    """Clone a run; returns the exit code."""
    from kubeloop.pipelines.parameters import parse_parameters
    from kubeloop.pipelines.run_control import clone as do
    from kubeloop.pipelines.run_control import find_run

    def choose(pipeline: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        values = parse_parameters(assignments, spec=pipeline.get("pipeline_spec", pipeline))
        if not session.context:
            values = {key: resolve_path(value) for key, value in values.items()}
        return {**given, **values}

    client = session.connect_pipelines()
    original = find_run(client, run)

    def begin() -> str:
        return do(client, original, choose_parameters=choose, run_name=name)

    if not wait:
        print_started(begin(), output=output)
        return 0
    return finish(execute(session, client, begin, quiet=output is Output.JSON), output=output)
