import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from kubeloop.testing.gateway import PREDICT, Handler, Stage, answer, echo, impatient, run


def test_answer_is_streamed_as_it_comes() -> None:
    async def scenario(stage: Stage) -> None:
        was_read = asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
            await was_read.wait()
            await send({"type": "http.response.body", "body": b"second"})

        await stage.add_service()
        await stage.add_pod("a", slow)

        pieces = []
        async with stage.http.stream("POST", PREDICT, content=b"{}") as response:
            async for piece in response.aiter_bytes():
                pieces.append(piece)
                was_read.set()
        assert pieces == [b"first", b"second"]

    run(scenario)


def test_large_answer_arrives_whole() -> None:
    body = bytes(range(256)) * 20_000

    async def large(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, body)

    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_pod("a", large)

        assert (await stage.http.get(PREDICT)).content == body

    run(scenario)


@pytest.mark.parametrize("size", [10, 100_000, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_body_of_any_size_reaches_the_pod(size: int, chunked: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * (size // 10)

    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_pod("a", echo)

        content = pieces() if chunked else b"x" * size
        reply = (await stage.http.post(PREDICT, content=content)).json()

        assert reply["size"] == size
        assert ("content-length" in reply["headers"]) != chunked

    run(scenario)


def test_connections_to_pods_are_kept() -> None:
    connections: set[Any] = set()

    async def count(scope: Any, receive: Any, send: Any) -> None:
        connections.add(scope["client"])
        await answer(send, b"{}")

    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_pod("a", count)

        for _ in range(20):
            await stage.http.post(PREDICT, content=b"{}")

        assert len(connections) == 1

    run(scenario)


async def read_head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


def reply_with(reply: bytes) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(reply)

    return handler


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\n\r\nok",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
    ],
)
def test_every_way_to_end_an_answer_is_understood(reply: bytes) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_raw_pod("a", reply_with(reply))

        for _ in range(2):
            response = await stage.http.get(PREDICT)
            assert (response.status_code, response.text) == (200, "ok")

    run(scenario)


def test_head_has_no_body_whatever_its_length_says() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_raw_pod("a", reply_with(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"))

        response = await stage.http.head(PREDICT)

        assert response.headers["content-length"] == "9"

    run(scenario)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"", "it closed the connection"),
        (b"HTTP/1.1 200", "it closed the connection"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 400_000 + b"\r\n\r\n", "too long"),
    ],
)
def test_pod_that_breaks_off_is_502(reply: bytes, message: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_raw_pod("a", reply_with(reply))

        response = await stage.http.post(PREDICT, content=b"{}")

        assert response.status_code == 502
        assert message in response.json()["error"]

    run(scenario)


def test_answer_that_breaks_off_in_the_middle_is_not_passed_as_whole() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_raw_pod(
            "a", reply_with(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        )

        with pytest.raises(httpx.RemoteProtocolError):
            await stage.http.post(PREDICT, content=b"{}")

    run(scenario)


def test_pod_that_stays_silent_is_504() -> None:
    async def scenario(stage: Stage) -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        await stage.add_service()
        await stage.add_raw_pod("a", silent)

        response = await stage.http.post(PREDICT, content=b"{}")

        assert response.status_code == 504
        assert "did not answer within 0.2 s" in response.json()["error"]

    run(scenario, config=impatient(0.2))


def test_prediction_that_a_pod_may_have_begun_is_not_sent_twice() -> None:
    asked: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await read_head(reader))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        asked.append(await read_head(reader))

    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_raw_pod("a", handler)

        assert (await stage.http.post(PREDICT, content=b"{}")).status_code == 200
        assert (await stage.http.post(PREDICT, content=b"{}")).status_code == 502
        assert len(asked) == 2

    run(scenario)


def test_question_that_changes_nothing_is_asked_again_when_a_kept_connection_ends() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await read_head(reader)

    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_raw_pod("a", handler)

        statuses = [(await stage.http.get(PREDICT)).status_code for _ in range(3)]

        assert statuses == [200, 200, 200]

    run(scenario)
