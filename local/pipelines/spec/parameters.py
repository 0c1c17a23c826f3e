"""Whether the parameters of a run are those that its pipeline declares."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from kubeloop.local.pipelines.spec import ir
from kubeloop.local.pipelines.spec.faults import Fault
from kubeloop.local.pipelines.spec.values import (
    JsonValue,
    canonical,
    describe_type,
    is_of_type,
    shorten,
)


def find_parameter_faults(pipeline: ir.Pipeline, given: Mapping[str, JsonValue]) -> list[Fault]:
    """What is wrong with a run's parameters: unknown names, wrong types, missing values."""
    faults: list[Fault] = []
    declared = pipeline.root.input_parameters

    def refuse(name: str, what: str) -> None:
        message = f"Parameter {name!r} of pipeline {pipeline.name!r}{what}."
        faults.append(Fault(message=message, where=f"parameter {name!r}"))

    for name, value in given.items():
        if name not in declared:
            close = difflib.get_close_matches(name, declared, n=1)
            hint = f"do you mean {close[0]!r}? " if close else ""
            refuse(name, f" does not exist; {hint}it accepts {describe_parameters(pipeline)}")
            continue
        spec, value = declared[name], canonical(value)
        if value is not None and not is_of_type(value, spec.type):
            found = f"{shorten(value)} ({type(value).__name__})"
            refuse(name, f" takes {describe_type(spec.type)}, not {found}")
    for name, spec in declared.items():
        if spec.is_required and given.get(name) is None:
            refuse(name, f", {describe_type(spec.type)}, is required and missing")
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
