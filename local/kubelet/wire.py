"""What the daemon and the supervisor of a process say to each other.

Both ends of a stream socket exchange JSON objects, each behind its length. This module is imported
by the warm parent, so it imports next to nothing.
"""

from __future__ import annotations

import json
import socket
from typing import Any, TypedDict

_LENGTH_BYTES = 4


class LaunchRequest(TypedDict):
    """Daemon to supervisor, once: what to run."""

    name: str
    argv: list[str]
    env: dict[str, str]
    cwd: str
    warm: bool


class Command(TypedDict):
    """Daemon to supervisor, any number of times: `signal` for the group, 9 for all descendants."""

    signal: int


class Report(TypedDict, total=False):
    """Supervisor to daemon: `pid` at the start, then `error` or `status` (as `os.waitpid`'s)."""

    pid: int
    error: str
    status: int
    at: float


def encode(message: LaunchRequest | Command | Report) -> bytes:
    """Render one message for the wire."""
    payload = json.dumps(message).encode("utf-8", "surrogatepass")
    return len(payload).to_bytes(_LENGTH_BYTES, "big") + payload


def decode(payload: bytes) -> Any:  # one of the three shapes; the reader knows which
    """Parse what followed a length."""
    return json.loads(payload.decode("utf-8", "surrogatepass"))


def parse_length(prefix: bytes) -> int:
    """Number of bytes of the payload that follows."""
    return int.from_bytes(prefix, "big")


def receive(channel: socket.socket) -> Any | None:  # see `decode`
    """Read one message, blocking; None at the end of the stream."""
    prefix = _receive_exactly(channel, _LENGTH_BYTES)
    if prefix is None:
        return None
    payload = _receive_exactly(channel, parse_length(prefix))
    return None if payload is None else decode(payload)


def _receive_exactly(channel: socket.socket, num_bytes: int) -> bytes | None:
    chunks = bytearray()
    while len(chunks) < num_bytes:
        try:
            chunk = channel.recv(num_bytes - len(chunks))
        except ConnectionError:
            return None
        if not chunk:
            return None
        chunks += chunk
    return bytes(chunks)
