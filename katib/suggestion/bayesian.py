"""Bayesian optimisation: a model of the objective says where looking is worth most.

Settings are those of Katib's service. `gp_hedge` lets lower confidence bound, expected improvement
and probability of improvement each choose a point, and takes one of the three at random, likelier
the better the model believes it to be; Katib's own remembers for this which of them did well.
`EIps` and `PIps` divide by the expected duration of a trial. `acq_optimizer` `sampling` takes the
best of random candidates, `auto` looks again and again closer around the best of them, `lbfgs` goes
on from them by gradient, which models of trees lack.

Source: Katib's `bayesianoptimization` (skopt), pkg/suggestion/v1beta1/skopt; Snoek et al.,
Practical Bayesian Optimization of Machine Learning Algorithms, 2012.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, ClassVar

from kubeloop.katib.suggestion.earlier import WARM_START
from kubeloop.katib.suggestion.random_search import draw
from kubeloop.katib.suggestion.randomness import make_generator
from kubeloop.katib.suggestion.service import InvalidSettingsError
from kubeloop.katib.suggestion.settings import RANDOM_STATE, Setting, choice, count
from kubeloop.katib.suggestion.space import Choice
from kubeloop.katib.suggestion.space_search import Problem, SpaceSearch
from kubeloop.katib.suggestion.surrogates import SURROGATES, GaussianProcess, Surrogate
from kubeloop.katib.suggestion.threads import single_thread
from kubeloop.katib.suggestion.trials import Point, find_points

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

Acquisition = Callable[["Array", "Array", float], "Array"]
"""What looking at points is worth, by their means and deviations and the least loss up to now."""

_NUM_CANDIDATES = 2000
_NUM_NEAR = 500  # candidates near the best points
_NEAR = 0.05
_MOVED_SHARE = 0.5
_NUM_STARTS = 5
_NUM_KEPT = 50
_NUM_AROUND = 50
_WIDTHS = (0.02, 0.005, 0.001)
_MAX_ITERATIONS = 30
_STEP = 1e-5
_FAR = -6.0  # deviations
_LEAST_DURATIONS = 2
_KAPPA = 1.96
_XI = 0.01  # by how much to improve, in deviations of the objective
_HEDGE = ("LCB", "EI", "PI")


class BayesianSearch(SpaceSearch):
    """Katib's `bayesianoptimization`."""

    known_settings: ClassVar[tuple[Setting, ...]] = (
        choice("base_estimator", tuple(SURROGATES), default="GP"),
        count("n_initial_points", least=0, default=10),
        choice("acq_func", ("gp_hedge", "LCB", "EI", "PI", "EIps", "PIps"), default="gp_hedge"),
        choice("acq_optimizer", ("auto", "sampling", "lbfgs"), default="auto"),
        RANDOM_STATE,
        WARM_START,
    )

    def check(self, problem: Problem) -> None:
        if problem.settings.text("acq_optimizer") == "lbfgs" and not _is_smooth(problem):
            raise InvalidSettingsError(
                "acq_optimizer must be auto or sampling where base_estimator is not GP, not 'lbfgs'"
            )

    def propose(self, problem: Problem, numbers: range) -> Iterator[Sequence[str]]:
        seed = problem.settings.seed
        points = find_points(problem.dimensions, (*problem.earlier, *problem.trials))
        num_done = sum(point.loss is not None for point in points)
        if num_done < max(problem.settings.integer("n_initial_points"), 2):
            yield from (draw(problem.dimensions, seed=seed, number=number) for number in numbers)
            return
        with single_thread():
            proposer = _Proposer(problem, points, seed=make_seed(seed, numbers.start))
            for number in numbers:
                yield proposer.propose(make_seed(seed, number))


def make_seed(seed: int | None, number: int) -> int:
    """A seed for numpy."""
    return make_generator(seed, number).getrandbits(32)


