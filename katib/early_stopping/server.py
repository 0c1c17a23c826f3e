"""The early stopping service over gRPC, as an early stopping image of Katib.

    python -m kubeloop.katib.early_stopping.server --port 6788

What trials reported it reads from the DB manager that each request names, and a trial that its
collector has stopped it marks so through the Kubernetes API.

Source: katib v0.19 `cmd/earlystopping/medianstop/v1beta1/main.py`,
`pkg/earlystopping/v1beta1/medianstop/service.py`.
"""

from __future__ import annotations

import argparse
import logging
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from kubeloop.errors import InputError
from kubeloop.katib.early_stopping import (
    EARLY_STOPPING,
    EarlyStoppingService,
    GetEarlyStoppingRulesRequest,
    ReadValues,
)
from kubeloop.katib.suggestion.messages import AlgorithmSetting, EarlyStoppingSpec
from kubeloop.katib.suggestion.protobuf import parse_request
from kubeloop.optional_imports import import_from_extra

with import_from_extra("search", why="The early stopping server needs gRPC"):
    import grpc
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc
    from kubeflow.katib import katib_api_pb2 as api
    from kubeflow.katib import katib_api_pb2_grpc as api_grpc

logger = logging.getLogger(__name__)

DEFAULT_PORT = 6788
"""Where Katib expects the service."""

_HEALTHY = ("", "api.v1.beta1.EarlyStopping")
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_TRIALS = ("kubeflow.org", "v1beta1")
_NUM_WORKERS = 4
_CALL_SECONDS = 60.0
_GRACE_SECONDS = 5.0
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_OPTIONS = (("grpc.max_receive_message_length", 256 << 20),)

Algorithms = Mapping[str, Callable[[ReadValues], EarlyStoppingService]]
MarkStopped = Callable[[str], None]
"""Writes into the status of a trial, by its name, that it is stopped early."""
Message = Any  # a generated message, which has no types
Context = Any  # grpc.ServicerContext, which has no types


class EarlyStoppingServicer(api_grpc.EarlyStoppingServicer):  # type: ignore[misc]  # it has no types
    """Katib's service `EarlyStopping`."""

    def __init__(self, mark_stopped: MarkStopped, algorithms: Algorithms = EARLY_STOPPING) -> None:
        self._mark_stopped = mark_stopped
        self._algorithms = algorithms

    def GetEarlyStoppingRules(self, request: Message, context: Context) -> Message:  # noqa: N802
        """The rules of the trials that are suggested next."""
        asked = parse_request(
            api.GetSuggestionsRequest(experiment=request.experiment, trials=request.trials)
        )
        spec = asked.experiment.spec.early_stopping
        with _translated(context), _reading_from(request.db_manager_address) as read_values:
            make = self._algorithms[spec.algorithm_name if spec else ""]
            rules = make(read_values).get_early_stopping_rules(
                GetEarlyStoppingRulesRequest(experiment=asked.experiment, trials=asked.trials)
            )
        reply = api.GetEarlyStoppingRulesReply()
        for rule in rules:
            reply.early_stopping_rules.add(
                name=rule.name,
                value=rule.value,
                comparison=rule.comparison,
                start_step=rule.start_step,
            )
        return reply

    def SetTrialStatus(self, request: Message, context: Context) -> Message:  # noqa: N802
        """Mark a trial that is stopped."""
        del context
        self._mark_stopped(request.trial_name)
        return api.SetTrialStatusReply()

    def ValidateEarlyStoppingSettings(  # noqa: N802
        self, request: Message, context: Context
    ) -> Message:
        """Check the settings."""
        given = request.early_stopping
        spec = EarlyStoppingSpec(
            algorithm_name=given.algorithm_name,
            algorithm_settings=tuple(
                AlgorithmSetting(name=setting.name, value=setting.value)
                for setting in given.algorithm_settings
            ),
        )
        with _translated(context):
            service = self._algorithms[spec.algorithm_name](lambda *_: ())
            service.validate_early_stopping_settings(spec)
        return api.ValidateEarlyStoppingSettingsReply()


def mark_stopped(trial_name: str, *, namespace: str, trials: Any) -> None:
    """Append the condition EarlyStopped to a trial's status, unless it is there.

    Args:
        trial_name: The trial.
        namespace: Its namespace.
        trials: A `CustomObjectsApi`.
    """
    place = (*_TRIALS, namespace, "trials", trial_name)
    trial = trials.get_namespaced_custom_object(*place)
    conditions = (trial.get("status") or {}).get("conditions") or []
    if any(entry["type"] == "EarlyStopped" for entry in conditions):
        return
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {
        "type": "EarlyStopped",
        "status": "True",
        "reason": "TrialEarlyStopped",
        "message": "Trial is early stopped",
        "lastUpdateTime": now,
        "lastTransitionTime": now,
    }
    body = {
        "metadata": {"resourceVersion": trial["metadata"]["resourceVersion"]},
        "status": {"conditions": [*conditions, condition]},
    }
    trials.patch_namespaced_custom_object_status(*place, body)


@contextmanager
def _reading_from(address: str) -> Iterator[ReadValues]:
    """Read what trials reported from a DB manager."""
    with grpc.insecure_channel(address) as channel:
        manager = api_grpc.DBManagerStub(channel)

        def read_values(trial_name: str, metric_name: str, limit: int) -> Sequence[str]:
            request = api.GetObservationLogRequest(trial_name=trial_name, metric_name=metric_name)
            reply = manager.GetObservationLog(request, timeout=_CALL_SECONDS)
            return [log.metric.value for log in reply.observation_log.metric_logs[:limit]]

        yield read_values


@contextmanager
def _translated(context: Context) -> Iterator[None]:
    """Answer refusals with the status that Katib's controller looks for."""
    try:
        yield
    except InputError as error:
        _refuse(context, error)


def _refuse(context: Context, error: InputError) -> NoReturn:
    logger.info("Request refused", extra={"cause": str(error)})
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
    raise AssertionError from error


@contextmanager
def serving(servicer: EarlyStoppingServicer, *, host: str, port: int) -> Iterator[int]:
    """Serve within this context; yields the port, which port 0 leaves to the system."""
    server = grpc.server(ThreadPoolExecutor(_NUM_WORKERS), options=_OPTIONS)
    api_grpc.add_EarlyStoppingServicer_to_server(servicer, server)
    state = health.HealthServicer()
    for name in _HEALTHY:
        state.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    bound = server.add_insecure_port(f"{host}:{port}")
    server.start()
    try:
        yield bound
    finally:
        server.stop(_GRACE_SECONDS).wait()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    from kubernetes import client, config

    parser = argparse.ArgumentParser(description="Serve early stopping to Katib over gRPC.")
    parser.add_argument("--host", default="[::]", help="address to listen on")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 for any free one")
    options = parser.parse_args(arguments)
    # NB: blocked before any thread is started, so that only `sigwait` gets them.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    config.load_incluster_config()
    namespace, trials = _NAMESPACE_FILE.read_text().strip(), client.CustomObjectsApi()
    servicer = EarlyStoppingServicer(
        lambda name: mark_stopped(name, namespace=namespace, trials=trials)
    )
    with serving(servicer, host=options.host, port=options.port) as port:
        logger.info("Serving on port %d", port)
        signal.sigwait(_STOP_SIGNALS)


if __name__ == "__main__":
    main()
