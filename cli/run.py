"""`kubeloop run`: compiled pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kubeloop.cli.assignments import ParametersOption, read_parameters, refuse_faults
from kubeloop.cli.following import WaitOption, execute, finish, print_started
from kubeloop.cli.options import (
    DEFAULT_STATE,
    ContextOption,
    NamespaceOption,
    Output,
    OutputOption,
    Session,
    StateOption,
    console,
)
from kubeloop.cli.run_control import start_clone
from kubeloop.errors import InputError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(run)


def run(
    file: Annotated[
        Path | None, typer.Argument(help="A compiled pipeline (YAML).", show_default=False)
    ] = None,
    *,
    parameter: ParametersOption = None,
    name: Annotated[str, typer.Option(help="Display name of the run.")] = "",
    experiment: Annotated[str, typer.Option(help="KFP experiment; made when missing.")] = "Default",
    pipeline_root: Annotated[
        str, typer.Option(help="Where artifacts go; empty: the server's default.")
    ] = "",
    cache: Annotated[
        bool | None, typer.Option("--cache/--no-cache", help="Override the tasks' own setting.")
    ] = None,
    fast: Annotated[
        bool,
        typer.Option("--fast", help="Use the small values that the pipeline declares as `fast`."),
    ] = False,
    clone: Annotated[
        str, typer.Option(help="Run what this run ran, instead of a file.", show_default=False)
    ] = "",
    debug: Annotated[
        str,
        typer.Option(
            metavar="TASK",
            help="Run this task's function in this process, after what comes before it.",
            show_default=False,
        ),
    ] = "",
    from_run: Annotated[
        str,
        typer.Option(
            help="With --debug: take the task's inputs from this run.", show_default=False
        ),
    ] = "",
    iteration: Annotated[
        str,
        typer.Option(
            help="With --debug: the iteration of the loop that the task is in, counted from 0;"
            " 2.0 in a loop within a loop; empty: the first.",
            metavar="NUMBER",
            show_default=False,
        ),
    ] = "",
    source: Annotated[
        Path | None,
        typer.Option(
            help="With --debug: the file that defines the function; else looked for.",
            show_default=False,
        ),
    ] = None,
    stop: Annotated[
        bool, typer.Option("--stop", help="With --debug: break at the function's first line.")
    ] = False,
    wait: WaitOption = True,
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

        kubeloop run pipeline.yaml --fast

        kubeloop run pipeline.yaml --debug train-model --stop

        kubeloop run pipeline.yaml --debug train-model --iteration 3
    """
    from kubeloop.pipelines.packages import read_package
    from kubeloop.pipelines.runs import submit

    session = Session.open(state, context=context, namespace=namespace)
    if (file is None) == (not clone):
        raise InputError("Give a compiled pipeline, or the run to repeat with --clone.")
    if file is None:
        code = start_clone(session, clone, parameter or [], name=name, wait=wait, output=output)
        raise typer.Exit(code)
    if (from_run or iteration or source or stop) and not debug:
        raise InputError("--from-run, --iteration, --source and --stop go with --debug TASK.")
    package = read_package(file)
    values = read_parameters(parameter, package, is_here=not context)
    if fast:
        values = apply_fast(package, values, quiet=output is Output.JSON)
    if debug:
        from kubeloop.cli.debugging import DebugRequest, debug_task

        request = DebugRequest(
            package=package,
            task=debug,
            parameters=values,
            from_run=from_run,
            iteration=iteration,
            source=source,
            stops_at_first_line=stop,
            enable_caching=cache,
        )
        raise typer.Exit(debug_task(session, request, output=output))
    refuse_faults(package, values)
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
        print_started(begin(), output=output)
        return
    final = execute(session, client, begin, quiet=output is Output.JSON)
    raise typer.Exit(finish(final, output=output))


def apply_fast(package: Any, values: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """The parameters of a fast run; what the user gave wins. Any: a PipelinePackage.

    Raises:
        InputError: The pipeline declares no fast run.
    """
    from kubeloop.pipelines.fast import read_fast_values

    declared = read_fast_values(package.spec)
    chosen = {name: value for name, value in declared.items() if name not in values}
    if not quiet:
        shown = ", ".join(f"{name}={value}" for name, value in chosen.items())
        console.print(f"Fast: {shown}", soft_wrap=True)
    return {**chosen, **values}
