"""What searches over parameters have in common: they read the request and propose values."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from kubeloop.katib.suggestion.earlier import WARM_START, read_earlier
from kubeloop.katib.suggestion.messages import (
    ExperimentSpec,
    GetSuggestionsReply,
    GetSuggestionsRequest,
    ParameterAssignments,
    Trial,
    ValidateAlgorithmSettingsRequest,
)
from kubeloop.katib.suggestion.randomness import suggestion_numbers
from kubeloop.katib.suggestion.service import SuggestionService
from kubeloop.katib.suggestion.settings import RANDOM_STATE, Setting, Settings, parse_settings
from kubeloop.katib.suggestion.space import Dimension, assign, parse_space
from kubeloop.katib.suggestion.trials import find_points


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What a search knows of an experiment."""

    spec: ExperimentSpec
    dimensions: tuple[Dimension, ...]
    settings: Settings
    trials: tuple[Trial, ...] = ()
    earlier: tuple[Trial, ...] = ()
    """Of experiments before this one."""


class SpaceSearch(SuggestionService):
    """A search that proposes values of all parameters, one suggestion after the other."""

    known_settings: ClassVar[tuple[Setting, ...]] = (RANDOM_STATE,)
    """Settings of the algorithm."""

    @abstractmethod
    def propose(self, problem: Problem, numbers: range) -> Iterator[Sequence[str]]:
        """Values in the order of the dimensions, for each of the suggestions with these numbers."""

    def check(self, problem: Problem) -> None:
        """Refuse what the search cannot work on.

        Raises:
            InvalidSettingsError: It is such.
        """

    def get_suggestions(self, request: GetSuggestionsRequest) -> GetSuggestionsReply:
        problem = read_problem(request.experiment.spec, self.known_settings, trials=request.trials)
        if WARM_START in self.known_settings:
            earlier = read_earlier(problem.settings, problem.spec.objective)
            problem = replace(problem, earlier=earlier)
        return GetSuggestionsReply(
            parameter_assignments=tuple(
                ParameterAssignments(assignments=assign(problem.dimensions, texts))
                for texts in self._begin(problem, suggestion_numbers(request))
            )
        )

    def _begin(self, problem: Problem, numbers: range) -> Iterator[Sequence[str]]:
        """The best of earlier trials first, so that the search is never behind them."""
        earlier = find_points(problem.dimensions, problem.earlier)
        if earlier and numbers and numbers[0] == 0:
            yield min(earlier, key=lambda point: point.loss or 0.0).texts
            numbers = numbers[1:]
        yield from self.propose(problem, numbers)

    def validate_algorithm_settings(self, request: ValidateAlgorithmSettingsRequest) -> None:
        self.check(read_problem(request.experiment.spec, self.known_settings))


def read_problem(
    spec: ExperimentSpec, known_settings: Iterable[Setting], *, trials: tuple[Trial, ...] = ()
) -> Problem:
    """Read an experiment.

    Raises:
        InvalidSettingsError: Settings or search space cannot be used.
    """
    return Problem(
        settings=parse_settings(spec.algorithm, known_settings),
        spec=spec,
        dimensions=parse_space(spec),
        trials=trials,
    )
