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
from kubeloop.katib.suggestion.early_stopping import (
    MEDIAN_STOP,
    MIN_TRIALS_REQUIRED,
    START_STEP,
    parse_early_stopping,
)
from kubeloop.katib.suggestion.messages import (
    ComparisonType,
    EarlyStoppingRule,
    EarlyStoppingSpec,
    ObjectiveType,
    Trial,
    TrialConditionType,
)


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
        settings = parse_early_stopping(spec.early_stopping)
        start_step = settings.integer(START_STEP.name)
        metric = spec.objective.objective_metric_name
        averages = [
            fmean(values)
            for trial in request.trials
            if (values := list(self._first_values(trial, metric, start_step)))
        ]
        if len(averages) < settings.integer(MIN_TRIALS_REQUIRED.name):
            return ()
        is_maximized = spec.objective.type is ObjectiveType.MAXIMIZE
        rule = EarlyStoppingRule(
            name=metric,
            value=str(fmean(averages)),
            comparison=ComparisonType.LESS if is_maximized else ComparisonType.GREATER,
            start_step=start_step,
        )
        return (rule,)

    def validate_early_stopping_settings(self, early_stopping: EarlyStoppingSpec) -> None:
        parse_early_stopping(early_stopping)

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


EARLY_STOPPING.register(MEDIAN_STOP, MedianStop)
