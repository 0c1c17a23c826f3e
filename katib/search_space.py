"""Search spaces in Python types, and as Katib's parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from kubeflow.katib import V1beta1FeasibleSpace, V1beta1ParameterSpec

from kubeloop.errors import InputError

_DISTRIBUTIONS = {  # (log, normal)
    (False, False): "uniform",
    (True, False): "logUniform",
    (False, True): "normal",
    (True, True): "logNormal",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Float:
    """A floating-point number between two bounds."""

    min: float
    """Least value."""
    max: float
    """Greatest value."""
    step: float | None = None
    """Distance between values; unset: any value."""
    log: bool = False
    """Whether orders of magnitude, rather than values, are equally likely."""
    normal: bool = False
    """Whether values near the middle are likelier: a normal distribution, bounds at ±3 sigma."""

    def __post_init__(self) -> None:
        """Refuse bounds that hold nothing."""
        _check_range(self, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Int:
    """An integer between two bounds, both included."""

    min: int
    """Least value."""
    max: int
    """Greatest value."""
    step: int | None = None
    """Distance between values; unset: 1."""
    log: bool = False
    """Whether orders of magnitude, rather than values, are equally likely."""
    normal: bool = False
    """Whether values near the middle are likelier: a normal distribution, bounds at ±3 sigma."""

    def __post_init__(self) -> None:
        """Refuse bounds that hold nothing."""
        _check_range(self, int)


@dataclass(frozen=True, slots=True, kw_only=True)
class Categorical:
    """One of some texts."""

    values: tuple[str, ...]
    """The texts, each different."""

    def __post_init__(self) -> None:
        """Refuse an empty choice."""
        object.__setattr__(self, "values", _check_values(self.values, str))


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrete:
    """One of some numbers."""

    values: tuple[float, ...]
    """The numbers, each different; 32.0 is written 32."""

    def __post_init__(self) -> None:
        """Refuse an empty choice."""
        values = _check_values(self.values, float)
        object.__setattr__(self, "values", tuple(map(_restore_integer, values)))


Parameter = Float | Int | Categorical | Discrete
SearchSpace = Mapping[str, Parameter]

_TYPES: dict[str, type[Parameter]] = {
    "float": Float,
    "int": Int,
    "categorical": Categorical,
    "discrete": Discrete,
}


def parse_search_space(document: Mapping[str, Any]) -> dict[str, Parameter]:
    """Read a search space from JSON.

    Args:
        document: By name, `{"type": "float" or "int", "min": …, "max": …}` with optional `step`,
            `log` and `normal`, or `{"type": "categorical" or "discrete", "values": […]}`. JSON
            that went through KFP has only floats, so 3.0 is taken for an integer where one is
            needed, and a categorical choice of numbers for a discrete one.

    Raises:
        InputError: It cannot be read; the message names the field.
    """
    if not isinstance(document, Mapping) or not document:
        raise InputError(
            f"search_space must be an object with one entry a parameter, not {document!r}."
        )
    return {
        name: _parse_parameter(f"search_space.{name}", entry) for name, entry in document.items()
    }


def render_search_space(space: SearchSpace) -> dict[str, Any]:
    """The JSON that `parse_search_space` reads."""
    kinds = {cls: kind for kind, cls in _TYPES.items()}
    return {
        name: {"type": kinds[type(parameter)], **asdict(parameter)}
        for name, parameter in space.items()
    }


def build_parameters(space: SearchSpace) -> list[V1beta1ParameterSpec]:
    """Katib's parameters, in the order of the search space."""
    return [_build_parameter(name, parameter) for name, parameter in space.items()]


def _parse_parameter(path: str, entry: Any) -> Parameter:  # entry: any JSON
    if not isinstance(entry, Mapping):
        raise InputError(f"{path} must be an object such as {{'type': 'float', …}}, not {entry!r}.")
    kind = entry.get("type")
    if kind not in _TYPES:
        raise InputError(f"{path}.type must be one of {', '.join(_TYPES)}, not {kind!r}.")
    settings = {key: value for key, value in entry.items() if key != "type"}
    if kind == "int":
        settings = {key: _restore_integer(value) for key, value in settings.items()}
    values = settings.get("values")
    if kind == "categorical" and values and isinstance(values, list | tuple):
        kind = "discrete" if all(_is_number(value, float) for value in values) else kind
    known = {field.name: field for field in fields(_TYPES[kind])}
    for key in settings:
        if key not in known:
            raise InputError(f"{path}.{key} is unknown; {kind} takes {', '.join(known)}.")
    for key, field in known.items():
        if field.default is MISSING and key not in settings:
            raise InputError(f"{path}.{key} is missing; {kind} needs it.")
    try:
        return _TYPES[kind](**settings)
    except InputError as error:
        raise InputError(f"{path}.{error}") from error


def _check_range(space: Float | Int, kind: type[int] | type[float]) -> None:
    word = "an integer" if kind is int else "a finite number"
    for name, value in (("min", space.min), ("max", space.max), ("step", space.step)):
        if (name, value) != ("step", None) and not _is_number(value, kind):
            raise InputError(f"{name} must be {word}, not {value!r}.")
    for name, flag in (("log", space.log), ("normal", space.normal)):
        if not isinstance(flag, bool):
            raise InputError(f"{name} must be true or false, not {flag!r}.")
    if space.min > space.max:
        raise InputError(f"min must not be above max; {space.min!r} is above {space.max!r}.")
    if space.step is not None and space.step <= 0:
        raise InputError(f"step must be above 0, not {space.step!r}.")
    if space.log and space.min <= 0:
        raise InputError(f"min must be above 0 where log is set, not {space.min!r}.")


def _check_values(values: Any, kind: type[str] | type[float]) -> tuple[Any, ...]:  # any JSON
    if isinstance(values, str) or not isinstance(values, list | tuple) or not values:
        raise InputError(f"values must be a list with at least one value, not {values!r}.")
    for value in values:
        if not (isinstance(value, str) if kind is str else _is_number(value, kind)):
            word = "texts" if kind is str else "numbers"
            raise InputError(f"values must be {word}, and {value!r} is none.")
    if len(set(values)) < len(values):
        raise InputError(f"values must differ from one another: {values!r}.")
    return tuple(values)


def _is_number(value: Any, kind: type) -> bool:  # any JSON
    if isinstance(value, bool):
        return False
    if kind is int:
        return isinstance(value, int)
    return isinstance(value, int | float) and math.isfinite(value)


def _restore_integer(value: Any) -> Any:  # any JSON
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _build_parameter(name: str, parameter: Parameter) -> V1beta1ParameterSpec:
    if isinstance(parameter, Categorical | Discrete):
        kind = "categorical" if isinstance(parameter, Categorical) else "discrete"
        return V1beta1ParameterSpec(
            name=name,
            parameter_type=kind,
            feasible_space=V1beta1FeasibleSpace(list=[str(value) for value in parameter.values]),
        )
    convert = int if isinstance(parameter, Int) else float
    return V1beta1ParameterSpec(
        name=name,
        parameter_type="int" if isinstance(parameter, Int) else "double",
        feasible_space=V1beta1FeasibleSpace(
            min=repr(convert(parameter.min)),
            max=repr(convert(parameter.max)),
            step=None if parameter.step is None else repr(convert(parameter.step)),
            distribution=_DISTRIBUTIONS[parameter.log, parameter.normal],
        ),
    )
