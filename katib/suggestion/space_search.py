"""What searches over parameters have in common: they read the request and propose values."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What a search knows of an experiment."""

    spec: ExperimentSpec
    dimensions: tuple[Dimension, ...]
    settings: Settings
    trials: tuple[Trial, ...] = ()


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
        return GetSuggestionsReply(
            parameter_assignments=tuple(
                ParameterAssignments(assignments=assign(problem.dimensions, texts))
                for texts in self.propose(problem, suggestion_numbers(request))
            )
        )

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
