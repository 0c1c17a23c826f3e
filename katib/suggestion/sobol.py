"""Sobol search: points of a low-discrepancy sequence, which cover the space evenly.

Source: Katib's `sobol` (goptuna), pkg/suggestion/v1beta1/goptuna; Sobol, On the distribution of
points in a cube and the approximate evaluation of integrals, 1967.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from kubeloop.katib.suggestion.service import InvalidSettingsError
from kubeloop.katib.suggestion.space_search import Problem, SpaceSearch

_MAX_DIMENSIONS = 21201  # direction numbers that there are (Joe and Kuo)


class SobolSearch(SpaceSearch):
    """Katib's `sobol`.

    The sequence is scrambled, by seed 0 when there is none, so that it does not start in the corner
    where every parameter has its least value. Katib's own takes no setting.
    """

    def propose(self, problem: Problem, numbers: range) -> Iterator[Sequence[str]]:
        from scipy.stats.qmc import Sobol

        sequence = Sobol(len(problem.dimensions), rng=problem.settings.seed or 0)
        if numbers.start:
            sequence.fast_forward(numbers.start)
        for _ in numbers:
            (point,) = sequence.random(1)
            yield _decode(problem, point)

    def check(self, problem: Problem) -> None:
        if len(problem.dimensions) > _MAX_DIMENSIONS:
            raise InvalidSettingsError(
                f"sobol searches at most {_MAX_DIMENSIONS} parameters, not "
                f"{len(problem.dimensions)}"
            )


def _decode(problem: Problem, point: Any) -> list[str]:  # point: numpy.ndarray
    return [
        dimension.from_unit(float(position))
        for dimension, position in zip(problem.dimensions, point, strict=True)
    ]
