"""How fast the Kubernetes API answers over HTTPS: `python tests/bench/bench_api.py`.

The server runs in a process of its own, as in the control plane; this process is the client, and
on a machine of two cores it takes one of them. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import ssl
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import orjson
import uvloop

from kubeloop.testing.manifests import build_pod
from kubeloop.testing.servers import TOKEN, running_api

_COLLECTION = "/api/v1/namespaces/default/pods"


def serve_until_told(folder: Path, pipe: Connection) -> None:
    async def main() -> None:
        async with running_api(folder) as running:
            pipe.send((running.url, str(folder / "certificates" / "ca.crt")))
            await asyncio.to_thread(pipe.recv)

    uvloop.run(main())


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, str]]:
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=serve_until_told, args=(folder, theirs))
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.send(None)
        process.join()


class Connection11:
    """One kept-alive HTTP/1.1 connection: a client that costs next to nothing."""

    def __init__(self, url: str, authority: str) -> None:
        self._host, port = url.removeprefix("https://").split(":")
        self._port = int(port)
        self._tls = ssl.create_default_context(cafile=authority)

    async def open(self) -> Connection11:
        self._reader, self._writer = await asyncio.open_connection(
            self._host, self._port, ssl=self._tls, limit=1 << 26
        )
        return self

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def send(self, method: str, path: str, body: bytes = b"") -> None:
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)

    async def call(self, method: str, path: str, body: bytes = b"") -> bytes:
        await self.send(method, path, body)
        head = await self._reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        answer = await self._reader.readexactly(length)
        assert status < 300, answer
        return answer

    async def lines(self) -> list[bytes]:
        """The lines of the next chunk of a streamed answer."""
        size = int(await self._reader.readline(), 16)
        chunk = await self._reader.readexactly(size)
        await self._reader.readline()
        return chunk.splitlines()

    async def skip_head(self) -> None:
        await self._reader.readuntil(b"\r\n\r\n")


async def measure(url: str, authority: str, *, num_objects: int) -> None:
    connections = [await Connection11(url, authority).open() for _ in range(4)]
    bodies = [orjson.dumps(build_pod(f"pod-{index:05}")) for index in range(num_objects)]
    creates = await rate(connections, "POST", [_COLLECTION] * num_objects, bodies)
    print(f"creates/s        {creates:8.0f}")
    paths = [f"{_COLLECTION}/pod-{index:05}" for index in range(num_objects)]
    gets = await rate(connections, "GET", paths, [b""] * num_objects)
    print(f"gets/s           {gets:8.0f}")
    started = time.perf_counter()
    answer = await connections[0].call("GET", _COLLECTION)
    fetched = time.perf_counter() - started
    assert len(orjson.loads(answer)["items"]) == num_objects
    print(f"list of {num_objects}    {fetched:8.3f} s  ({len(answer) / 1e6:.1f} MB)")
    updates = await update_rate(connections[0], paths[:1000])
    print(f"updates/s        {updates:8.0f}  (get and put, one connection)")
    await latency(url, authority, connections[0])
    for connection in connections:
        await connection.close()


async def rate(
    connections: list[Connection11], method: str, paths: list[str], bodies: list[bytes]
) -> float:
    """Requests a second over all connections."""
    requests = iter(zip(paths, bodies, strict=True))

    async def work(connection: Connection11) -> None:
        for path, body in requests:
            await connection.call(method, path, body)

    started = time.perf_counter()
    await asyncio.gather(*(work(connection) for connection in connections))
    return len(paths) / (time.perf_counter() - started)


async def update_rate(connection: Connection11, paths: list[str]) -> float:
    started = time.perf_counter()
    for path in paths:
        stored = orjson.loads(await connection.call("GET", path))
        stored["metadata"]["labels"] = {"bench": "1"}
        await connection.call("PUT", path, orjson.dumps(stored))
    return len(paths) / (time.perf_counter() - started)


async def latency(url: str, authority: str, writer: Connection11, *, num_events: int = 500) -> None:
    """From the sending of a write until a watcher has its event."""
    watcher = await Connection11(url, authority).open()
    listed = orjson.loads(await writer.call("GET", f"{_COLLECTION}?limit=1"))
    version = listed["metadata"]["resourceVersion"]
    await watcher.send("GET", f"{_COLLECTION}?watch=1&resourceVersion={version}")
    await watcher.skip_head()
    seconds = []
    for index in range(num_events):
        started = time.perf_counter()
        creating = asyncio.create_task(
            writer.call("POST", _COLLECTION, orjson.dumps(build_pod(f"watched-{index}")))
        )
        await watcher.lines()
        seconds.append(time.perf_counter() - started)
        await creating
    milliseconds = sorted(1000 * second for second in seconds)
    p50, p99 = statistics.median(milliseconds), milliseconds[int(0.99 * num_events)]
    print(f"watch event      {p50:8.2f} ms p50, {p99:.2f} ms p99")
    await watcher.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=10_000, help="how many pods to create")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as (url, authority):
        uvloop.run(measure(url, authority, num_objects=arguments.objects))


if __name__ == "__main__":
    main()
