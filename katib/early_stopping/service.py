"""The plug point for early stopping: which rules a new trial gets.

The rules are tested beside the running trial, by whoever collects its metrics.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from kubeloop.katib.suggestion.messages import (
    EarlyStoppingRule,
    EarlyStoppingSpec,
    Experiment,
    Trial,
)
from kubeloop.registry import Registry

ReadValues = Callable[[str, str, int], Sequence[str]]
"""The first values that a trial reported of a metric: trial, metric, at most how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GetEarlyStoppingRulesRequest:
    """Asks for the rules of the trials that are suggested next."""

    experiment: Experiment
    trials: tuple[Trial, ...] = ()


class EarlyStoppingService(ABC):
    """An early stopping algorithm behind the calls of Katib's early stopping service.

    An implementation keeps nothing between calls; what trials reported it reads where they report.
    """

    blocks: ClassVar[bool] = False
    """Whether calls may take seconds: then they belong on a thread, else on the caller's, where
    the reports are read."""

    @abstractmethod
    def get_early_stopping_rules(
        self, request: GetEarlyStoppingRulesRequest
    ) -> tuple[EarlyStoppingRule, ...]:
        """The rules of new trials, none while too little is known.

        A trial is stopped when all its rules have been met.
        """

    @abstractmethod
    def validate_early_stopping_settings(self, early_stopping: EarlyStoppingSpec) -> None:
        """Check the settings before the first trial.

        Raises:
            InvalidSettingsError: They cannot be used; the message names the setting.
        """


EARLY_STOPPING: Registry[Callable[[ReadValues], EarlyStoppingService]] = Registry(
    "early stopping algorithm"
)
"""Katib's algorithm name → what makes the service."""
