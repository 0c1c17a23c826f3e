"""Median stop: a trial is stopped whose best value is worse than what others had by then.

Katib calls it a median and takes a mean, over the trials that have succeeded, of the mean of each
one's first reports; so does this.

Source: katib v0.19 `earlystopping/v1beta1/medianstop/service.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import fmean

from kubeloop.katib.early_stopping.service import (
    EARLY_STOPPING,
    EarlyStoppingService,
    GetEarlyStoppingRulesRequest,
    ReadValues,
)
from kubeloop.katib.suggestion.messages import (
    ComparisonType,
    EarlyStoppingRule,
    EarlyStoppingSpec,
    ObjectiveType,
    Trial,
    TrialConditionType,
)
from kubeloop.katib.suggestion.service import InvalidSettingsError

_DEFAULTS = {"min_trials_required": 3, "start_step": 4}
_RULES = {
    "min_trials_required": "must be greater than zero (>0)",
    "start_step": "must be greater or equal than one (>=1)",
}


class MedianStop(EarlyStoppingService):
    """Katib's `medianstop`."""

    def __init__(self, read_values: ReadValues) -> None:
        """Learn from what `read_values` finds."""
        self._read_values = read_values

    def get_early_stopping_rules(
        self, request: GetEarlyStoppingRulesRequest
    ) -> tuple[EarlyStoppingRule, ...]:
        spec = request.experiment.spec
        assert spec.early_stopping is not None
        settings = _parse(spec.early_stopping)
        metric = spec.objective.objective_metric_name
        averages = [
            fmean(values)
            for trial in request.trials
            if (values := list(self._first_values(trial, metric, settings["start_step"])))
        ]
        if len(averages) < settings["min_trials_required"]:
            return ()
        is_maximized = spec.objective.type is ObjectiveType.MAXIMIZE
        rule = EarlyStoppingRule(
            name=metric,
            value=str(fmean(averages)),
            comparison=ComparisonType.LESS if is_maximized else ComparisonType.GREATER,
            start_step=settings["start_step"],
        )
        return (rule,)

    def validate_early_stopping_settings(self, early_stopping: EarlyStoppingSpec) -> None:
        _parse(early_stopping)

    def _first_values(self, trial: Trial, metric: str, num: int) -> Iterator[float]:
        """The first numbers of a trial that has succeeded."""
        if trial.status.condition is not TrialConditionType.SUCCEEDED:
            return
        for text in self._read_values(trial.name, metric, num):
            try:
                value = float(text)
            except ValueError:
                continue
            if math.isfinite(value):
                yield value


def _parse(early_stopping: EarlyStoppingSpec) -> dict[str, int]:
    """Every setting, given or not.

    Raises:
        InvalidSettingsError: A setting is unknown or its value breaks the rule.
    """
    values = dict(_DEFAULTS)
    for setting in early_stopping.algorithm_settings:
        if setting.name not in values:
            raise InvalidSettingsError(
                f"unknown setting {setting.name} for algorithm medianstop; known are: "
                f"{', '.join(values)}"
            )
        try:
            values[setting.name] = int(setting.value)
        except ValueError as error:
            raise InvalidSettingsError(
                f"failed to validate {setting.name}({setting.value}): {error}"
            ) from error
        if values[setting.name] < 1:
            raise InvalidSettingsError(f"{setting.name} {_RULES[setting.name]}")
    return values


EARLY_STOPPING.register("medianstop", MedianStop)
