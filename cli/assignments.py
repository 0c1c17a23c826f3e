"""Parameters as a user gives them on the command line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from kubeloop.errors import InputError
from kubeloop.pipelines.packages import PipelinePackage

ParametersOption = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", help="name=value; repeat for several."),
]


def read_parameters(
    assignments: Iterable[str] | None, package: PipelinePackage, *, is_here: bool
) -> dict[str, Any]:
    """Parse `-p name=value`; for a run on this machine relative paths become absolute.

    Raises:
        InputError: An assignment is malformed.
    """
    from kubeloop.pipelines.parameters import parse_parameters

    values = parse_parameters(assignments or [], spec=package.spec)
    return {name: resolve_path(value) for name, value in values.items()} if is_here else values


def refuse_faults(package: PipelinePackage, parameters: dict[str, Any]) -> None:
    """Refuse what the API would refuse, before anything is started.

    Raises:
        InputError: The pipeline cannot run, or not with these parameters.
    """
    from kubeloop.local.pipelines.spec.documents import PipelineDocument
    from kubeloop.local.pipelines.spec.parameters import find_parameter_faults
    from kubeloop.local.pipelines.spec.parsing import parse_pipeline

    document = PipelineDocument(spec=package.spec, platform=package.platform_spec)
    if faults := find_parameter_faults(parse_pipeline(document), parameters):
        raise InputError("\n".join(fault.message for fault in faults))


def resolve_path(value: Any) -> Any:  # Any: a parameter's JSON value
    """Make a relative path absolute, since steps run in folders of their own.

    `photos/`, `./photos` and `~/photos` are paths; `photos` may be a name and stays.
    """
    if not isinstance(value, str) or "://" in value or "/" not in value:
        return value
    path = Path(value).expanduser()
    return str(path.resolve()) if value.startswith(("~", ".")) or path.exists() else value
