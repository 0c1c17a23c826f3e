"""`kubeloop check`: what is wrong with a pipeline and its parameters, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from kubeloop.cli.assignments import ParametersOption, read_parameters
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
    require,
)
from kubeloop.errors import InputError

if TYPE_CHECKING:
    from kubeloop.local.pipelines.spec.faults import Fault
    from kubeloop.pipelines.packages import PipelinePackage

_PACKAGES = ("celpy", "packaging")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(check)


def check(
    file: Annotated[Path, typer.Argument(help="A compiled pipeline (YAML).", show_default=False)],
    *,
    parameter: ParametersOption = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Check it as `kubeloop run --fast` would run it.")
    ] = False,
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    namespace: NamespaceOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """List all that is wrong with a pipeline and its parameters; exits with 1 when anything is.

    Nothing runs, and no control plane is needed. Where one runs, and with --context on the cluster,
    the secrets, config maps and claims that steps name are looked for too; on a cluster also the
    images, and whether its KFP knows the compiler's version.

    Examples:
        kubeloop check pipeline.yaml -p epochs=5

        kubeloop check pipeline.yaml --context prod --output json
    """
    from kubeloop.local.kubelet.images import ImagesConfig
    from kubeloop.local.pipelines.spec.checking import check_run
    from kubeloop.local.pipelines.spec.documents import PipelineDocument
    from kubeloop.pipelines.packages import read_package

    require(_PACKAGES, what="Checking pipelines", extra="local")
    package = read_package(file)
    values = read_parameters(parameter, package, is_here=not context)
    document = PipelineDocument(spec=package.spec, platform=package.platform_spec)
    fast_values, fast_problems = read_fast(package, is_asked=fast)
    report = check_run(
        document,
        {**(fast_values if fast else {}), **values},
        images=None if context else ImagesConfig(),
    )
    problems = [*report.problems, *fast_problems]
    notes = [*report.notes]
    session = Session.open(state, context=context, namespace=namespace)
    if context or session.state.is_running():
        from kubeloop.cli.check_cluster import check_cluster, check_references

        look = check_cluster if context else check_references
        more, told = look(session, package, report)
        problems += more
        notes += told
    if output is Output.JSON:
        print_json(
            {
                "pipeline": report.name,
                "sdk_version": report.sdk_version,
                "images": dict(report.images),
                "problems": [describe(fault) for fault in problems],
                "notes": [describe(fault) for fault in notes],
            }
        )
    else:
        show(file, problems, notes)
    raise typer.Exit(1 if problems else 0)


def read_fast(package: PipelinePackage, *, is_asked: bool) -> tuple[dict[str, Any], list[Fault]]:
    """What a pipeline declares as its fast run, and what is wrong with that."""
    from kubeloop.local.pipelines.spec.faults import Fault
    from kubeloop.pipelines.fast import FAST_PARAMETER, read_fast_values
    from kubeloop.pipelines.parameters import declared_parameters

    if not is_asked and FAST_PARAMETER not in declared_parameters(package.spec):
        return {}, []
    try:
        return dict(read_fast_values(package.spec)), []
    except InputError as error:
        return {}, [Fault(message=str(error), where=f"parameter {FAST_PARAMETER!r}")]


def describe(fault: Fault) -> dict[str, str]:
    """A fault as JSON."""
    return {"where": fault.where, "message": fault.message}


def show(file: Path, problems: list[Fault], notes: list[Fault]) -> None:
    """Print what was found."""
    for fault in problems:
        console.print(Text.assemble(("problem ", "red"), fault.message), soft_wrap=True)
    for fault in notes:
        console.print(Text.assemble(("note ", "cyan"), fault.message), soft_wrap=True)
    count = (
        f"{len(problems)} problem{'s' if len(problems) != 1 else ''}" if problems else "no problem"
    )
    console.print(Text(f"{file}: {count}.", "red" if problems else "green"), soft_wrap=True)
