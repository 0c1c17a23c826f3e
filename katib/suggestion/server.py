"""The suggestion service over gRPC, as an algorithm image of Katib.

    python -m kubeloop.katib.suggestion.server --port 6789

It serves every algorithm there is; each request names its own. What the embedded plane calls in
process is called here for the protocol's messages.

Source: katib v0.19 `pkg/apis/manager/v1beta1/api.proto`, `cmd/suggestion/hyperopt/v1beta1/main.py`.
"""

from __future__ import annotations

import argparse
import logging
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from kubeloop.errors import InputError
from kubeloop.katib.suggestion import ALGORITHMS, SearchExhaustedError, SuggestionService
from kubeloop.katib.suggestion.messages import ValidateAlgorithmSettingsRequest
from kubeloop.katib.suggestion.pbt import prepare_checkpoints
from kubeloop.katib.suggestion.protobuf import parse_experiment, parse_request, render_reply
from kubeloop.optional_imports import import_from_extra

with import_from_extra("search", why="The suggestion server needs gRPC"):
    import grpc
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc
    from kubeflow.katib import katib_api_pb2 as api
    from kubeflow.katib import katib_api_pb2_grpc as api_grpc

logger = logging.getLogger(__name__)

DEFAULT_PORT = 6789
"""Where Katib expects an algorithm."""

DEFAULT_DATA = Path("/opt/katib/data")
"""Where Katib mounts the volume of a suggestion."""

_HEALTHY = ("", "api.v1.beta1.Suggestion", "manager.v1beta1.Suggestion")  # Katib probes the last
_NUM_WORKERS = 4
_GRACE_SECONDS = 5.0
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# An experiment of thousands of trials is larger than gRPC's default of 4 MiB.
_OPTIONS = (("grpc.max_receive_message_length", 256 << 20),)

Algorithms = Mapping[str, Callable[[], SuggestionService]]
Message = Any  # a generated message, which has no types
Context = Any  # grpc.ServicerContext, which has no types


class SuggestionServicer(api_grpc.SuggestionServicer):  # type: ignore[misc]  # it has no types
    """Katib's service `Suggestion`."""

    def __init__(self, algorithms: Algorithms = ALGORITHMS, *, data: Path = DEFAULT_DATA) -> None:
        """Serve the algorithms of a registry; `data` holds what trials hand on to one another."""
        self._algorithms = algorithms
        self._data = data

    def GetSuggestions(self, request: Message, context: Context) -> Message:  # noqa: N802
        """Suggest assignments."""
        with _translated(context):
            asked = parse_request(request)
            name = asked.experiment.spec.algorithm.algorithm_name
            reply = self._algorithms[name]().get_suggestions(asked)
            prepare_checkpoints(self._data, asked.experiment.name, reply.parameter_assignments)
            return render_reply(reply)

    def ValidateAlgorithmSettings(self, request: Message, context: Context) -> Message:  # noqa: N802
        """Check settings and search space."""
        with _translated(context):
            experiment = parse_experiment(request.experiment)
            name = experiment.spec.algorithm.algorithm_name
            self._algorithms[name]().validate_algorithm_settings(
                ValidateAlgorithmSettingsRequest(experiment=experiment)
            )
            return api.ValidateAlgorithmSettingsReply()


@contextmanager
def _translated(context: Context) -> Iterator[None]:
    """Answer refusals with the status that Katib's controller looks for."""
    try:
        yield
    except SearchExhaustedError as error:
        _refuse(context, grpc.StatusCode.OUT_OF_RANGE, error)
    except InputError as error:
        _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error)


def _refuse(context: Context, code: Any, error: Exception) -> NoReturn:
    logger.info("Request refused", extra={"cause": str(error)})
    context.abort(code, str(error))
    raise AssertionError from error


@contextmanager
def serving(servicer: SuggestionServicer, *, host: str, port: int) -> Iterator[int]:
    """Serve within this context; yields the port, which port 0 leaves to the system."""
    server = grpc.server(ThreadPoolExecutor(_NUM_WORKERS), options=_OPTIONS)
    api_grpc.add_SuggestionServicer_to_server(servicer, server)
    state = health.HealthServicer()
    for name in _HEALTHY:
        state.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    bound = server.add_insecure_port(f"{host}:{port}")
    server.start()
    try:
        yield bound
    finally:
        state.enter_graceful_shutdown()
        server.stop(_GRACE_SECONDS).wait()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(description="Serve search algorithms to Katib over gRPC.")
    parser.add_argument("--host", default="[::]", help="address to listen on")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 for any free one")
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, help="folder of checkpoints (pbt)"
    )
    options = parser.parse_args(arguments)
    # NB: blocked before any thread is started, so that only `sigwait` gets them.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with serving(
        SuggestionServicer(data=options.data), host=options.host, port=options.port
    ) as port:
        logger.info("Serving on port %d", port)
        signal.sigwait(_STOP_SIGNALS)


if __name__ == "__main__":
    main()
