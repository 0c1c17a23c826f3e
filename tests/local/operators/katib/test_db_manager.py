"""Katib's DB manager over gRPC, called by name as in a pod and by address as in a notebook."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kubeloop.local import kubelet
from kubeloop.local.grpc_front import build_proxy_env, name_service, serve_front
from kubeloop.local.operators.katib.db_manager import DbManager
from kubeloop.local.operators.katib.metrics import MetricLog
from kubeloop.local.operators.katib.observations import ObservationStore
from kubeloop.local.serving import bind

NAME = "katib-db-manager.kubeflow:6789"
REPORT = (
    "from kubeflow import katib; katib.report_metrics({'accuracy': 0.5, 'loss': 2}, timeout=20)"
)


def log(value: str, *, at: str, name: str = "accuracy") -> MetricLog:
    return MetricLog(time_stamp=at, name=name, value=value)


LOGS = [
    log("0.5", at="2024-05-01T10:00:00Z"),
    log("2", at="2024-05-01T10:00:00Z", name="loss"),
    log("0.7", at="2024-05-01T11:00:00.5Z"),
]


@asynccontextmanager
async def served(store: ObservationStore) -> AsyncIterator[str]:
    """The address of a DB manager."""
    listener = bind(0, what="DB manager", option="")
    host, port = listener.getsockname()
    async with DbManager(store) as manager:
        services = dict.fromkeys(name_service("katib-db-manager", "kubeflow", 6789), manager.locate)
        async with serve_front(listener, default=manager.locate, services=services):
            yield f"{host}:{port}"


def run(scenario: Callable[[ObservationStore, str], Awaitable[None]]) -> None:
    async def main() -> None:
        with ObservationStore() as store:
            async with served(store) as address:
                await scenario(store, address)

    asyncio.run(main())


def call(address: str, method: str, **fields: Any) -> Any:
    """A call as Katib's SDK makes it."""
    import grpc
    from kubeflow.katib import katib_api_pb2, katib_api_pb2_grpc

    with grpc.insecure_channel(address) as channel:
        stub = katib_api_pb2_grpc.DBManagerStub(channel)
        request = getattr(katib_api_pb2, f"{method}Request")(**fields)
        return getattr(stub, method)(request, timeout=20)


async def read(address: str, **fields: Any) -> list[tuple[str, str, str]]:
    reply = await asyncio.to_thread(call, address, "GetObservationLog", trial_name="t", **fields)
    return [
        (entry.time_stamp, entry.metric.name, entry.metric.value)
        for entry in reply.observation_log.metric_logs
    ]


def test_reports_are_read_by_metric_and_time() -> None:
    async def scenario(store: ObservationStore, address: str) -> None:
        store.report("t", LOGS)
        store.report("other", LOGS)

        assert await read(address) == [
            ("2024-05-01T10:00:00Z", "accuracy", "0.5"),
            ("2024-05-01T10:00:00Z", "loss", "2"),
            ("2024-05-01T11:00:00.5Z", "accuracy", "0.7"),
        ]
        assert [value for _, _, value in await read(address, metric_name="accuracy")] == [
            "0.5",
            "0.7",
        ]
        assert [
            value for _, _, value in await read(address, start_time="2024-05-01T10:30:00Z")
        ] == ["0.7"]
        assert await read(address, end_time="2024-04-30T00:00:00Z") == []

    run(scenario)


def test_a_trials_reports_are_deleted() -> None:
    async def scenario(store: ObservationStore, address: str) -> None:
        store.report("t", LOGS)

        await asyncio.to_thread(call, address, "DeleteObservationLog", trial_name="t")

        assert store.read("t") == ()

    run(scenario)


def test_reports_without_a_time_are_left_out() -> None:
    async def scenario(store: ObservationStore, address: str) -> None:
        from kubeflow.katib import katib_api_pb2 as api

        entries = [
            api.MetricLog(time_stamp=at, metric=api.Metric(name="accuracy", value="1"))
            for at in ("", "2024-05-01T10:00:00Z")
        ]

        await asyncio.to_thread(
            call,
            address,
            "ReportObservationLog",
            trial_name="t",
            observation_log=api.ObservationLog(metric_logs=entries),
        )

        assert len(store.read("t")) == 1

    run(scenario)


def test_it_says_that_it_is_healthy() -> None:
    def check(address: str, service: str) -> int:
        import grpc
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        with grpc.insecure_channel(address) as channel:
            request = health_pb2.HealthCheckRequest(service=service)
            return int(health_pb2_grpc.HealthStub(channel).Check(request, timeout=20).status)

    async def scenario(store: ObservationStore, address: str) -> None:
        for service in ("", "grpc.health.v1.Health"):
            assert await asyncio.to_thread(check, address, service) == 1

    run(scenario)


async def report_in_a_pod(address: str, *command: str) -> tuple[int, str]:
    """Run the SDK's `report_metrics` as a trial's pod does, without a word about addresses."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={
            "PATH": os.environ["PATH"],
            "KATIB_TRIAL_NAME": "t",
            "PYTHONPATH": str(Path(kubelet.__file__).parent / "shims"),
            **build_proxy_env(address),
        },
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


def test_the_sdk_reports_from_a_pod_as_on_a_cluster() -> None:
    async def scenario(store: ObservationStore, address: str) -> None:
        code, output = await report_in_a_pod(address, sys.executable, "-c", REPORT)

        assert code == 0, output
        assert {(entry.name, entry.value) for entry in store.read("t")} == {
            ("accuracy", "0.5"),
            ("loss", "2"),
        }

    run(scenario)


def test_a_name_that_nobody_has_is_refused() -> None:
    async def scenario(store: ObservationStore, address: str) -> None:
        host, port = address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))

        writer.write(b"CONNECT nobody.invalid:1 HTTP/1.1\r\nHost: nobody.invalid:1\r\n\r\n")

        assert (await reader.readline()).startswith(b"HTTP/1.1 502 ")
        writer.close()

    run(scenario)


def test_other_addresses_are_connected_as_they_are() -> None:
    async def scenario(store: ObservationStore, address: str) -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readline())
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        target = server.sockets[0].getsockname()[1]
        host, port = address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))

        writer.write(f"CONNECT 127.0.0.1:{target} HTTP/1.1\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"hello\n")

        assert await reader.readline() == b"hello\n"
        writer.close()
        server.close()

    run(scenario)


@pytest.mark.parametrize("words", [b"", b"PRI", b"\x00" * 100])
def test_clients_that_say_nothing_useful_do_no_harm(words: bytes) -> None:
    async def scenario(store: ObservationStore, address: str) -> None:
        host, port = address.split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(words)
        writer.close()
        await writer.wait_closed()

        assert await read(address) == []

    run(scenario)
