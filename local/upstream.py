"""HTTP/1.1 towards pods: a pool of connections and one exchange at a time on each.

A general HTTP client costs more than many a prediction. This one does what a proxy needs: header
fields pass as bytes, bodies stream both ways with flow control, connections are kept. Parsing is
httptools', as in uvicorn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import cast

import httptools

Headers = list[tuple[bytes, bytes]]
Address = tuple[str, int]

_MAX_BUFFERED_BYTES = 256 << 10
_MAX_HEAD_BYTES = 64 << 10
_REPEATABLE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})


class ConnectFailedError(Exception):
    """Nobody accepts connections; nothing was sent."""


class BrokenOffError(Exception):
    """The connection ended, or made no sense, before the answer was whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamConfig:
    """Limits of the connections to pods."""

    connect_seconds: float = 2.0
    """How long a pod may take to accept a connection."""
    read_seconds: float = 300.0
    """How long a pod may be silent while it answers."""
    idle_seconds: float = 4.0
    """How long an unused connection is kept; below the 5 s after which uvicorn closes it."""
    max_connections: int = 256
    """Connections in use at once; further requests wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamRequest:
    """What is sent: header fields are complete but for the body's framing."""

    method: bytes
    target: bytes
    headers: Headers
    body: bytes | AsyncIterator[bytes]
    """The whole body, or its pieces; pieces need `content-length` among the headers, or are sent
    chunked."""


class UpstreamPool:
    """Connections to pods; `close` ends the idle ones."""

    def __init__(self, config: UpstreamConfig | None = None) -> None:
        self._config = config or UpstreamConfig()
        self._idle: dict[Address, deque[tuple[_Connection, float]]] = {}
        self._free = asyncio.Semaphore(self._config.max_connections)

    async def send(self, address: Address, request: UpstreamRequest) -> UpstreamResponse:
        """Send a request and wait for the head of the answer; close the answer in any case.

        Raises:
            ConnectFailedError: The pod does not accept connections.
            BrokenOffError: The connection ended before an answer began.
            TimeoutError: The pod was silent for too long.
        """
        await self._free.acquire()
        try:
            return await self._send(address, request)
        except BaseException:
            self._free.release()
            raise

    def close(self) -> None:
        """End the idle connections."""
        for connections in self._idle.values():
            for connection, _ in connections:
                connection.abort()
        self._idle.clear()

    async def _send(self, address: Address, request: UpstreamRequest) -> UpstreamResponse:
        connection = self._take_idle(address)
        if connection is not None:
            try:
                return await self._exchange(connection, address, request)
            except BrokenOffError:
                repeatable = isinstance(request.body, bytes) and request.method in _REPEATABLE
                if connection.has_received or not repeatable:
                    raise
        connection = await self._connect(address)
        return await self._exchange(connection, address, request)

    async def _exchange(
        self, connection: _Connection, address: Address, request: UpstreamRequest
    ) -> UpstreamResponse:
        try:
            await connection.send(request)
            async with asyncio.timeout(self._config.read_seconds):
                status, headers = await connection.head
        except BaseException:
            connection.abort()
            raise
        return UpstreamResponse(
            status=status,
            headers=headers,
            connection=connection,
            read_seconds=self._config.read_seconds,
            release=lambda: self._release(address, connection),
        )

    async def _connect(self, address: Address) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._config.connect_seconds):
                _, connection = await loop.create_connection(
                    lambda: _Connection(read_seconds=self._config.read_seconds), *address
                )
        except (OSError, TimeoutError) as error:
            raise ConnectFailedError(str(error)) from error
        return connection

    def _take_idle(self, address: Address) -> _Connection | None:
        idle = self._idle.get(address)
        oldest = asyncio.get_running_loop().time() - self._config.idle_seconds
        while idle:
            connection, since = idle.pop()
            if since >= oldest and connection.is_open:
                return connection
            connection.abort()
        return None

    def _release(self, address: Address, connection: _Connection) -> None:
        self._free.release()
        if not connection.can_be_reused:
            connection.abort()
            return
        now = asyncio.get_running_loop().time()
        idle = self._idle.setdefault(address, deque())
        idle.append((connection, now))
        while idle and idle[0][1] < now - self._config.idle_seconds:
            idle.popleft()[0].abort()


class UpstreamResponse:
    """The head of an answer, and its body as it comes."""

    def __init__(
        self,
        *,
        status: int,
        headers: Headers,
        connection: _Connection,
        read_seconds: float,
        release: Callable[[], None],
    ) -> None:
        self.status = status
        self.headers = headers
        self._connection = connection
        self._read_seconds = read_seconds
        self._release: Callable[[], None] | None = release

    def take_whole(self) -> bytes | None:
        """The body if all of it is here already, which is usual for predictions."""
        return self._connection.take_whole()

    async def stream(self) -> AsyncIterator[bytes]:
        """The pieces of the body.

        Raises:
            BrokenOffError: The connection ended before the body did.
            TimeoutError: The pod was silent for too long.
        """
        while (piece := self._connection.take()) or not self._connection.is_complete:
            if piece:
                yield piece
                continue
            async with asyncio.timeout(self._read_seconds):
                await self._connection.wait_for_more()

    def close(self) -> None:
        """Give the connection back, or end it when the body was not read to its end."""
        if self._release is not None:
            self._release()
            self._release = None


