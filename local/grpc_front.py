"""The one port where gRPC services of the plane answer, for users and for pods.

A user calls `127.0.0.1:<port>` and reaches Katib's DB manager. A program in a pod calls the name
that it has on a cluster, `katib-db-manager.kubeflow:6789`, which no resolver of the host knows. But
gRPC goes through the proxy that the variable `grpc_proxy` names, and leaves names to it: pods get
this port for a proxy, and it knows the plane's names. Other addresses are connected as they are.

What comes in is told apart by its first bytes: a proxy's client says CONNECT, HTTP/2 says PRI.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from kubeloop.errors import PermanentError
from kubeloop.local.serving import LOOPBACK, bind

logger = logging.getLogger(__name__)

Locate = Callable[[], Awaitable[tuple[str, int]]]
"""Host and port of a service, started if need be."""

_PREFERRED_PORT = 6789
_CHUNK = 1 << 16
_MAX_HEAD = 1 << 14
_HEAD_SECONDS = 10.0
_END = b"\r\n\r\n"
_CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_REFUSED = b"HTTP/1.1 502 Bad Gateway\r\n\r\n"


def bind_front() -> socket.socket:
    """Listen on Katib's own port for its DB manager, or on any free one if that is taken."""
    with contextlib.suppress(PermanentError):
        return bind(_PREFERRED_PORT, what="DB manager", option="")
    return bind(0, what="DB manager", option="")


def build_proxy_env(address: str) -> dict[str, str]:
    """Variables that have the gRPC clients of a pod resolve names here."""
    return {"grpc_proxy": f"http://{address}", "no_grpc_proxy": f"{LOOPBACK},localhost,::1"}


def name_service(name: str, namespace: str, port: int) -> set[str]:
    """The authorities by which a cluster's clients call a Service."""
    qualified = f"{name}.{namespace}"
    hosts = (qualified, f"{qualified}.svc", f"{qualified}.svc.cluster.local")
    return {f"{host}:{port}" for host in hosts}


@contextlib.asynccontextmanager
async def serve_front(
    listener: socket.socket, *, default: Locate, services: Mapping[str, Locate]
) -> AsyncIterator[None]:
    """Forward connections until the block is left.

    Args:
        listener: Where clients connect.
        default: The service for those who name none.
        services: Services by authority, such as `katib-db-manager.kubeflow:6789`.
    """
    connections: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await _forward(reader, writer, default, services)
        finally:
            connections.discard(task)
            writer.close()

    server = await asyncio.start_server(accept, sock=listener)
    try:
        yield
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _forward(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    default: Locate,
    services: Mapping[str, Locate],
) -> None:
    try:
        async with asyncio.timeout(_HEAD_SECONDS):
            head = await reader.readuntil(_END)  # HTTP/2's preface has a blank line too
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, OSError):
        return
    method, _, rest = head.partition(b" ")
    is_proxied = method == b"CONNECT"
    authority = rest.partition(b" ")[0].decode("ascii", "replace")
    try:
        host, port = await (_locate(authority, services) if is_proxied else default())
        upstream_reader, upstream = await asyncio.open_connection(host, port)
    except (OSError, ValueError) as error:
        logger.info("gRPC target is not reached", extra={"target": authority, "cause": error})
        if is_proxied:
            writer.write(_REFUSED)
        return
    try:
        if is_proxied:
            writer.write(_CONNECTED)
        else:
            upstream.write(head)
        async with asyncio.TaskGroup() as group:
            group.create_task(_pipe(reader, upstream))
            group.create_task(_pipe(upstream_reader, writer))
    finally:
        upstream.close()


async def _locate(authority: str, services: Mapping[str, Locate]) -> tuple[str, int]:
    if locate := services.get(authority):
        return await locate()
    host, _, port = authority.rpartition(":")
    return host.strip("[]"), int(port)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
