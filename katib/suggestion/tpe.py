"""Tree-structured Parzen estimators, on Optuna.

The study is built anew for every request from the trials that exist: those with an objective are
told to Optuna as complete, those that still run as running, so that parallel suggestions keep apart
(the constant liar).

Source: Katib's `tpe` (hyperopt) and `multivariate-tpe` (optuna), pkg/suggestion/v1beta1; Bergstra
et al., Algorithms for Hyper-Parameter Optimization, 2011.
"""

from __future__ import annotations

import copy
import functools
import math
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from kubeloop.katib.suggestion.earlier import WARM_START
from kubeloop.katib.suggestion.messages import ExperimentSpec
from kubeloop.katib.suggestion.randomness import make_generator
from kubeloop.katib.suggestion.settings import RANDOM_STATE, Setting, Settings, count
from kubeloop.katib.suggestion.space_search import Problem, SpaceSearch
from kubeloop.katib.suggestion.trials import Point, find_points

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

_MAX_STARTUP_TRIALS = 10  # Optuna's own
_STARTUP_SHARE = 3
_MAX_GOOD_TRIALS = 25  # hyperopt's and Optuna's bound of the better group
_MAX_ATTEMPTS = 8
_SOME_TIME = datetime(2000, 1, 1)  # noqa: DTZ001  # Optuna has no time zones

Options = dict[str, Any]  # keyword arguments of Optuna's sampler


class ParzenSearch(SpaceSearch):
    """What both estimators do; values that were tried already are drawn again a few times."""

    @abstractmethod
    def configure(self, settings: Settings, spec: ExperimentSpec) -> Options:
        """The sampler's keyword arguments."""

    def propose(self, problem: Problem, numbers: range) -> Iterator[Sequence[str]]:
        points = find_points(problem.dimensions, (*problem.earlier, *problem.trials))
        distributions = {d.name: d.distribution() for d in problem.dimensions}
        study = _build_study(problem, points, distributions)
        options = self.configure(problem.settings, problem.spec)
        seen = {point.texts for point in points}
        for number in numbers:
            generator = make_generator(problem.settings.seed, number)
            for _ in range(_MAX_ATTEMPTS):
                study.sampler = _build_sampler({**options, "seed": generator.getrandbits(32)})
                values = study.ask(distributions).params
                texts = tuple(d.decode(values[d.name]) for d in problem.dimensions)
                if texts not in seen:
                    break
            seen.add(texts)
            yield texts


class TpeSearch(ParzenSearch):
    """Katib's `tpe`; whether parameters are estimated together is left to Optuna.

    The search starts with random suggestions: ten, or a third of a smaller budget, and at least as
    many as run in parallel.
    """

    known_settings: ClassVar[tuple[Setting, ...]] = (
        Setting(
            name="gamma",
            type=float,
            is_allowed=lambda value: 0 < value < 1,
            rule="a number in (0, 1)",
        ),
        Setting(
            name="prior_weight",
            type=float,
            is_allowed=lambda value: value > 0 and math.isfinite(value),
            rule="a number above 0",
        ),
        Setting(
            name="n_EI_candidates",
            type=int,
            is_allowed=lambda value: value > 0,
            rule="an integer above 0",
        ),
        RANDOM_STATE,
        WARM_START,
    )

    def configure(self, settings: Settings, spec: ExperimentSpec) -> Options:
        options: Options = {"n_startup_trials": _count_startup_trials(spec)}
        if settings.has("n_EI_candidates"):
            options["n_ei_candidates"] = settings.integer("n_EI_candidates")
        if settings.has("prior_weight"):
            options["prior_weight"] = settings.number("prior_weight")
        if settings.has("gamma"):
            gamma = settings.number("gamma")
            options["gamma"] = lambda n: min(math.ceil(gamma * math.sqrt(n)), _MAX_GOOD_TRIALS)
        return options


class MultivariateTpeSearch(ParzenSearch):
    """Katib's `multivariate-tpe`: one estimator of all parameters together."""

    known_settings: ClassVar[tuple[Setting, ...]] = (
        count("n_startup_trials", least=0),
        count("n_ei_candidates", least=0, default=24),
        RANDOM_STATE,
        WARM_START,
    )

    def configure(self, settings: Settings, spec: ExperimentSpec) -> Options:
        return {
            "multivariate": True,
            "n_startup_trials": (
                settings.integer("n_startup_trials")
                if settings.has("n_startup_trials")
                else _count_startup_trials(spec)
            ),
            # NB: Katib allows none, of which nothing could be chosen.
            "n_ei_candidates": max(settings.integer("n_ei_candidates"), 1),
        }


def _build_study(
    problem: Problem, points: Sequence[Point], distributions: dict[str, BaseDistribution]
) -> Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize")
    study.add_trials([_convert(problem, point, distributions) for point in points])
    return study


def _convert(
    problem: Problem, point: Point, distributions: dict[str, BaseDistribution]
) -> FrozenTrial:
    from optuna.trial import TrialState

    return _trial_class()(
        number=0,
        trial_id=0,
        state=TrialState.RUNNING if point.loss is None else TrialState.COMPLETE,
        value=point.loss,
        datetime_start=_SOME_TIME,
        datetime_complete=None if point.loss is None else _SOME_TIME,
        params={
            dimension.name: dimension.encode(text)
            for dimension, text in zip(problem.dimensions, point.texts, strict=True)
        },
        distributions=distributions,
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )


@functools.cache
def _trial_class() -> type[FrozenTrial]:
    from optuna.trial import FrozenTrial

    class OwnTrial(FrozenTrial):
        """A trial of one study, which nothing changes: copying it deeply would take most time."""

        def __deepcopy__(self, memo: object) -> FrozenTrial:
            return copy.copy(self)

    return OwnTrial


def _build_sampler(options: Options) -> Any:  # optuna.samplers.TPESampler
    from optuna.samplers import TPESampler

    with warnings.catch_warnings():
        # Optuna calls some of the settings that Katib has experimental or deprecated.
        warnings.simplefilter("ignore")
        return TPESampler(constant_liar=True, **options)


def _count_startup_trials(spec: ExperimentSpec) -> int:
    if not spec.max_trial_count:
        return _MAX_STARTUP_TRIALS
    share = math.ceil(spec.max_trial_count / _STARTUP_SHARE)
    return min(max(share, spec.parallel_trial_count), _MAX_STARTUP_TRIALS)
