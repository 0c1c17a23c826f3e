"""What Katib's webhook would refuse of an experiment, refused before with the field's name.

Source: katib v0.19 `webhook/v1beta1/experiment/validator/validator.go`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from kubeloop.errors import InputError
from kubeloop.katib.search_space import Categorical, Discrete, Float, Int

_KNOWN_KINDS = ("Job", "TFJob", "PyTorchJob", "XGBoostJob", "MPIJob", "TrainJob")
"""Kinds of which Katib knows when they have succeeded or failed."""


def check_objective(
    metric: object, *, additional_metrics: object, goal: object, strategies: Iterable[str]
) -> None:
    """Check names of metrics, and the goal."""
    if not metric or not isinstance(metric, str):
        raise InputError("objective.metric must name a metric that the program prints.")
    if isinstance(additional_metrics, str) or not isinstance(additional_metrics, list | tuple):
        raise InputError(
            f"objective.additional_metrics must be a list of names, not {additional_metrics!r}."
        )
    for name in additional_metrics:
        if not name or not isinstance(name, str):
            raise InputError(f"objective.additional_metrics must be names, and {name!r} is none.")
    if metric in additional_metrics:
        raise InputError(f"objective.additional_metrics must not repeat the objective {metric!r}.")
    if len(set(additional_metrics)) < len(additional_metrics):
        raise InputError(
            f"objective.additional_metrics must differ from one another: {additional_metrics!r}."
        )
    is_number = isinstance(goal, int | float) and not isinstance(goal, bool)
    if goal is not None and not (is_number and math.isfinite(float(str(goal)))):
        raise InputError(f"objective.goal must be a finite number, not {goal!r}.")
    for name in strategies:
        if name not in (metric, *additional_metrics):
            raise InputError(f"objective.strategies names {name!r}, which is not recorded.")


def check_budget(*, max_trial_count: int | None, **counts: int | None) -> None:
    """Check the counts, by field; None: no limit.

    Args:
        max_trial_count: Trials in all.
        counts: Others, none of them above it; what fails may also be 0.
    """
    for name, count in (("max_trial_count", max_trial_count), *counts.items()):
        if count is None:
            continue
        least = 0 if name == "max_failed_trial_count" else 1
        if isinstance(count, bool) or not isinstance(count, int) or count < least:
            raise InputError(f"{name} must be an integer of at least {least}, not {count!r}.")
        if max_trial_count is not None and count > max_trial_count:
            raise InputError(
                f"{name} must not be above max_trial_count; {count} is above {max_trial_count}."
            )


def check_search_space(space: object) -> None:
    """Check names and types of the parameters."""
    if not isinstance(space, Mapping):
        raise InputError(f"search_space must map names to parameters, not {space!r}.")
    if not space:
        raise InputError("search_space must have at least one parameter.")
    for name, parameter in space.items():
        if not name or not isinstance(name, str) or set(name) & set("{}$ "):
            raise InputError(f"search_space has a parameter named {name!r}, which Katib refuses.")
        if not isinstance(parameter, Float | Int | Categorical | Discrete):
            raise InputError(
                f"search_space.{name} must be a Float, Int, Categorical or Discrete, "
                f"not {parameter!r}."
            )


def check_conditions(kind: str, **conditions: str) -> None:
    """Check that it can be told when a job has ended, by field."""
    for name, condition in conditions.items():
        if not condition and kind not in _KNOWN_KINDS:
            raise InputError(
                f"{name} must be given, as Katib knows it of {', '.join(_KNOWN_KINDS)} only and "
                f"the trial's job is a {kind}."
            )
