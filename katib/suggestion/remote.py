"""A search algorithm that answers elsewhere, over Katib's gRPC: the other end of `server`.

Statuses become errors as Katib's controller reads them: INVALID_ARGUMENT is final, a service that
does not know the validating call is content with all settings, and what else fails may pass.

Source: katib v0.19 `suggestion/suggestionclient/suggestionclient.go`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kubeloop.errors import TransientError
from kubeloop.katib.suggestion.messages import (
    GetSuggestionsReply,
    GetSuggestionsRequest,
    ValidateAlgorithmSettingsRequest,
)
from kubeloop.katib.suggestion.protobuf import parse_reply, render_experiment, render_request
from kubeloop.katib.suggestion.service import (
    InvalidSettingsError,
    SearchExhaustedError,
    SuggestionService,
    UnreachableError,
)
from kubeloop.optional_imports import import_from_extra

with import_from_extra("search", why="An algorithm at an endpoint needs gRPC"):
    import grpc
    from kubeflow.katib import katib_api_pb2 as api
    from kubeflow.katib import katib_api_pb2_grpc as api_grpc

CALL_SECONDS = 60.0
"""How long Katib waits for an answer."""

_ANY_SIZE = -1
_OPTIONS = (
    ("grpc.max_receive_message_length", _ANY_SIZE),
    ("grpc.max_send_message_length", _ANY_SIZE),
    ("grpc.enable_http_proxy", 0),
)
_ABSENT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

Channel = Any  # grpc.Channel, which has no types


class RemoteSuggestion(SuggestionService):
    """The algorithm behind an endpoint."""

    def __init__(self, endpoint: str, *, call_seconds: float = CALL_SECONDS) -> None:
        """Ask at `endpoint`, such as `127.0.0.1:6789`, each time for at most `call_seconds`."""
        self._endpoint = endpoint
        self._call_seconds = call_seconds

    def get_suggestions(self, request: GetSuggestionsRequest) -> GetSuggestionsReply:
        """As in `SuggestionService`.

        Raises:
            TransientError: The service fails, or does not answer in time.
        """
        with calling(self._endpoint) as channel:
            stub = api_grpc.SuggestionStub(channel)
            reply = stub.GetSuggestions(render_request(request), timeout=self._call_seconds)
        return parse_reply(reply)

    def validate_algorithm_settings(self, request: ValidateAlgorithmSettingsRequest) -> None:
        """As in `SuggestionService`.

        Raises:
            TransientError: The service fails, or does not answer in time.
        """
        asked = api.ValidateAlgorithmSettingsRequest(
            experiment=render_experiment(request.experiment)
        )
        with calling(self._endpoint, is_optional=True) as channel:
            stub = api_grpc.SuggestionStub(channel)
            stub.ValidateAlgorithmSettings(asked, timeout=self._call_seconds)


@contextmanager
def calling(endpoint: str, *, is_optional: bool = False) -> Iterator[Channel]:
    """Make one call over a channel of its own.

    Args:
        endpoint: Where to.
        is_optional: Whether a service need not know the call.

    Raises:
        InvalidSettingsError: The service refuses.
        SearchExhaustedError: Nothing is left to suggest.
        UnreachableError: Nobody answers, or not in time.
        TransientError: The service fails.
    """
    try:
        with grpc.insecure_channel(endpoint, options=_OPTIONS) as channel:
            yield channel
    except grpc.RpcError as error:
        code, details = error.code(), error.details() or ""
        if is_optional and code is grpc.StatusCode.UNIMPLEMENTED:
            return
        if code is grpc.StatusCode.INVALID_ARGUMENT:
            raise InvalidSettingsError(details) from error
        if code is grpc.StatusCode.OUT_OF_RANGE:
            raise SearchExhaustedError(details) from error
        message = f"Failed to call the service at {endpoint}: {code.name}: {details}"
        raise (UnreachableError if code in _ABSENT else TransientError)(message) from error
