"""Responses that go on: watches as lines of JSON, and logs that are followed."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kubeloop.errors import ExpiredError
from kubeloop.local.api.events import StoredEvent
from kubeloop.local.api.verbs import ApiServer
from kubeloop.local.api.watching import Watch
from kubeloop.local.client import Manifest

_BOOKMARK_SECONDS = 60.0
_INITIAL_EVENTS_END = "k8s.io/initial-events-end"


class StreamResponse(Response):
    """Sends what an iterator gives, at once, until it ends or the client goes away."""

    def __init__(self, content: AsyncIterator[bytes], *, media_type: str) -> None:
        super().__init__(media_type=media_type)
        del self.headers["content-length"]
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        del scope
        sender = asyncio.create_task(self._send(send))
        listener = asyncio.create_task(_wait_for_disconnect(receive))
        try:
            await asyncio.wait({sender, listener}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sender, listener):
                if not task.done():
                    task.cancel()
            await asyncio.gather(sender, listener, return_exceptions=True)
        if not sender.cancelled():
            sender.result()

    async def _send(self, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        async for chunk in self._content:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchOptions:
    """What a client asks of a watch."""

    resource_version: str = ""
    timeout_seconds: float | None = None
    bookmarks: bool = False
    initial_events_end: bool = False
    """Whether to mark where the existing objects end and the changes begin."""


async def stream_watch(
    api: ApiServer,
    watch: Watch | ExpiredError,
    *,
    options: WatchOptions,
    render: Callable[[StoredEvent], bytes],
    bookmark: Callable[[str, Manifest], bytes],
) -> AsyncIterator[bytes]:
    """The lines of a watch; those that are ready together are one piece.

    Args:
        api: Its end ends the stream.
        watch: What to follow, or why that cannot be done: clients want that as an event.
        options: What the client asked for.
        render: Makes the `object` of an event.
        bookmark: Makes that of a bookmark, from a resourceVersion and annotations.
    """
    started = time.monotonic()
    deadline = started + (options.timeout_seconds or math.inf)
    next_bookmark, marks_end = started + _BOOKMARK_SECONDS, options.initial_events_end
    while True:
        events = _read(watch)
        if isinstance(events, ExpiredError):
            yield _line("ERROR", orjson.dumps(events.to_status()))
            return
        now = time.monotonic()
        over = api.is_closed or now >= deadline
        lines = [_line(event.type.value, render(event)) for event in events]
        version = str(api.storage.resource_version)
        if marks_end:
            lines.append(_line("BOOKMARK", bookmark(version, {_INITIAL_EVENTS_END: "true"})))
            marks_end = False
        elif options.bookmarks and (over or now >= next_bookmark):
            lines.append(_line("BOOKMARK", bookmark(version, {})))
            next_bookmark = now + _BOOKMARK_SECONDS
        if lines:
            yield b"".join(lines)
        if over:
            return
        await _wait(watch, min(next_bookmark, deadline) - now)


def _read(watch: Watch | ExpiredError) -> list[StoredEvent] | ExpiredError:
    if isinstance(watch, ExpiredError):
        return watch
    try:
        return watch.read()
    except ExpiredError as error:
        return error


async def _wait(watch: Watch | ExpiredError, seconds: float) -> None:
    assert isinstance(watch, Watch)
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await watch.wait()
    except TimeoutError:
        return


def _line(type_: str, raw: bytes) -> bytes:
    return b'{"type":"%b","object":%b}\n' % (type_.encode(), raw)
