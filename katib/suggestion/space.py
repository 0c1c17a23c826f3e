"""The search space as the algorithms see it.

Every parameter is a dimension that turns a number of the unit interval into the text of a value,
which is all that random and quasi-random search need. For model-based search it also names Optuna's
distribution, and converts values both ways. Distributions that Optuna lacks (normal, log-normal)
are searched through their quantiles, and values on a step are exact decimals, so that no text reads
0.30000000000000004.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from statistics import NormalDist
from typing import TYPE_CHECKING

from kubeloop.katib.suggestion.messages import (
    Distribution,
    ExperimentSpec,
    ParameterAssignment,
    ParameterSpec,
    ParameterType,
)
from kubeloop.katib.suggestion.service import InvalidSettingsError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Coordinate = int | float | str
"""A value as Optuna sees it."""

_LOGARITHMIC = (Distribution.LOG_UNIFORM, Distribution.LOG_NORMAL)
_NORMAL = (Distribution.NORMAL, Distribution.LOG_NORMAL)
_MANY_STEPS = 64
_FACTORS = (0.8, 1.2)
_NUM_DEVIATIONS = 6  # between the bounds: three on each side of the middle


class Dimension(ABC):
    """One parameter of a search space."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def from_unit(self, position: float) -> str:
        """The value at `position` in [0, 1], by the parameter's distribution."""

    @abstractmethod
    def to_unit(self, text: str) -> float:
        """A position of the value: the middle of those that have it.

        Raises:
            ValueError: The text is no value of this parameter.
        """

    @abstractmethod
    def distribution(self) -> BaseDistribution:
        """How Optuna searches the parameter."""

    @abstractmethod
    def encode(self, text: str) -> Coordinate:
        """A value as Optuna sees it.

        Raises:
            ValueError: The text is no value of this parameter.
        """

    @abstractmethod
    def decode(self, coordinate: Coordinate) -> str:
        """The text of a value that Optuna suggests."""

    @abstractmethod
    def perturb(self, text: str, generator: random.Random) -> str:
        """A value near another.

        0.8 or 1.2 times a number and at least a step away, the choice before or after.
        """

    @abstractmethod
    def count_values(self) -> int:
        """How many values there are.

        Raises:
            InvalidSettingsError: There are infinitely many.
        """

    @abstractmethod
    def value_at(self, index: int) -> str:
        """One of the countable values, in their order."""


class Choice(Dimension):
    """Categorical and discrete parameters: a list of texts, all as likely."""

    def __init__(self, name: str, choices: Iterable[str]) -> None:
        super().__init__(name)
        self._choices = tuple(choices)
        if not self._choices:
            raise InvalidSettingsError(f"parameter {name} needs a list of values")

    @property
    def num_choices(self) -> int:
        """How many texts are listed."""
        return len(self._choices)

    def from_unit(self, position: float) -> str:
        return self._choices[_index(position, len(self._choices))]

    def to_unit(self, text: str) -> float:
        return (self._choices.index(text) + 0.5) / len(self._choices)

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(tuple(dict.fromkeys(self._choices)))

    def encode(self, text: str) -> Coordinate:
        if text not in self._choices:
            raise ValueError(text)
        return text

    def decode(self, coordinate: Coordinate) -> str:
        return str(coordinate)

    def perturb(self, text: str, generator: random.Random) -> str:
        index = self._choices.index(text) + generator.choice((-1, 1))
        return self._choices[index % len(self._choices)]

    def count_values(self) -> int:
        return len(set(self._choices))

    def value_at(self, index: int) -> str:
        return tuple(dict.fromkeys(self._choices))[index]