class _Proposer:
    """Fits the model once, and proposes points one after the other.

    A point is searched as one number in [0, 1] a parameter (its position), and the model sees it as
    coordinates, of which a choice has one a value.
    """

    def __init__(self, problem: Problem, points: Sequence[Point], *, seed: int) -> None:
        import numpy as np

        self._problem = problem
        self._seen = {point.texts for point in points}
        done = [point for point in points if point.loss is not None]
        losses = _normalize(np.array([point.loss for point in done]))
        self._least = float(losses.min())
        positions = self._locate(done)
        self._best = positions[np.argsort(losses)[:_NUM_STARTS]]
        build = SURROGATES[problem.settings.text("base_estimator")]
        self._model = build(seed)
        self._model.fit(self._encode(positions), losses)
        self._clock = None
        if problem.settings.text("acq_func").endswith("ps"):
            self._clock = _fit_durations(build(seed), self._encode(positions), done)
        if pending := [point for point in points if point.loss is None]:
            self._model.believe(self._encode(self._locate(pending)))

    def propose(self, seed: int) -> list[str]:
        """A point that was not tried yet."""
        import numpy as np

        random = np.random.default_rng(seed)
        kind = self._problem.settings.text("acq_func")
        names = _HEDGE if kind == "gp_hedge" else (kind.removesuffix("ps"),)
        chosen = np.array([self._choose(random, _ACQUISITIONS[name]) for name in names])
        means, _ = self._model.predict(self._encode(chosen))
        weights = np.exp(means.min() - means)
        position = chosen[random.choice(len(chosen), p=weights / weights.sum())]
        texts = self._decode(position)
        self._seen.add(tuple(texts))
        self._model.believe(self._encode(position[None]))
        return texts

    def _draw_candidates(self, random: np.random.Generator) -> Array:
        """Candidates everywhere, and near the best points."""
        import numpy as np

        anywhere = random.random((_NUM_CANDIDATES, len(self._problem.dimensions)))
        centers = self._best[random.integers(len(self._best), size=_NUM_NEAR)]
        is_moved = random.random(centers.shape) < _MOVED_SHARE
        near = np.where(is_moved, random.normal(centers, _NEAR), centers)
        return np.vstack([anywhere, np.clip(near, 0.0, 1.0)])

    def _choose(self, random: np.random.Generator, acquisition: Acquisition) -> Array:
        """The position that is worth most and was not tried yet."""
        everywhere = self._rank(self._draw_candidates(random), acquisition)
        method = self._problem.settings.text("acq_optimizer")
        ranked = everywhere
        if method == "lbfgs":
            ranked = self._descend(everywhere, acquisition)
        elif method == "auto":
            ranked = self._narrow(everywhere, random, acquisition)
        positions: Iterator[Array] = chain(ranked, everywhere)
        fresh = (each for each in positions if tuple(self._decode(each)) not in self._seen)
        best: Array = next(fresh, ranked[0])
        return best

    def _rank(self, positions: Array, acquisition: Acquisition) -> Array:
        """Positions, those that are worth most first."""
        import numpy as np

        return positions[np.argsort(self._cost(positions, acquisition), kind="stable")]

    def _narrow(
        self, ranked: Array, random: np.random.Generator, acquisition: Acquisition
    ) -> Array:
        """Look again and again closer around the best."""
        import numpy as np

        for width in _WIDTHS:
            best = ranked[:_NUM_STARTS]
            around = random.normal(np.repeat(best, _NUM_AROUND, axis=0), width)
            positions = np.vstack([ranked[:_NUM_KEPT], np.clip(around, 0.0, 1.0)])
            ranked = self._rank(positions, acquisition)
        return ranked

    def _descend(self, ranked: Array, acquisition: Acquisition) -> Array:
        """Go on from the best by gradient."""
        import numpy as np
        from scipy.optimize import minimize

        ends = [
            minimize(
                lambda position: self._cost_and_slope(position, acquisition),
                start,
                jac=True,
                bounds=[(0.0, 1.0)] * len(start),
                method="L-BFGS-B",
                options={"maxiter": _MAX_ITERATIONS},
            ).x
            for start in ranked[:_NUM_STARTS]
        ]
        return self._rank(np.vstack([ends, ranked[:_NUM_KEPT]]), acquisition)

    def _cost(self, positions: Array, acquisition: Acquisition) -> Array:
        """What to minimise; slow trials are dear to acquisitions by the second."""
        points = self._encode(positions)
        means, deviations = self._model.predict(points)
        costs = -acquisition(means, deviations, self._least)
        if self._clock is not None:
            log_seconds, _ = self._clock.predict(points)
            costs += log_seconds
        return costs

    def _cost_and_slope(self, position: Array, acquisition: Acquisition) -> tuple[float, Array]:
        """The cost, with its gradient by differences; choices have none."""
        import numpy as np

        steps = np.where(position + _STEP > 1.0, -_STEP, _STEP)
        costs = self._cost(np.vstack([position, position + np.diag(steps)]), acquisition)
        return float(costs[0]), (costs[1:] - costs[0]) / steps

    def _locate(self, points: Sequence[Point]) -> Array:
        import numpy as np

        dimensions = self._problem.dimensions
        return np.array(
            [
                [d.to_unit(text) for d, text in zip(dimensions, point.texts, strict=True)]
                for point in points
            ]
        )

    def _decode(self, position: Array) -> list[str]:
        dimensions = self._problem.dimensions
        return [d.from_unit(float(x)) for d, x in zip(dimensions, position, strict=True)]

    def _encode(self, positions: Array) -> Array:
        import numpy as np

        columns = []
        for dimension, column in zip(self._problem.dimensions, positions.T, strict=True):
            if isinstance(dimension, Choice):
                num = dimension.num_choices
                indices = np.minimum((column * num).astype(int), num - 1)
                columns.extend(np.eye(num)[indices].T)
            else:
                columns.append(column)
        return np.stack(columns, axis=1)


