"""Covariance matrix adaptation, on the cmaes package.

The search keeps nothing: for every request it is replayed from the trials with a result, told a
population at a time in the order in which they ended, whichever generation they were drawn from.
So parallel trials waste nothing, and a restart changes nothing.

Source: Katib's `cmaes` (goptuna), pkg/suggestion/v1beta1/goptuna; Hansen, The CMA Evolution
Strategy: A Tutorial, 2016; Auger and Hansen, A Restart CMA Evolution Strategy With Increasing
Population Size, 2005; Hansen, Benchmarking a BI-Population CMA-ES, 2009.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from kubeloop.katib.suggestion.earlier import WARM_START
from kubeloop.katib.suggestion.messages import ParameterType
from kubeloop.katib.suggestion.randomness import make_generator
from kubeloop.katib.suggestion.service import InvalidSettingsError
from kubeloop.katib.suggestion.settings import RANDOM_STATE, Setting, choice
from kubeloop.katib.suggestion.space import Dimension
from kubeloop.katib.suggestion.space_search import Problem, SpaceSearch
from kubeloop.katib.suggestion.trials import Point, by_completion, find_points

if TYPE_CHECKING:
    from cmaes import CMA

_LEAST_NUMBERS = 2
_GROWTH = 2  # of the population, with every restart
_DEFAULT_SIGMA = 1 / 6
_NUMBERS = (ParameterType.DOUBLE, ParameterType.INT)


class CmaEsSearch(SpaceSearch):
    """Katib's `cmaes`: numbers are searched by the strategy, choices are drawn at random.

    `sigma` is the first standard deviation as a share of each parameter's range, a sixth by
    default. `restart_strategy` starts anew from elsewhere where the search has converged: with a
    population twice as large (`ipop`), or large and small ones in turn (`bipop`).
    """

    known_settings: ClassVar[tuple[Setting, ...]] = (
        Setting(
            name="sigma",
            type=float,
            is_allowed=lambda value: value > 0 and math.isfinite(value),
            rule="a number above 0",
            default=_DEFAULT_SIGMA,
        ),
        choice("restart_strategy", ("none", "None", "ipop", "bipop"), default="none"),
        RANDOM_STATE,
        WARM_START,
    )

    def check(self, problem: Problem) -> None:
        kinds = [parameter.parameter_type for parameter in problem.spec.parameters]
        num_numbers = sum(kind in _NUMBERS for kind in kinds)
        if num_numbers < _LEAST_NUMBERS:
            raise InvalidSettingsError(
                f"cmaes needs at least two parameters of type double or int, not {num_numbers}"
            )

    def propose(self, problem: Problem, numbers: range) -> Iterator[Sequence[str]]:
        self.check(problem)
        kinds = [parameter.parameter_type for parameter in problem.spec.parameters]
        searched = [
            d for d, kind in zip(problem.dimensions, kinds, strict=True) if kind in _NUMBERS
        ]
        points = by_completion(find_points(problem.dimensions, (*problem.earlier, *problem.trials)))
        strategy = _replay(problem, searched, points)
        for number in numbers:
            generator = make_generator(problem.settings.seed, number)
            strategy.reseed_rng(generator.getrandbits(32))
            found = dict(zip((d.name for d in searched), strategy.ask(), strict=True))
            yield [
                dimension.from_unit(float(found.get(dimension.name, generator.random())))
                for dimension in problem.dimensions
            ]


def _replay(problem: Problem, searched: Sequence[Dimension], points: Iterable[Point]) -> CMA:
    """The strategy after all generations that are complete."""
    restarts = _Restarts(problem, len(searched))
    strategy, generation = restarts.start(), []
    indices = [problem.dimensions.index(dimension) for dimension in searched]
    for point in points:
        assert point.loss is not None
        position = [problem.dimensions[index].to_unit(point.texts[index]) for index in indices]
        generation.append((position, point.loss))
        if len(generation) < strategy.population_size:
            continue
        strategy = restarts.tell(strategy, generation)
        generation = []
    return strategy


class _Restarts:
    """Tells generations, and starts anew where the strategy asks for it."""

    def __init__(self, problem: Problem, num_dimensions: int) -> None:
        self._settings = problem.settings
        self._num_dimensions = num_dimensions
        self._default_size = 4 + math.floor(3 * math.log(num_dimensions))
        self._num_large = 0
        self._num_restarts = 0
        self._is_small = False
        self._spent = {False: 0, True: 0}  # evaluations, by whether the population is small

    def start(self) -> CMA:
        return self._build(size=self._default_size, mean=[0.5] * self._num_dimensions)

    def tell(self, strategy: CMA, generation: Sequence[tuple[Sequence[float], float]]) -> CMA:
        import numpy as np

        strategy.tell([(np.asarray(position), loss) for position, loss in generation])
        self._spent[self._is_small] += len(generation)
        kind = self._settings.text("restart_strategy")
        if kind in ("none", "None") or not strategy.should_stop():
            return strategy
        self._num_restarts += 1
        generator = make_generator(self._settings.seed or 0, -self._num_restarts)
        self._is_small = kind == "bipop" and self._spent[True] < self._spent[False]
        if self._is_small:
            largest = _GROWTH**self._num_large / 2
            size = math.floor(self._default_size * largest ** (generator.random() ** 2))
        else:
            self._num_large += 1
            size = self._default_size * _GROWTH**self._num_large
        mean = [generator.random() for _ in range(self._num_dimensions)]
        return self._build(size=max(size, self._default_size), mean=mean)

    def _build(self, *, size: int, mean: Sequence[float]) -> CMA:
        import numpy as np

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of scipy's versions
            from cmaes import CMA
        return CMA(
            mean=np.asarray(mean),
            sigma=self._settings.number("sigma"),
            bounds=np.array([[0.0, 1.0]] * self._num_dimensions),
            population_size=size,
            seed=0,
        )
