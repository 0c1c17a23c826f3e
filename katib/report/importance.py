"""How much of the objective's variation each parameter explains.

Functional ANOVA over a random forest, repeated on resampled trials: the spread of the repetitions
says how far to trust the bars, which after a handful of trials is not far.

Source: Hutter, Hoos, Leyton-Brown: An Efficient Approach for Assessing Hyperparameter Importance,
ICML 2014, in Optuna's implementation.
"""

from __future__ import annotations

import random
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubeloop.errors import InputError
from kubeloop.katib.results import ExperimentResult, ParameterSpace, TrialResult
from kubeloop.optional_imports import import_from_extra

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

MIN_TRIALS = 10
"""Trials with a result below which a forest would show noise."""
_NUM_RESAMPLES = 8
_NUM_TREES = 24
_MAX_TRIALS = 500


class TooFewTrialsError(InputError):
    """There is not enough to tell parameters apart; the message says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """The share of one parameter."""

    name: str
    share: float
    """In [0, 1]; all shares sum up to 1."""
    spread: float
    """Standard deviation over resampled trials."""


def measure_importances(result: ExperimentResult) -> list[Importance]:
    """The share of every parameter, the largest first.

    Raises:
        TooFewTrialsError: There is nothing to learn from.
        MissingDependencyError: Optuna is not installed.
    """
    trials = [trial for trial in result.trials if trial.objective is not None][-_MAX_TRIALS:]
    if len(trials) < MIN_TRIALS:
        raise TooFewTrialsError(
            f"Importances need at least {MIN_TRIALS} trials with a result; there are {len(trials)}."
        )
    if len({trial.objective for trial in trials}) == 1:
        raise TooFewTrialsError("All trials have the same objective; no parameter mattered.")
    names = [
        name
        for name in result.search_space
        if len({trial.parameters.get(name) for trial in trials}) > 1
    ]
    if len(names) == 1:
        return [Importance(name=names[0], share=1.0, spread=0.0)]
    generator = random.Random(0)  # noqa: S311  # the same report for the same trials
    samples = [_measure(trials, names, result, seed=0)]
    for seed in range(1, _NUM_RESAMPLES + 1):
        chosen = generator.choices(trials, k=len(trials))
        if len({trial.objective for trial in chosen}) > 1:
            samples.append(_measure(chosen, names, result, seed=seed))
    found = [
        Importance(
            name=name,
            share=samples[0][name],
            spread=statistics.stdev(sample[name] for sample in samples[1:])
            if len(samples) > 2
            else 0.0,
        )
        for name in names
    ]
    return sorted(found, key=lambda importance: -importance.share)


def _measure(
    trials: Sequence[TrialResult], names: Sequence[str], result: ExperimentResult, *, seed: int
) -> dict[str, float]:
    with import_from_extra("search", why="Importances need Optuna"):
        import optuna
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {name: _convert(result.search_space[name], name, trials) for name in names}
    study = optuna.create_study(direction="minimize")
    study.add_trials(
        [
            optuna.trial.create_trial(
                value=trial.objective,
                params={name: trial.parameters[name] for name in names},
                distributions=distributions,
            )
            for trial in trials
        ]
    )
    evaluator = FanovaImportanceEvaluator(n_trees=_NUM_TREES, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = get_param_importances(study, evaluator=evaluator)
    return {name: float(found.get(name, 0.0)) for name in names}


def _convert(space: ParameterSpace, name: str, trials: Sequence[TrialResult]) -> BaseDistribution:
    """The space as Optuna's distribution; a value outside of it is let in."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    values = [trial.parameters[name] for trial in trials]
    numbers = [value for value in values if not isinstance(value, str)]
    if space.min is None or space.max is None or len(numbers) < len(values):
        return CategoricalDistribution(tuple(dict.fromkeys([*space.values, *values])))
    low, high = min(space.min, *numbers), max(space.max, *numbers)
    if space.kind == "int":
        return IntDistribution(int(low), int(high), log=space.is_log)
    return FloatDistribution(float(low), float(high), log=space.is_log)
