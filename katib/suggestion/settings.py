"""Reads the settings of algorithms: texts in the experiment, values with rules here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubeloop.katib.suggestion.messages import AlgorithmSetting, AlgorithmSpec, EarlyStoppingSpec
from kubeloop.katib.suggestion.service import InvalidSettingsError

Value = int | float | str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A setting that an algorithm knows."""

    name: str
    type: type[int] | type[float] | type[str]
    rule: str = "a text"
    """What the value has to be, for the message."""
    is_allowed: Callable[[Any], bool] = lambda _: True
    """Whether a value of the type keeps the rule."""
    default: Value = None
    """The value where none is given."""
    is_required: bool = False
    """Whether it has to be given."""
    none: str | None = None
    """A text that stands for no value."""

    def parse(self, text: str) -> Value:
        """Read a value.

        Raises:
            InvalidSettingsError: It breaks the rule.
        """
        if text == self.none:
            return None
        try:
            value = self.type(text)
            is_allowed = self.is_allowed(value)
        except (ValueError, OverflowError):
            is_allowed = False
        if not is_allowed:
            raise InvalidSettingsError(f"{self.name} must be {self.rule}, not {text!r}")
        return value


def choice(name: str, values: Sequence[str], *, default: str) -> Setting:
    """A setting that takes one of some texts."""
    return Setting(
        name=name,
        type=str,
        rule=f"one of {', '.join(values)}",
        is_allowed=lambda value: value in values,
        default=default,
    )


def count(name: str, *, least: int, default: int | None = None) -> Setting:
    """A setting that takes an integer from `least` on."""
    return Setting(
        name=name,
        type=int,
        rule=f"an integer of {least} or more",
        is_allowed=lambda value: value >= least,
        default=default,
    )


RANDOM_STATE = count("random_state", least=0)


class Settings:
    """Settings that were read, with defaults in place of those that were not given."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = values

    @property
    def seed(self) -> int | None:
        """The seed of the search, None for another search every time."""
        seed = self._values.get(RANDOM_STATE.name)
        assert seed is None or isinstance(seed, int)
        return seed

    def has(self, name: str) -> bool:
        """Whether there is a value, given or by default."""
        return self._values[name] is not None

    def integer(self, name: str) -> int:
        """An integer that there is."""
        value = self._values[name]
        assert isinstance(value, int), name
        return value

    def number(self, name: str) -> float:
        """A number that there is."""
        value = self._values[name]
        assert isinstance(value, int | float), name
        return value

    def text(self, name: str) -> str:
        """A text that there is."""
        value = self._values[name]
        assert isinstance(value, str), name
        return value


def parse_settings(
    algorithm: AlgorithmSpec | EarlyStoppingSpec, known: Iterable[Setting]
) -> Settings:
    """Read the settings that are given.

    Raises:
        InvalidSettingsError: A setting is unknown, is missing or breaks its rule.
    """
    by_name = {setting.name: setting for setting in known}
    given = {entry.name: entry for entry in algorithm.algorithm_settings}
    for name in given:
        if name not in by_name:
            listed = ", ".join(by_name) or "none"
            raise InvalidSettingsError(
                f"unknown setting {name} for algorithm {algorithm.algorithm_name}; "
                f"known are: {listed}"
            )
    return Settings({name: _read(setting, given.get(name)) for name, setting in by_name.items()})


def _read(setting: Setting, given: AlgorithmSetting | None) -> Value:
    if given is not None:
        return setting.parse(given.value)
    if setting.is_required:
        raise InvalidSettingsError(f"{setting.name} is missing; it must be {setting.rule}")
    return setting.default
