"""An early stopping algorithm that answers elsewhere, over Katib's gRPC: the other end of `server`.

Source: katib v0.19 `suggestion/suggestionclient/suggestionclient.go`.
"""

from __future__ import annotations

from typing import ClassVar

from kubeloop.katib.early_stopping.service import (
    EarlyStoppingService,
    GetEarlyStoppingRulesRequest,
)
from kubeloop.katib.suggestion.messages import EarlyStoppingRule, EarlyStoppingSpec
from kubeloop.katib.suggestion.protobuf import (
    parse_rules,
    render_early_stopping,
    render_experiment,
    render_trials,
)
from kubeloop.katib.suggestion.remote import CALL_SECONDS, calling
from kubeloop.optional_imports import import_from_extra

with import_from_extra("search", why="Early stopping at an endpoint needs gRPC"):
    from kubeflow.katib import katib_api_pb2 as api
    from kubeflow.katib import katib_api_pb2_grpc as api_grpc


class RemoteEarlyStopping(EarlyStoppingService):
    """The algorithm behind an endpoint; it reads reports from the DB manager that it is told."""

    blocks: ClassVar[bool] = True

    def __init__(
        self, endpoint: str, *, db_manager_address: str, call_seconds: float = CALL_SECONDS
    ) -> None:
        """Ask at `endpoint`, such as `127.0.0.1:6788`, each time for at most `call_seconds`."""
        self._endpoint = endpoint
        self._db_manager_address = db_manager_address
        self._call_seconds = call_seconds

    def get_early_stopping_rules(
        self, request: GetEarlyStoppingRulesRequest
    ) -> tuple[EarlyStoppingRule, ...]:
        """As in `EarlyStoppingService`.

        Raises:
            TransientError: The service fails, or does not answer in time.
        """
        asked = api.GetEarlyStoppingRulesRequest(
            experiment=render_experiment(request.experiment),
            trials=render_trials(request.trials),
            db_manager_address=self._db_manager_address,
        )
        with calling(self._endpoint) as channel:
            stub = api_grpc.EarlyStoppingStub(channel)
            reply = stub.GetEarlyStoppingRules(asked, timeout=self._call_seconds)
        return parse_rules(reply.early_stopping_rules)

    def validate_early_stopping_settings(self, early_stopping: EarlyStoppingSpec) -> None:
        """As in `EarlyStoppingService`.

        Raises:
            TransientError: The service fails, or does not answer in time.
        """
        asked = api.ValidateEarlyStoppingSettingsRequest(
            early_stopping=render_early_stopping(early_stopping)
        )
        with calling(self._endpoint, is_optional=True) as channel:
            stub = api_grpc.EarlyStoppingStub(channel)
            stub.ValidateEarlyStoppingSettings(asked, timeout=self._call_seconds)
