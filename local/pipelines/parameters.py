"""Whether the parameters of a run are those that its pipeline declares."""

from __future__ import annotations

from collections.abc import Mapping

from kubeloop.local.pipelines import ir
from kubeloop.local.pipelines.faults import Fault
from kubeloop.local.pipelines.values import (
    JsonValue,
    canonical,
    describe_type,
    is_of_type,
    shorten,
)


def find_parameter_faults(pipeline: ir.Pipeline, given: Mapping[str, JsonValue]) -> list[Fault]:
    """What is wrong with a run's parameters: unknown names, wrong types, missing values."""
    faults = []
    declared = pipeline.root.input_parameters
    accepted = f"the pipeline accepts {describe_parameters(pipeline)}"
    for name, value in given.items():
        if name not in declared:
            message = (
                f"Pipeline {pipeline.name!r} has no parameter {name!r}; it accepts "
                f"{describe_parameters(pipeline)}."
            )
            faults.append(Fault(message=message, where=f"parameter {name!r}"))
            continue
        spec = declared[name]
        value = canonical(value)
        if value is not None and not is_of_type(value, spec.type):
            message = (
                f"Parameter {name!r} of pipeline {pipeline.name!r} takes "
                f"{describe_type(spec.type)}, not {shorten(value)} ({type(value).__name__}); "
                f"{accepted}."
            )
            faults.append(Fault(message=message, where=f"parameter {name!r}"))
    for name, spec in declared.items():
        if spec.is_required and given.get(name) is None:
            message = (
                f"Parameter {name!r} of pipeline {pipeline.name!r}, {describe_type(spec.type)}, is "
                f"required and missing; {accepted}."
            )
            faults.append(Fault(message=message, where=f"parameter {name!r}"))
    return faults


def describe_parameters(pipeline: ir.Pipeline) -> str:
    """The parameters a pipeline accepts, for messages."""
    described = []
    for name, spec in pipeline.root.input_parameters.items():
        note = "required" if spec.is_required else "optional"
        if spec.has_default:
            note = f"default {shorten(spec.default, limit=40)}"
        described.append(f"{name}: {spec.type.value}, {note}")
    return "; ".join(described) or "no parameters"
