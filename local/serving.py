"""Several HTTP servers in one event loop, on sockets that are bound before anything starts."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn

from kubeloop.errors import PermanentError
from kubeloop.local.api.certificates import Certificate

LOOPBACK = "127.0.0.1"


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process that runs several servers."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, without waiting for idle clients to say goodbye over TLS."""
        for connection in tuple(self.server_state.connections):
            cycle = getattr(connection, "cycle", None)  # WebSockets have none
            transport = connection.transport
            if transport is None or (cycle is not None and not cycle.response_complete):
                continue
            if not transport.get_write_buffer_size():
                transport.abort()
        await asyncio.sleep(0)  # lets them be counted as gone
        await super().shutdown(sockets)


def bind(port: int, *, what: str, option: str) -> socket.socket:
    """Listen on loopback; port 0 takes any free one.

    Raises:
        PermanentError: The port is taken; the message names `what` and `option`.
    """
    # NB: asyncio turns Nagle's delays off only for sockets that say they are TCP.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        msg = (
            f"Failed to listen on {LOOPBACK}:{port} for the {what}: {error.strerror}; stop what"
            f" uses the port or choose another with {option} (0: any free one)."
        )
        raise PermanentError(msg) from error
    listener.setblocking(False)  # noqa: FBT003  # its only argument
    return listener


def url_of(listener: socket.socket, *, scheme: str = "http") -> str:
    """The base URL of a listening socket."""
    host, port = listener.getsockname()
    return f"{scheme}://{host}:{port}"


@contextlib.asynccontextmanager
async def serve(
    app: Any,  # an ASGI app
    listener: socket.socket,
    *,
    certificate: Certificate | None = None,
) -> AsyncIterator[None]:
    """Serve `app` on `listener` until the block is left; over TLS with a certificate."""
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_level="warning",
        access_log=False,
        ws="none",
        timeout_graceful_shutdown=2,
        ssl_certfile=None if certificate is None else certificate.chain,
        ssl_keyfile=None if certificate is None else str(certificate.key),
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started:
            if task.done():
                await task
            await asyncio.sleep(0.001)
        yield
    finally:
        server.should_exit = True
        try:
            await task
        finally:
            listener.close()