class Range(Dimension):
    """Integers and floating-point numbers between two bounds, both included."""

    def __init__(self, parameter: ParameterSpec) -> None:
        super().__init__(parameter.name)
        space = parameter.feasible_space
        self._is_int = parameter.parameter_type is ParameterType.INT
        self._kind = space.distribution
        self._low = self._parse("min", space.min)
        self._high = self._parse("max", space.max)
        if self._low > self._high:
            raise InvalidSettingsError(
                f"parameter {self.name}: min {space.min} is above max {space.max}"
            )
        if self._kind in _LOGARITHMIC and self._low <= 0:
            raise InvalidSettingsError(
                f"parameter {self.name}: min must be above 0 for a logarithmic distribution, "
                f"not {space.min}"
            )
        step = self._parse("step", space.step) if space.step else None
        if step is not None and step <= 0:
            raise InvalidSettingsError(f"parameter {self.name}: step must be above 0, not {step}")
        self._step = Decimal(1) if step is None and self._is_int else step
        if self._step is not None:
            self._num_steps = int((self._high - self._low) / self._step)
            self._high = self._low + self._num_steps * self._step

    def from_unit(self, position: float) -> str:
        if self._kind in _LOGARITHMIC or self._kind in _NORMAL:
            return self._render(self._quantile(position))
        if self._step is not None:
            return self._on_step(_index(position, self._num_steps + 1))
        return self._render(float(self._low) + position * (float(self._high) - float(self._low)))

    def to_unit(self, text: str) -> float:
        coordinate = self.encode(text)
        if self._step is not None and self._kind not in (*_LOGARITHMIC, *_NORMAL):
            return (float(coordinate) + 0.5) / (self._num_steps + 1)
        return self._position(float(text))

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution, IntDistribution

        if self._kind in _NORMAL:
            return FloatDistribution(0.0, 1.0)
        low, high = float(self._low), float(self._high)
        if self._kind in _LOGARITHMIC:
            return FloatDistribution(low, high, log=True)
        if self._step is None:
            return FloatDistribution(low, high)
        if self._num_steps > _MANY_STEPS:  # Optuna is slow at counting so many
            return FloatDistribution(-0.5, self._num_steps + 0.5)
        return IntDistribution(0, self._num_steps)

    def encode(self, text: str) -> Coordinate:
        value = float(text)
        if not float(self._low) <= value <= float(self._high):
            raise ValueError(text)
        if self._kind in _NORMAL:
            return self._position(value)
        if self._kind not in _LOGARITHMIC and self._step is not None:
            return self._nearest_step(value)
        return value

    def decode(self, coordinate: Coordinate) -> str:
        if self._kind in _NORMAL:
            return self._render(self._quantile(float(coordinate)))
        if self._kind not in _LOGARITHMIC and self._step is not None:
            return self._on_step(min(max(round(float(coordinate)), 0), self._num_steps))
        return self._render(float(coordinate))

    def perturb(self, text: str, generator: random.Random) -> str:
        factor, value = generator.choice(_FACTORS), float(text)
        changed = self._render(value * factor)
        if self._step is None or changed != self._render(value):
            return changed
        # At least by a step, as small integers would never change.
        step = float(self._step) * (1 if (factor > 1) == (value >= 0) else -1)
        return self._render(value + step)

    def count_values(self) -> int:
        if self._step is None:
            raise InvalidSettingsError(f"parameter {self.name} of type double needs a step")
        return self._num_steps + 1

    def value_at(self, index: int) -> str:
        return self._on_step(index)

    def _parse(self, field: str, text: str) -> Decimal:
        try:
            value = Decimal(text)
        except InvalidOperation:
            value = None
        if value is None or not value.is_finite():
            raise InvalidSettingsError(
                f"parameter {self.name}: {field} must be a number, not {text!r}"
            )
        if self._is_int and value != value.to_integral_value():
            raise InvalidSettingsError(
                f"parameter {self.name} of type int: {field} must be an integer, not {text!r}"
            )
        return value

    def _quantile(self, position: float) -> float:
        low, high = self._scaled_bounds()
        if low == high:
            value = low
        elif self._kind in _NORMAL:
            bell = NormalDist((low + high) / 2, (high - low) / _NUM_DEVIATIONS)
            first, last = bell.cdf(low), bell.cdf(high)
            value = bell.inv_cdf(first + position * (last - first))
        else:
            value = low + position * (high - low)
        return math.exp(value) if self._kind in _LOGARITHMIC else value

    def _position(self, value: float) -> float:
        """The inverse of `_quantile`."""
        low, high = self._scaled_bounds()
        if low == high:
            return 0.5
        scaled = math.log(value) if self._kind in _LOGARITHMIC else value
        if self._kind in _NORMAL:
            bell = NormalDist((low + high) / 2, (high - low) / _NUM_DEVIATIONS)
            low, high, scaled = bell.cdf(low), bell.cdf(high), bell.cdf(scaled)
        return min(max((scaled - low) / (high - low), 0.0), 1.0)

    def _scaled_bounds(self) -> tuple[float, float]:
        low, high = float(self._low), float(self._high)
        if self._kind in _LOGARITHMIC:
            return math.log(low), math.log(high)
        return low, high

    def _nearest_step(self, value: float) -> int:
        assert self._step is not None
        index = (Decimal(value) - self._low) / self._step
        rounded = int(index.to_integral_value(rounding=ROUND_HALF_EVEN))
        return min(max(rounded, 0), self._num_steps)

    def _on_step(self, index: int) -> str:
        assert self._step is not None
        value = self._low + index * self._step
        return str(int(value)) if self._is_int else repr(float(value))

    def _render(self, value: float) -> str:
        if self._step is not None:
            return self._on_step(self._nearest_step(value))
        # NB: exp and the quantiles may leave the bounds by a rounding error.
        return repr(min(max(value, float(self._low)), float(self._high)))


def parse_space(spec: ExperimentSpec) -> tuple[Dimension, ...]:
    """The search space of an experiment.

    Raises:
        InvalidSettingsError: A parameter cannot be searched; the message names it.
    """
    if not spec.parameters:
        raise InvalidSettingsError("the experiment has no parameters to search over")
    names = [parameter.name for parameter in spec.parameters]
    for name in names:
        if names.count(name) > 1:
            raise InvalidSettingsError(f"parameter {name} is there {names.count(name)} times")
    return tuple(parse_dimension(parameter) for parameter in spec.parameters)


def assign(
    dimensions: Iterable[Dimension], texts: Iterable[str]
) -> tuple[ParameterAssignment, ...]:
    """Pair parameters with their values."""
    return tuple(
        ParameterAssignment(name=dimension.name, value=text)
        for dimension, text in zip(dimensions, texts, strict=True)
    )


def parse_dimension(parameter: ParameterSpec) -> Dimension:
    """One parameter.

    Raises:
        InvalidSettingsError: It cannot be searched.
    """
    if parameter.parameter_type in (ParameterType.INT, ParameterType.DOUBLE):
        return Range(parameter)
    if parameter.parameter_type in (ParameterType.CATEGORICAL, ParameterType.DISCRETE):
        return Choice(parameter.name, parameter.feasible_space.list)
    raise InvalidSettingsError(f"parameter {parameter.name} has no known type")


def _index(position: float, num: int) -> int:
    return min(int(position * num), num - 1)
