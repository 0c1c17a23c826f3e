from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kubeloop.local.kubelet.probes import ProbeResult, ProbeTarget, run_probe, watch_probe


async def refuse(command: list[str], timeout_seconds: float) -> tuple[int, str]:
    raise AssertionError(command, timeout_seconds)


def build_target(port: int, *, run_command: Any = refuse) -> ProbeTarget:  # a coroutine function
    container = {"name": "main", "ports": [{"name": "http", "containerPort": 8080}]}
    return ProbeTarget(container=container, host_ports={8080: port}, run_command=run_command)


def serve(answer: bytes, scenario: Callable[[int, list[bytes]], Awaitable[None]]) -> None:
    requests: list[bytes] = []

    handled = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
        writer.close()
        handled.set()

    async def run() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        async with server:
            await scenario(server.sockets[0].getsockname()[1], requests)
            await handled.wait()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "success"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.0 302 Found\r\n\r\n", True),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", False),
        (b"HTTP/1.1 503 Unavailable\r\n\r\n", False),
        (b"hello\r\n", False),
        (b"", False),
    ],
)
def test_http_probe_judges_the_status(answer: bytes, success: bool) -> None:
    async def scenario(port: int, requests: list[bytes]) -> None:
        probe = {
            "httpGet": {
                "path": "/healthz?full=1",
                "port": "http",
                "httpHeaders": [{"name": "X-Probe", "value": "yes"}],
            }
        }
        assert (await run_probe(probe, build_target(port))).success is success
        assert requests[0].startswith(b"GET /healthz?full=1 HTTP/1.1\r\n")
        assert b"X-Probe: yes\r\n" in requests[0]

    serve(answer, scenario)


def test_tcp_probe_succeeds_when_somebody_listens() -> None:
    async def scenario(port: int, requests: list[bytes]) -> None:
        probe = {"tcpSocket": {"port": 8080}}
        assert (await run_probe(probe, build_target(port))).success

    serve(b"", scenario)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        result = asyncio.run(run_probe({"tcpSocket": {"port": 8080}}, build_target(port)))
    assert not result.success


def test_command_probe_judges_the_exit_code() -> None:
    async def run(command: list[str], timeout_seconds: float) -> tuple[int, str]:
        return (0, "") if command == ["check"] else (1, "not yet")

    def ask(command: str) -> ProbeResult:
        probe = {"exec": {"command": [command]}}
        return asyncio.run(run_probe(probe, build_target(0, run_command=run)))

    assert ask("check").success
    assert ask("other") == ProbeResult(success=False, message="not yet")


def test_probe_that_does_not_answer_in_time_fails() -> None:
    async def hang(command: list[str], timeout_seconds: float) -> tuple[int, str]:
        await asyncio.sleep(600)
        raise AssertionError

    probe = {"exec": {"command": ["x"]}, "timeoutSeconds": 0.01}
    result = asyncio.run(run_probe(probe, build_target(0, run_command=hang)))

    assert result == ProbeResult(success=False, message="no answer within 0.01 s")


def test_thresholds_decide_what_is_told() -> None:
    answers = iter([1, 0, 0, 1, 1, 1, 0])
    told: list[str] = []

    async def run(command: list[str], timeout_seconds: float) -> tuple[int, str]:
        try:
            return next(answers), "bad"
        except StopIteration:
            raise asyncio.CancelledError from None

    probe = {
        "exec": {"command": ["x"]},
        "periodSeconds": 0.001,
        "successThreshold": 2,
        "failureThreshold": 3,
    }
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(
            watch_probe(
                probe,
                build_target(0, run_command=run),
                on_success=lambda: told.append("success"),
                on_failure=told.append,
                until_success=False,
            )
        )

    assert told == ["success", "bad"]
