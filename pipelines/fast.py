"""Fast runs: the small values that a pipeline declares for itself.

A pipeline declares them as a parameter named `fast`, an object whose default holds other parameters
by name:

    def train(source: str, epochs: int = 15, fast: dict = {"epochs": 1}) -> None: ...

`kubeloop run --fast` passes these values in place of the defaults. No task reads the parameter, so
the compiled file shows what a fast run is, and any client of any cluster can pass the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubeloop.errors import InputError
from kubeloop.pipelines.parameters import Spec, declared_parameters

FAST_PARAMETER = "fast"


def read_fast_values(spec: Spec) -> Mapping[str, Any]:
    """The parameters of a fast run, as the pipeline declares them.

    Raises:
        InputError: It declares none, or parameters that it does not have.
    """
    declared = declared_parameters(spec)
    values = declared.get(FAST_PARAMETER, {}).get("defaultValue")
    name = spec.get("pipelineInfo", {}).get("name", "")
    if not isinstance(values, dict) or not values:
        msg = (
            f"Pipeline {name!r} declares no fast run: give it a parameter `fast`, a dict whose"
            ' default holds other parameters, such as fast: dict = {"epochs": 1}.'
        )
        raise InputError(msg)
    unknown = [key for key in values if key not in declared or key == FAST_PARAMETER]
    if unknown:
        msg = (
            f"Parameter `fast` of pipeline {name!r} holds {', '.join(map(repr, unknown))}, which"
            f" the pipeline does not have; it has {', '.join(sorted(declared))}."
        )
        raise InputError(msg)
    return values
