"""Begins a search where earlier ones on the same dataset have ended.

What earlier searches have learned goes into the search space: each parameter is narrowed to a box
around the good trials. That works with every algorithm, here and on any cluster, and the experiment
says what it was given. It costs what lies outside of the box, which is never tried.

Searches of ours that learn from all trials are also told those of earlier experiments that had the
same budget, in a setting (`kubeloop.katib.suggestion.earlier`) that Katib's own do not know.

Source: Perrone et al., Learning Search Spaces for Bayesian Optimization: Another View of
Hyperparameter Transfer Learning, NeurIPS 2019.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from kubeloop.errors import InputError
from kubeloop.katib.clients import Client, find_experiment, list_experiments
from kubeloop.katib.results import (
    ExperimentResult,
    ExperimentStatus,
    ParameterValue,
    TrialResult,
    parse_status,
    read_trials,
)
from kubeloop.katib.search_space import (
    Categorical,
    Discrete,
    Float,
    Int,
    Parameter,
    SearchSpace,
    parse_search_space,
    render_search_space,
)
from kubeloop.katib.suggestion import ALGORITHMS
from kubeloop.katib.suggestion.earlier import WARM_START, render_earlier

DATASET_LABEL = "kubeloop.dev/dataset"
"""Label of an experiment: the version of the dataset that it searched on."""
QUESTION_LABEL = "kubeloop.dev/search"
"""Label of an experiment: digest of program, fixed hyperparameters, search space and objective."""
BUDGET_LABEL = "kubeloop.dev/budget"
"""Label of an experiment: digest of what makes a trial better, whatever is searched: its epochs."""
ANNOTATION = "kubeloop.dev/warm-start"
"""Annotation of an experiment: the earlier ones, and the search space that they led to, as JSON."""

_MAX_EXPERIMENTS = 10
_MAX_TOLD = 100
"""Trials that a search is told, as a setting is part of the experiment."""
_MIN_TRIALS = 8
"""Trials with a result that an experiment must have to count."""
_GOOD_SHARE = 0.25
_MIN_GOOD = 3
_ROOM = 0.1
"""Share of a range that is left around the good trials."""
_MIN_TRIES = 3
"""Trials of a choice, none of them good, after which it is left out."""
_MAX_LABEL_LENGTH = 63
_SAME = (DATASET_LABEL, QUESTION_LABEL)
"""Labels that experiments must share for one to learn from the other."""


V = TypeVar("V", str, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmStart:
    """What a search begins with."""

    search_space: SearchSpace
    """The space, narrowed where something was learned."""
    experiments: tuple[str, ...] = ()
    """Names of the earlier experiments."""
    earlier: str = ""
    """Their trials as the setting `warm_start`; empty: none that can be compared, or an algorithm
    that learns from none."""

    @property
    def annotations(self) -> dict[str, str]:
        """What the experiment says of it, for a retry and for people."""
        if not self.experiments:
            return {}
        content = {
            "experiments": list(self.experiments),
            "search_space": render_search_space(self.search_space),
        }
        return {ANNOTATION: json.dumps(content)}


def build_labels(
    dataset: str, question: Mapping[str, Any], *, budget: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Labels by which a later search finds this one.

    Args:
        dataset: Version of the dataset; empty: unknown, so that none finds it.
        question: Everything that decides which trials are good, as JSON.
        budget: What decides besides how good they get, as JSON.
    """
    if not dataset:
        return {}
    return {
        DATASET_LABEL: dataset[:_MAX_LABEL_LENGTH],
        QUESTION_LABEL: _digest(question),
        BUDGET_LABEL: _digest(budget or {}),
    }


def read_warm_start(annotations: Mapping[str, str]) -> WarmStart | None:
    """What an experiment says that it began with, but for the trials; None: it began cold."""
    try:
        content = json.loads(annotations[ANNOTATION])
        return WarmStart(
            search_space=parse_search_space(content["search_space"]),
            experiments=tuple(map(str, content["experiments"])),
        )
    except (KeyError, TypeError, ValueError, InputError):
        return None


def find_warm_start(
    client: Client,
    *,
    name: str,
    namespace: str,
    labels: Mapping[str, str],
    search_space: SearchSpace,
    algorithm: str,
    fixed: Sequence[str] = (),
) -> WarmStart:
    """Narrow a search space by earlier experiments of the same labels, and find their trials.

    An experiment of that name that exists keeps what it began with, so that a retry finds its own.

    Args:
        client: Katib's client.
        name: The experiment that is about to be created.
        namespace: Its namespace.
        labels: What `build_labels` made; empty: nothing is comparable.
        search_space: The whole space.
        algorithm: The algorithm that will search.
        fixed: Parameters that stay as they are, such as hyperband's resource.
    """
    own = find_experiment(client, name, namespace=namespace)
    if own is not None:
        known = read_warm_start(own.metadata.annotations or {})
        settings = {s.name: s.value for s in own.spec.algorithm.algorithm_settings or ()}
        told = settings.get(WARM_START.name, "")
        return replace(known or WarmStart(search_space=search_space), earlier=told)
    found = _find_earlier(client, namespace=namespace, labels=labels) if labels else []
    narrowed = narrow(search_space, found, fixed=fixed)
    told = tell(found, budget=labels.get(BUDGET_LABEL, "")) if learns(algorithm) else ""
    if narrowed == search_space and not told:
        return WarmStart(search_space=search_space)
    names = tuple(result.name for result in found)
    return WarmStart(search_space=narrowed, experiments=names, earlier=told)


