"""From a request to run a pipeline to the record of a run, refusing what cannot start.

Parameters are checked here and not in the middle of the run: a wrong name or type is the most
common mistake, and costs least when it is answered at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kubeloop.local.pipelines import ir
from kubeloop.local.pipelines.executor import is_local, safe_name
from kubeloop.local.pipelines.placeholders import local_path
from kubeloop.local.pipelines.rpc_errors import invalid
from kubeloop.local.pipelines.values import (
    JsonValue,
    canonical,
    describe_type,
    is_of_type,
    shorten,
)


def check_parameters(pipeline: ir.Pipeline, given: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Check a run's parameters against what the pipeline declares.

    Raises:
        RpcError: A parameter is unknown, of the wrong type, or missing.
    """
    declared = pipeline.root.input_parameters
    checked: dict[str, JsonValue] = {}
    for name, value in given.items():
        if name not in declared:
            raise invalid(
                f"Pipeline {pipeline.name!r} has no parameter {name!r}; it accepts "
                f"{describe_parameters(pipeline)}."
            )
        spec = declared[name]
        value = canonical(value)
        if value is not None and not is_of_type(value, spec.type):
            raise invalid(
                f"Parameter {name!r} of pipeline {pipeline.name!r} takes "
                f"{describe_type(spec.type)}, not {shorten(value)} ({type(value).__name__}); the "
                f"pipeline accepts {describe_parameters(pipeline)}."
            )
        checked[name] = value
    for name, spec in declared.items():
        if spec.is_required and checked.get(name) is None:
            raise invalid(
                f"Parameter {name!r} of pipeline {pipeline.name!r}, {describe_type(spec.type)}, is "
                f"required and missing; the pipeline accepts {describe_parameters(pipeline)}."
            )
    return checked


def describe_parameters(pipeline: ir.Pipeline) -> str:
    """The parameters a pipeline accepts, for messages."""
    described = []
    for name, spec in pipeline.root.input_parameters.items():
        note = "required" if spec.is_required else "optional"
        if spec.has_default:
            note = f"default {shorten(spec.default, limit=40)}"
        described.append(f"{name}: {spec.type.value}, {note}")
    return "; ".join(described) or "no parameters"


def choose_root(pipeline: ir.Pipeline, *, given: str, default: Path, run_id: str) -> str:
    """The folder for a run's outputs: `{root}/{pipeline name}/{run id}`.

    Raises:
        RpcError: The client asks for a root that is no path on this machine.
    """
    root = str(default)
    if given:
        if not is_local(given):
            raise invalid(
                f"pipeline_root {given!r} is not on this machine; give an absolute path, or none "
                f"for {root!r}."
            )
        root = local_path(given)
    elif pipeline.default_root and is_local(pipeline.default_root):
        root = local_path(pipeline.default_root)
    return f"{root.rstrip('/')}/{safe_name(pipeline.name)}/{run_id}"