def _normalize(losses: Array) -> Array:
    """Zero mean and unit variance, with the worse half drawn together.

    A few trials that diverged would otherwise leave no difference between all good ones.
    """
    import numpy as np

    middle = np.median(losses)
    unit = middle - losses.min()
    if unit > 0:
        excess = np.maximum(losses - middle, 0.0) / unit
        losses = np.minimum(losses, middle) + unit * np.log1p(excess)
    normalized: Array = (losses - losses.mean()) / (losses.std() or 1.0)
    return normalized


def _is_smooth(problem: Problem) -> bool:
    return SURROGATES[problem.settings.text("base_estimator")] is GaussianProcess


def _fit_durations(model: Surrogate, points: Array, done: Sequence[Point]) -> Surrogate | None:
    """A model of the logarithm of a trial's seconds, None where they are not known."""
    import numpy as np

    seconds = [_measure(point) for point in done]
    known = [index for index, each in enumerate(seconds) if each is not None]
    if len(known) < _LEAST_DURATIONS:
        return None
    logs = np.log(np.array([seconds[index] for index in known], dtype=float))
    model.fit(points[known], logs)
    return model


def _measure(point: Point) -> float | None:
    status = point.trial.status
    try:
        started = datetime.fromisoformat(status.start_time)
        ended = datetime.fromisoformat(status.completion_time)
    except ValueError:
        return None
    # Times come in whole seconds.
    return max((ended - started).total_seconds(), 1.0)


def _lower_confidence_bound(means: Array, deviations: Array, _: float) -> Array:
    return _KAPPA * deviations - means


def _log_expected_improvement(means: Array, deviations: Array, least: float) -> Array:
    """Its logarithm tells points apart also where next to nothing is expected."""
    import numpy as np
    from scipy.special import ndtr

    z = (least - means) / deviations
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    near = np.log(np.maximum(density + z * ndtr(z), 1e-300))
    far = -(z**2) / 2 - math.log(math.sqrt(2 * math.pi)) - 2 * np.log(np.maximum(-z, 1.0))
    improvement: Array = np.where(z > _FAR, near, far) + np.log(deviations)
    return improvement


def _log_probability_of_improvement(means: Array, deviations: Array, least: float) -> Array:
    from scipy.special import log_ndtr

    probability: Array = log_ndtr((least - _XI - means) / deviations)
    return probability


_ACQUISITIONS: dict[str, Acquisition] = {
    "LCB": _lower_confidence_bound,
    "EI": _log_expected_improvement,
    "PI": _log_probability_of_improvement,
}
