"""The plug point for search algorithms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from kubeloop.errors import InputError, TransientError
from kubeloop.katib.suggestion.messages import (
    GetSuggestionsReply,
    GetSuggestionsRequest,
    ValidateAlgorithmSettingsRequest,
)
from kubeloop.registry import Registry


class InvalidSettingsError(InputError):
    """The algorithm cannot work with these settings or this search space (INVALID_ARGUMENT)."""


class SearchExhaustedError(InvalidSettingsError):
    """Fewer new suggestions are left than were asked for."""

    def __init__(self, message: str, *, num_left: int = 0) -> None:
        """Args: num_left: how many are left; asking for no more than these succeeds."""
        super().__init__(message)
        self.num_left = num_left


class UnreachableError(TransientError):
    """Nobody answers for the algorithm, or not in time."""


class SuggestionService(ABC):
    """A search algorithm behind the calls of Katib's suggestion service.

    An implementation keeps nothing between calls: what it suggests follows from the experiment, the
    trials that exist, and how many suggestions were made before, so that a restart changes nothing.
    With the setting `random_state` the same request gets the same reply, and asking for two
    suggestions at once or one after the other starts the search at the same places.

    Calls block and may take seconds; a caller with an event loop puts them on a thread. Heavy
    libraries are imported inside of them.
    """

    @abstractmethod
    def get_suggestions(self, request: GetSuggestionsRequest) -> GetSuggestionsReply:
        """Suggest exactly `current_request_number` assignments, each of every parameter.

        Raises:
            InvalidSettingsError: The settings or the search space cannot be used.
            SearchExhaustedError: So many new assignments are not left.
        """

    @abstractmethod
    def validate_algorithm_settings(self, request: ValidateAlgorithmSettingsRequest) -> None:
        """Check settings and search space before the first suggestion.

        Raises:
            InvalidSettingsError: They cannot be used; the message names the setting or parameter.
        """


ALGORITHMS: Registry[Callable[[], SuggestionService]] = Registry("algorithm")
"""Katib's algorithm name → what makes the service."""
