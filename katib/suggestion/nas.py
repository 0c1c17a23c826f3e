"""What architecture searches have in common: they read and check `nasConfig`.

Source: Katib's pkg/suggestion/v1beta1/nas/common/validation.py and nas/enas/Operation.py.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass

from kubeloop.katib.suggestion.messages import (
    ExperimentSpec,
    NasConfig,
    Operation,
    ParameterSpec,
    ParameterType,
)
from kubeloop.katib.suggestion.service import InvalidSettingsError
from kubeloop.katib.suggestion.space import parse_dimension

_PATH = "nasConfig"
_CHOICES = (ParameterType.CATEGORICAL, ParameterType.DISCRETE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One thing that a layer of the network may be."""

    number: int
    operation: str
    parameters: dict[str, str | int | float]

    def to_json(self) -> dict[str, object]:
        """Katib's description of it."""
        return {"opt_id": self.number, "opt_type": self.operation, "opt_params": self.parameters}


def read_nas_config(spec: ExperimentSpec) -> NasConfig:
    """The search space.

    Raises:
        InvalidSettingsError: It is missing, or cannot be searched; the message names the field.
    """
    config = spec.nas_config
    if config is None:
        raise InvalidSettingsError(f"{_PATH} is missing; an architecture search needs it")
    if config.graph_config.num_layers < 1:
        raise InvalidSettingsError(
            f"{_PATH}.graphConfig.numLayers must be at least 1, not "
            f"{config.graph_config.num_layers}"
        )
    if not config.operations:
        raise InvalidSettingsError(f"{_PATH}.operations must have at least one operation")
    for index, operation in enumerate(config.operations):
        _check_operation(f"{_PATH}.operations[{index}]", operation)
    return config


def list_layers(config: NasConfig) -> list[Layer]:
    """Every operation with every combination of its parameters, numbered in order."""
    kinds = [
        (operation.operation_type, dict(zip(names, values, strict=True)))
        for operation in config.operations
        for names in [[parameter.name for parameter in operation.parameters]]
        for values in itertools.product(*map(_list_values, operation.parameters))
    ]
    return [
        Layer(number=number, operation=kind, parameters=parameters)
        for number, (kind, parameters) in enumerate(kinds)
    ]


def render_json(value: object) -> str:
    """JSON in single quotes, as Katib's trial programs take it within double ones."""
    return json.dumps(value).replace('"', "'")


def _check_operation(path: str, operation: Operation) -> None:
    if not operation.operation_type:
        raise InvalidSettingsError(f"{path}.operationType is missing")
    if not operation.parameters:
        raise InvalidSettingsError(f"{path}.parameters is missing")
    for index, parameter in enumerate(operation.parameters):
        where = f"{path}.parameters[{index}]"
        if not parameter.name:
            raise InvalidSettingsError(f"{where}.name is missing")
        try:
            dimension = parse_dimension(parameter)
            dimension.count_values()
        except InvalidSettingsError as error:
            raise InvalidSettingsError(f"{where}: {error}") from error


def _list_values(parameter: ParameterSpec) -> list[str | int | float]:
    dimension = parse_dimension(parameter)
    texts = [dimension.value_at(index) for index in range(dimension.count_values())]
    if parameter.parameter_type in _CHOICES:
        return list(texts)
    convert = int if parameter.parameter_type is ParameterType.INT else float
    return [convert(text) for text in texts]
