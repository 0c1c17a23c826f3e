"""What a search learns from trials: which have a result, which still run, and how good they are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kubeloop.katib.suggestion.messages import (
    ObjectiveSpec,
    ObjectiveType,
    Trial,
    TrialConditionType,
)
from kubeloop.katib.suggestion.space import Dimension

_EVALUATED = (TrialConditionType.SUCCEEDED, TrialConditionType.EARLYSTOPPED)
_ACTIVE = (TrialConditionType.CREATED, TrialConditionType.RUNNING, TrialConditionType.UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A trial within the search space."""

    trial: Trial
    texts: tuple[str, ...]
    """Values in the order of the dimensions."""
    loss: float | None
    """The objective, less is better; None while the trial runs."""


def is_active(trial: Trial) -> bool:
    """Whether the trial may still come to a result."""
    return trial.status.condition in _ACTIVE


def read_loss(trial: Trial) -> float | None:
    """The objective of a trial that has come to a result, less is better."""
    if trial.status.condition not in _EVALUATED:
        return None
    objective = trial.spec.objective
    metrics = {metric.name: metric.value for metric in trial.status.observation}
    try:
        value = float(metrics.get(objective.objective_metric_name, ""))
    except ValueError:
        return None
    if not math.isfinite(value):
        return None
    return sign(objective) * value


def sign(objective: ObjectiveSpec) -> int:
    """What turns the objective into a loss, and back."""
    return -1 if objective.type is ObjectiveType.MAXIMIZE else 1


def find_points(dimensions: Sequence[Dimension], trials: Iterable[Trial]) -> list[Point]:
    """The trials that have a result or still run; those of another search space are left out."""
    points = []
    for trial in trials:
        loss = read_loss(trial)
        if loss is None and not is_active(trial):
            continue
        values = {entry.name: entry.value for entry in trial.spec.parameter_assignments}
        try:
            texts = tuple(values[dimension.name] for dimension in dimensions)
            for dimension, text in zip(dimensions, texts, strict=True):
                dimension.encode(text)
        except (KeyError, ValueError):
            continue
        points.append(Point(trial=trial, texts=texts, loss=loss))
    return points


def by_completion(trials: Iterable[Point]) -> list[Point]:
    """Points with a result, in the order in which they came to it."""
    done = [point for point in trials if point.loss is not None]
    return sorted(done, key=lambda point: point.trial.status.completion_time)
