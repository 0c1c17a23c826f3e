"""Random search: every suggestion is drawn from the parameters' distributions.

Source: Katib's `random` (hyperopt), pkg/suggestion/v1beta1/hyperopt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kubeloop.katib.suggestion.randomness import make_generator
from kubeloop.katib.suggestion.space import Dimension
from kubeloop.katib.suggestion.space_search import Problem, SpaceSearch


class RandomSearch(SpaceSearch):
    """Katib's `random`; normal distributions are cut off at the bounds."""

    def propose(self, problem: Problem, numbers: range) -> Iterator[Sequence[str]]:
        for number in numbers:
            yield draw(problem.dimensions, seed=problem.settings.seed, number=number)


def draw(dimensions: Sequence[Dimension], *, seed: int | None, number: int) -> list[str]:
    """The values that random search suggests as suggestion `number`."""
    generator = make_generator(seed, number)
    return [dimension.from_unit(generator.random()) for dimension in dimensions]