class _Connection(asyncio.Protocol):
    """One connection; callbacks whose names begin with `on_` are the parser's."""

    def __init__(self, *, read_seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._read_seconds = read_seconds
        self.head: asyncio.Future[tuple[int, Headers]] = self._loop.create_future()
        self._changed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._error: BrokenOffError | None = None
        self._is_sent = True
        self._begin(expects_body=True)

    def _begin(self, *, expects_body: bool) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._give_up_head()
        self.head = self._loop.create_future()
        self._headers: Headers = []
        self._num_head_bytes = 0
        self._pieces: deque[bytes] = deque()
        self._num_buffered = 0
        self._is_paused = False
        self._expects_body = expects_body
        self._keeps_alive = False
        self.is_complete = False
        self.has_received = False

    @property
    def is_open(self) -> bool:
        return self._error is None and not self._transport.is_closing()

    @property
    def can_be_reused(self) -> bool:
        return self.is_open and self.is_complete and self._is_sent and self._keeps_alive

    def abort(self) -> None:
        self._transport.abort()
        self._give_up_head()

    def _give_up_head(self) -> None:
        if not self.head.cancel() and not self.head.cancelled():
            self.head.exception()  # seen: nobody else will ask

    async def send(self, request: UpstreamRequest) -> None:
        if self._error is not None:
            raise self._error
        self._begin(expects_body=request.method != b"HEAD")
        self._is_sent = False
        head = [request.method, b" ", request.target, b" HTTP/1.1\r\n"]
        for name, value in request.headers:
            head += [name, b": ", value, b"\r\n"]
        if isinstance(request.body, bytes):
            self._transport.write(b"".join([*head, b"\r\n", request.body]))
        else:
            chunked = all(name != b"content-length" for name, _ in request.headers)
            head.append(b"transfer-encoding: chunked\r\n\r\n" if chunked else b"\r\n")
            self._transport.write(b"".join(head))
            if not await self._send_pieces(request.body, chunked=chunked):
                return  # it answered before it had read everything
        self._is_sent = True

    async def _send_pieces(self, pieces: AsyncIterator[bytes], *, chunked: bool) -> bool:
        async for piece in pieces:
            if self.head.done():
                return False
            self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            async with asyncio.timeout(self._read_seconds):
                await self._writable.wait()
        if chunked:
            self._transport.write(b"0\r\n\r\n")
        return True

    def take(self) -> bytes:
        if not self._pieces:
            if self._error is not None and not self.is_complete:
                raise self._error
            return b""
        piece = self._pieces.popleft()
        self._num_buffered -= len(piece)
        if self._is_paused and self._num_buffered < _MAX_BUFFERED_BYTES and self.is_open:
            self._is_paused = False
            self._transport.resume_reading()
        return piece

    def take_whole(self) -> bytes | None:
        if not self.is_complete:
            return None
        whole = b"".join(self._pieces)
        self._pieces.clear()
        return whole

    async def wait_for_more(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if not self.has_received and self.is_complete:
            self._transport.abort()  # it speaks without being asked
            return
        self.has_received = True
        if not self.head.done():
            self._num_head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._break_off(f"it does not speak HTTP/1.1: {error}")
        if not self.head.done() and self._num_head_bytes > _MAX_HEAD_BYTES:
            self._break_off("the head of its answer is too long")
        self._changed.set()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if self.head.done() and not self.is_complete and not self._is_framed:
            self.is_complete = True  # a body without a length ends with its connection
        self._break_off(str(error) if error else "it closed the connection")
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    @property
    def _is_framed(self) -> bool:
        return any(name in (b"content-length", b"transfer-encoding") for name, _ in self._headers)

    def _break_off(self, cause: str) -> None:
        if self._error is None:
            self._error = BrokenOffError(cause)
        if not self.head.done():
            self.head.set_exception(self._error)
        self._changed.set()
        self._transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            self._headers = []  # an interim answer; the real one follows
            return
        if not self.head.done():
            self.head.set_result((status, self._headers))
        if not self._expects_body:
            self.is_complete = True  # HEAD: whatever the lengths say

    def on_body(self, data: bytes) -> None:
        self._pieces.append(data)
        self._num_buffered += len(data)
        if self._num_buffered > _MAX_BUFFERED_BYTES and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() >= 200:
            self._keeps_alive = bool(self._parser.should_keep_alive())
            self.is_complete = True