def learns(algorithm: str) -> bool:
    """Whether an algorithm of ours learns from earlier trials."""
    return algorithm in ALGORITHMS and WARM_START in getattr(
        ALGORITHMS[algorithm](), "known_settings", ()
    )


def tell(earlier: Sequence[ExperimentResult], *, budget: str) -> str:
    """The setting with the trials of those that had the budget, the newest experiment first.

    What they reached can be compared, as the whole question is the same.
    """
    trials = [
        (trial.parameters, trial.objective)
        for result in earlier
        if budget and result.labels.get(BUDGET_LABEL) == budget
        for trial in result.trials
        if trial.objective is not None and math.isfinite(trial.objective)
    ]
    return render_earlier(trials[:_MAX_TOLD]) if trials else ""


def narrow(
    space: SearchSpace, earlier: Sequence[ExperimentResult], *, fixed: Sequence[str] = ()
) -> dict[str, Parameter]:
    """A box around the best quarter of each experiment's trials, with room on all sides.

    Objectives of two experiments are never compared: one may have trained for longer.
    """
    tried: list[TrialResult] = []
    good: list[TrialResult] = []
    for result in earlier:
        trials = [trial for trial in result.trials if trial.objective is not None]
        sign = -1 if result.is_maximized else 1
        trials.sort(key=lambda trial: sign * (trial.objective or 0.0))
        tried += trials
        good += trials[: math.ceil(len(trials) * _GOOD_SHARE)]
    if len(good) < _MIN_GOOD:
        return dict(space)
    return {
        name: parameter
        if name in fixed
        else _narrow(parameter, _values(good, name), _values(tried, name))
        for name, parameter in space.items()
    }


def _find_earlier(
    client: Client, *, namespace: str, labels: Mapping[str, str]
) -> list[ExperimentResult]:
    """Comparable experiments that have succeeded, the newest first."""
    found = [
        experiment
        for experiment in list_experiments(client, namespace=namespace)
        if all((experiment.metadata.labels or {}).get(key) == labels[key] for key in _SAME)
        and parse_status(experiment) is ExperimentStatus.SUCCEEDED
    ]
    found.sort(key=lambda experiment: experiment.metadata.creation_timestamp, reverse=True)
    results = [read_trials(experiment, client=client) for experiment in found[:_MAX_EXPERIMENTS]]
    return [
        result
        for result in results
        if sum(trial.objective is not None for trial in result.trials) >= _MIN_TRIALS
    ]


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _values(trials: Sequence[TrialResult], name: str) -> list[ParameterValue]:
    return [trial.parameters[name] for trial in trials if name in trial.parameters]


def _narrow(
    parameter: Parameter, good: Sequence[ParameterValue], tried: Sequence[ParameterValue]
) -> Parameter:
    if isinstance(parameter, Categorical):
        return Categorical(values=tuple(_keep(parameter.values, good, tried)))
    if isinstance(parameter, Discrete):
        return Discrete(values=tuple(_keep(parameter.values, good, tried)))
    numbers = [float(value) for value in good]
    # A normal distribution has its middle and its width from its bounds.
    if not numbers or parameter.normal or parameter.min == parameter.max:
        return parameter
    low, high = _box(parameter, numbers)
    return _cut(parameter, low, high)


def _keep(
    choices: Sequence[V], good: Sequence[ParameterValue], tried: Sequence[ParameterValue]
) -> list[V]:
    return [value for value in choices if value in good or tried.count(value) < _MIN_TRIES]


def _box(parameter: Float | Int, numbers: Sequence[float]) -> tuple[float, float]:
    to, back = (math.log, math.exp) if parameter.log else (float, float)
    room = (to(parameter.max) - to(parameter.min)) * _ROOM
    return back(to(min(numbers)) - room), back(to(max(numbers)) + room)


def _cut(parameter: Float | Int, low: float, high: float) -> Parameter:
    """Bounds within the old ones, on the old steps."""
    if parameter.step is not None or isinstance(parameter, Int):
        step = parameter.step or 1
        low = parameter.min + math.floor((low - parameter.min) / step) * step
        high = parameter.min + math.ceil((high - parameter.min) / step) * step
    low, high = max(low, parameter.min), min(high, parameter.max)
    if isinstance(parameter, Int):
        return replace(parameter, min=int(low), max=int(high))
    return replace(parameter, min=low, max=high)
