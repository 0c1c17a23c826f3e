"""Tree-structured Parzen estimator, on Optuna.

The study is built anew for every request from the trials that exist: those with an objective are
told to Optuna as complete, those that still run as running, so that parallel suggestions keep apart
(the constant liar).

Source: Katib's `tpe` (hyperopt), pkg/suggestion/v1beta1/hyperopt; Bergstra et al., Algorithms for
Hyper-Parameter Optimization, 2011.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kubeloop.katib.suggestion.messages import (
    ExperimentSpec,
    GetSuggestionsReply,
    GetSuggestionsRequest,
    ObjectiveType,
    ParameterAssignments,
    Trial,
    TrialConditionType,
    ValidateAlgorithmSettingsRequest,
)
from kubeloop.katib.suggestion.randomness import make_generator, suggestion_numbers
from kubeloop.katib.suggestion.service import SuggestionService
from kubeloop.katib.suggestion.settings import RANDOM_STATE, Number, Setting, parse_settings
from kubeloop.katib.suggestion.space import Dimension, assign, parse_space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import TPESampler
    from optuna.trial import FrozenTrial

_SETTINGS = (
    Setting(name="gamma", type=float, is_allowed=lambda v: 0 < v < 1, rule="a number in (0, 1)"),
    Setting(name="prior_weight", type=float, is_allowed=lambda v: v > 0, rule="a number above 0"),
    Setting(
        name="n_EI_candidates", type=int, is_allowed=lambda v: v > 0, rule="an integer above 0"
    ),
    RANDOM_STATE,
)
_COMPLETE = (TrialConditionType.SUCCEEDED, TrialConditionType.EARLYSTOPPED)
_ACTIVE = (TrialConditionType.CREATED, TrialConditionType.RUNNING, TrialConditionType.UNKNOWN)
_MAX_STARTUP_TRIALS = 10  # Optuna's own
_STARTUP_SHARE = 3
_MAX_GOOD_TRIALS = 25  # hyperopt's and Optuna's bound of the better group


class TpeSearch(SuggestionService):
    """Katib's `tpe`.

    The search starts with random suggestions: ten, or a third of a smaller budget, and at least as
    many as run in parallel.
    """

    def get_suggestions(self, request: GetSuggestionsRequest) -> GetSuggestionsReply:
        spec = request.experiment.spec
        dimensions = parse_space(spec)
        settings = parse_settings(spec.algorithm, _SETTINGS)
        study = _build_study(spec, dimensions, request.trials)
        distributions = {d.name: d.distribution() for d in dimensions}
        suggestions = []
        for number in suggestion_numbers(request):
            study.sampler = _build_sampler(spec, settings, number)
            values = study.ask(distributions).params
            texts = [dimension.decode(values[dimension.name]) for dimension in dimensions]
            suggestions.append(ParameterAssignments(assignments=assign(dimensions, texts)))
        return GetSuggestionsReply(parameter_assignments=tuple(suggestions))

    def validate_algorithm_settings(self, request: ValidateAlgorithmSettingsRequest) -> None:
        spec = request.experiment.spec
        parse_settings(spec.algorithm, _SETTINGS)
        parse_space(spec)


def _build_study(
    spec: ExperimentSpec, dimensions: Sequence[Dimension], trials: Sequence[Trial]
) -> Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    is_maximized = spec.objective.type is ObjectiveType.MAXIMIZE
    study = optuna.create_study(direction="maximize" if is_maximized else "minimize")
    study.add_trials(list(_convert_trials(dimensions, trials)))
    return study


def _convert_trials(
    dimensions: Sequence[Dimension], trials: Sequence[Trial]
) -> Iterator[FrozenTrial]:
    """The trials that the search learns from, in Optuna's terms."""
    from optuna.trial import TrialState, create_trial

    distributions = {d.name: d.distribution() for d in dimensions}
    for trial in trials:
        value = _read_objective(trial)
        is_complete = trial.status.condition in _COMPLETE and value is not None
        if not is_complete and trial.status.condition not in _ACTIVE:
            continue
        texts = {a.name: a.value for a in trial.spec.parameter_assignments}
        try:
            params = {d.name: d.encode(texts[d.name]) for d in dimensions}
        except (KeyError, ValueError):  # of another search space
            continue
        yield create_trial(
            state=TrialState.COMPLETE if is_complete else TrialState.RUNNING,
            value=value if is_complete else None,
            params=params,
            distributions=distributions,
        )


def _read_objective(trial: Trial) -> float | None:
    name = trial.spec.objective.objective_metric_name
    text = next((m.value for m in trial.status.observation if m.name == name), "")
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _build_sampler(spec: ExperimentSpec, settings: Mapping[str, Number], number: int) -> TPESampler:
    from optuna.samplers import TPESampler

    options: dict[str, Any] = {  # the sampler's keyword arguments
        "n_startup_trials": _count_startup_trials(spec),
        "constant_liar": True,
        "seed": make_generator(settings.get(RANDOM_STATE.name), number).getrandbits(32),
    }
    if "n_EI_candidates" in settings:
        options["n_ei_candidates"] = settings["n_EI_candidates"]
    if "prior_weight" in settings:
        options["prior_weight"] = settings["prior_weight"]
    if (gamma := settings.get("gamma")) is not None:
        options["gamma"] = lambda n: min(math.ceil(gamma * math.sqrt(n)), _MAX_GOOD_TRIALS)
    with warnings.catch_warnings():
        # Optuna calls some of the settings that Katib has experimental or deprecated.
        warnings.simplefilter("ignore")
        return TPESampler(**options)


def _count_startup_trials(spec: ExperimentSpec) -> int:
    if not spec.max_trial_count:
        return _MAX_STARTUP_TRIALS
    share = math.ceil(spec.max_trial_count / _STARTUP_SHARE)
    return min(max(share, spec.parallel_trial_count), _MAX_STARTUP_TRIALS)
