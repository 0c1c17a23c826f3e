"""Reads the settings of algorithms: texts in the experiment, numbers with rules here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kubeloop.katib.suggestion.messages import AlgorithmSpec
from kubeloop.katib.suggestion.service import InvalidSettingsError

Number = int | float


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A setting that an algorithm knows."""

    name: str
    type: type[int] | type[float]
    is_allowed: Callable[[Number], bool]
    rule: str
    """What the value has to be, for the message."""


RANDOM_STATE = Setting(
    name="random_state",
    type=int,
    is_allowed=lambda value: value >= 0,
    rule="an integer of 0 or more",
)


def parse_settings(algorithm: AlgorithmSpec, known: Iterable[Setting]) -> dict[str, Number]:
    """Read the settings that are given.

    Raises:
        InvalidSettingsError: A setting is unknown or its value breaks the rule.
    """
    by_name = {setting.name: setting for setting in known}
    values: dict[str, Number] = {}
    for given in algorithm.algorithm_settings:
        setting = by_name.get(given.name)
        if setting is None:
            listed = ", ".join(by_name) or "none"
            raise InvalidSettingsError(
                f"unknown setting {given.name} for algorithm {algorithm.algorithm_name}; "
                f"known are: {listed}"
            )
        values[given.name] = _parse(setting, given.value)
    return values


def _parse(setting: Setting, text: str) -> Number:
    try:
        value = setting.type(text)
    except ValueError:
        value = None
    if value is None or not setting.is_allowed(value):
        raise InvalidSettingsError(f"{setting.name} must be {setting.rule}, not {text!r}")
    return value
