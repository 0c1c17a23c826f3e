"""Calls of search and early stopping algorithms, in this process or at an endpoint.

Algorithms block: searching ones are called on a thread, early stopping ones where they read the
reports, unless they answer elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from kubeloop.errors import InputError, KubeloopError, MissingDependencyError, PermanentError
from kubeloop.katib.early_stopping import (
    EarlyStoppingService,
    GetEarlyStoppingRulesRequest,
    ReadValues,
)
from kubeloop.katib.suggestion import SuggestionService, UnreachableError
from kubeloop.katib.suggestion.messages import (
    EarlyStoppingRule,
    Experiment,
    GetSuggestionsReply,
    GetSuggestionsRequest,
    Trial,
    ValidateAlgorithmSettingsRequest,
)
from kubeloop.local.operators.katib.katib_config import Endpoints

Given = TypeVar("Given")
Answer = TypeVar("Answer")

Algorithms = Mapping[str, Callable[[], SuggestionService]]
EarlyStoppingAlgorithms = Mapping[str, Callable[[ReadValues], EarlyStoppingService]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmCalls:
    """The algorithms of one experiment."""

    suggestion: SuggestionService
    stopping: EarlyStoppingService | None

    async def validate(self, asked: Experiment) -> None:
        """Have the algorithms check their settings.

        Raises:
            UnreachableError: One does not answer.
            PermanentError: They refuse, or cannot even say so; Katib gives up at either.
        """
        request = ValidateAlgorithmSettingsRequest(experiment=asked)
        try:
            await asyncio.to_thread(self.suggestion.validate_algorithm_settings, request)
            if self.stopping is not None and asked.spec.early_stopping is not None:
                await _call(
                    self.stopping,
                    self.stopping.validate_early_stopping_settings,
                    asked.spec.early_stopping,
                )
        except (InputError, UnreachableError):
            raise
        except KubeloopError as error:
            raise PermanentError(str(error)) from error
        except Exception as error:
            raise PermanentError(f"{type(error).__name__}: {error}") from error

    async def suggest(self, request: GetSuggestionsRequest) -> GetSuggestionsReply:
        """Get just as many assignments as are asked for.

        Raises:
            PermanentError: They are more or fewer.
        """
        reply = await asyncio.to_thread(self.suggestion.get_suggestions, request)
        if len(reply.parameter_assignments) != request.current_request_number:
            raise PermanentError(
                f"The response contains unexpected trials: {request.current_request_number} were "
                f"asked for, not {len(reply.parameter_assignments)}"
            )
        return reply

    async def find_rules(
        self, asked: Experiment, trials: tuple[Trial, ...]
    ) -> tuple[EarlyStoppingRule, ...]:
        """The early stopping rules of the next trials."""
        if self.stopping is None:
            return ()
        request = GetEarlyStoppingRulesRequest(experiment=asked, trials=trials)
        return await _call(self.stopping, self.stopping.get_early_stopping_rules, request)


async def find_remote_suggestion(endpoints: Endpoints, algorithm: str) -> SuggestionService | None:
    """The user's own service of an algorithm, if there is one."""
    endpoint = endpoints.suggestions.get(algorithm)

    def connect(endpoint: str) -> SuggestionService:
        from kubeloop.katib.suggestion.remote import RemoteSuggestion  # imports Katib's SDK

        return RemoteSuggestion(endpoint)

    return None if endpoint is None else await _on_thread(connect, endpoint)


async def find_remote_stopping(
    endpoints: Endpoints, algorithm: str, *, db_manager_address: str
) -> EarlyStoppingService | None:
    """The user's own service of an early stopping algorithm, if there is one."""
    endpoint = endpoints.early_stoppings.get(algorithm)

    def connect(endpoint: str) -> EarlyStoppingService:
        from kubeloop.katib.early_stopping.remote import RemoteEarlyStopping

        return RemoteEarlyStopping(endpoint, db_manager_address=db_manager_address)

    return None if endpoint is None else await _on_thread(connect, endpoint)


async def _on_thread(make: Callable[[str], Answer], endpoint: str) -> Answer:
    try:
        return await asyncio.to_thread(make, endpoint)
    except MissingDependencyError as error:
        raise PermanentError(str(error)) from error


async def _call(
    service: EarlyStoppingService, call: Callable[[Given], Answer], given: Given
) -> Answer:
    return await asyncio.to_thread(call, given) if service.blocks else call(given)
