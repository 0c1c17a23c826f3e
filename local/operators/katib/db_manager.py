"""Katib's DB manager: trials report metrics to it, and users read them, over gRPC.

The server is started by the first that calls it, so that a plane without such calls pays nothing
for gRPC. Messages are described here rather than imported: the only package that has them compiled
is Katib's SDK, which takes a second to import.

Source: katib v0.19 `pkg/apis/manager/v1beta1/api.proto`, `cmd/db-manager/v1beta1/main.go`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from kubeloop.local.operators.katib.metrics import MetricLog
from kubeloop.local.operators.katib.observations import ObservationStore

if TYPE_CHECKING:
    import grpc

logger = logging.getLogger(__name__)

_PACKAGE = "api.v1.beta1"
_HOST = "127.0.0.1"
_GRACE_SECONDS = 1.0
_ANY_SIZE = -1
_HEALTH_SERVICES = ("", "grpc.health.v1.Health")

Message = Any  # generated from the descriptions below
_MESSAGES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "Metric": (("name", ""), ("value", "")),
    "MetricLog": (("time_stamp", ""), ("metric", "Metric")),
    "ObservationLog": (("metric_logs", "[MetricLog]"),),
    "ReportObservationLogRequest": (("trial_name", ""), ("observation_log", "ObservationLog")),
    "ReportObservationLogReply": (),
    "GetObservationLogRequest": (
        ("trial_name", ""),
        ("metric_name", ""),
        ("start_time", ""),
        ("end_time", ""),
    ),
    "GetObservationLogReply": (("observation_log", "ObservationLog"),),
    "DeleteObservationLogRequest": (("trial_name", ""),),
    "DeleteObservationLogReply": (),
}
"""Fields in the order of their numbers: texts, messages, and lists of messages in brackets."""


class DbManager:
    """Serves an observation store. Use as a context manager."""

    def __init__(self, store: ObservationStore) -> None:
        self._store = store
        self._server: grpc.aio.Server | None = None
        self._address: tuple[str, int] | None = None
        self._starting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None:
            await self._server.stop(_GRACE_SECONDS)

    async def locate(self) -> tuple[str, int]:
        """Host and port of the server; the first call starts it."""
        async with self._starting:
            if self._address is None:
                messages = await asyncio.to_thread(_import_messages)
                self._address = await self._start(messages)
            return self._address

    async def _start(self, messages: Mapping[str, type[Message]]) -> tuple[str, int]:
        import grpc
        from grpc_health.v1 import health, health_pb2, health_pb2_grpc

        options = (
            ("grpc.max_receive_message_length", _ANY_SIZE),
            ("grpc.max_send_message_length", _ANY_SIZE),
            ("grpc.so_reuseport", 0),
        )
        server = self._server = grpc.aio.server(options=options)
        server.add_generic_rpc_handlers((_build_handler(self._store, messages),))
        servicer = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        for service in _HEALTH_SERVICES:
            await servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
        port = server.add_insecure_port(f"{_HOST}:0")
        await server.start()
        logger.info("DB manager has started", extra={"port": port})
        return _HOST, port


@functools.cache
def _import_messages() -> Mapping[str, type[Message]]:
    """Import gRPC, and make the message classes.

    NB: they live in a pool of their own; in the common one Katib's SDK has the same names.
    """
    import grpc  # noqa: F401  # here, on a thread, for the time that it takes
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="kubeloop/db_manager.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field_name, kind) in enumerate(fields, start=1):
            is_list = kind.startswith("[")
            field = message.field.add(
                name=field_name,
                number=number,
                label=field_type.LABEL_REPEATED if is_list else field_type.LABEL_OPTIONAL,
                type=field_type.TYPE_MESSAGE if kind else field_type.TYPE_STRING,
            )
            if kind:
                field.type_name = f".{_PACKAGE}.{kind.strip('[]')}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }


def _build_handler(
    store: ObservationStore, messages: Mapping[str, type[Message]]
) -> grpc.GenericRpcHandler:
    import grpc

    def report(request: Message) -> Message:
        logs = [
            MetricLog(time_stamp=log.time_stamp, name=log.metric.name, value=log.metric.value)
            for log in request.observation_log.metric_logs
        ]
        store.report(request.trial_name, logs)
        return messages["ReportObservationLogReply"]()

    def get(request: Message) -> Message:
        reply = messages["GetObservationLogReply"]()
        for log in store.read(
            request.trial_name,
            metric_name=request.metric_name,
            start_time=request.start_time,
            end_time=request.end_time,
        ):
            entry = reply.observation_log.metric_logs.add(time_stamp=log.time_stamp)
            entry.metric.name, entry.metric.value = log.name, log.value
        return reply

    def delete(request: Message) -> Message:
        store.delete(request.trial_name)
        return messages["DeleteObservationLogReply"]()

    calls = {
        "ReportObservationLog": report,
        "GetObservationLog": get,
        "DeleteObservationLog": delete,
    }
    return grpc.method_handlers_generic_handler(
        f"{_PACKAGE}.DBManager",
        {
            name: grpc.unary_unary_rpc_method_handler(
                _in_loop(call),
                request_deserializer=messages[f"{name}Request"].FromString,
                response_serializer=messages[f"{name}Reply"].SerializeToString,
            )
            for name, call in calls.items()
        },
    )


def _in_loop(call: Callable[[Message], Message]) -> Callable[[Message, object], Any]:
    """The call as gRPC's asyncio server takes it: in the event loop, where the store lives."""

    async def handle(request: Message, context: object) -> Message:
        del context
        return call(request)

    return handle
