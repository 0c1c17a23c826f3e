"""Grid search: every combination once, in an order that a seed may shuffle.

Source: Katib's `grid` (optuna), pkg/suggestion/v1beta1/optuna.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from kubeloop.katib.suggestion.randomness import make_generator
from kubeloop.katib.suggestion.service import InvalidSettingsError, SearchExhaustedError
from kubeloop.katib.suggestion.space import Dimension
from kubeloop.katib.suggestion.space_search import Problem, SpaceSearch


class GridSearch(SpaceSearch):
    """Katib's `grid`: every double needs a step, an int has step 1 by default.

    Where a trial came to nothing and more are asked for than there are combinations, those without
    a trial that counts are suggested again.
    """

    def propose(self, problem: Problem, numbers: range) -> Iterator[Sequence[str]]:
        num_combinations = _count(problem.dimensions)
        order = islice(_order(problem.settings.seed, num_combinations), numbers.start, numbers.stop)
        found = [_pick(problem.dimensions, index) for index in order]
        if len(found) < len(numbers):
            missing = _find_missing(problem, found)
            found += islice(missing, len(numbers) - len(found))
        if len(found) < len(numbers):
            raise SearchExhaustedError(
                f"the grid has {num_combinations} combinations and all of them were suggested",
                num_left=len(found),
            )
        yield from found

    def check(self, problem: Problem) -> None:
        num_combinations = _count(problem.dimensions)
        if problem.spec.max_trial_count > num_combinations:
            raise InvalidSettingsError(
                f"maxTrialCount {problem.spec.max_trial_count} is above the grid's "
                f"{num_combinations} combinations"
            )


def _count(dimensions: Sequence[Dimension]) -> int:
    return math.prod(dimension.count_values() for dimension in dimensions)


def _order(seed: int | None, num_combinations: int) -> Iterable[int]:
    """Indices of all combinations; shuffled step by step, so that large grids cost nothing."""
    if seed is None:
        yield from range(num_combinations)
        return
    generator = make_generator(seed, 0)
    moved: dict[int, int] = {}
    for position in range(num_combinations):
        other = generator.randrange(position, num_combinations)
        yield moved.get(other, other)
        moved[other] = moved.pop(position, position)


def _pick(dimensions: Sequence[Dimension], index: int) -> list[str]:
    """The combination with this index; the last parameter changes fastest."""
    texts = []
    for dimension in reversed(dimensions):
        index, position = divmod(index, dimension.count_values())
        texts.append(dimension.value_at(position))
    return texts[::-1]


def _find_missing(problem: Problem, found: Iterable[Sequence[str]]) -> Iterator[list[str]]:
    """Combinations of which no trial is known, other than those that were found."""
    names = [dimension.name for dimension in problem.dimensions]
    seen = set(map(tuple, found))
    for trial in problem.trials:
        values = {entry.name: entry.value for entry in trial.spec.parameter_assignments}
        seen.add(tuple(values.get(name, "") for name in names))
    for index in _order(problem.settings.seed, _count(problem.dimensions)):
        texts = _pick(problem.dimensions, index)
        if tuple(texts) not in seen:
            yield texts
