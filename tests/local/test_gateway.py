import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import pytest
from kubeloop.local.api.memory import MemoryClient
from kubeloop.local.api.resources import INFERENCE_SERVICES, PODS
from kubeloop.local.client import Manifest
from kubeloop.local.gateway import Gateway, GatewayConfig
from kubeloop.local.serving import bind, serve, url_of
from kubeloop.local.upstream import UpstreamConfig
from kubeloop.testing.api import memory_api
from kubeloop.testing.waiting import wait_until

PREDICT = "/serving/default/digits/v1/models/digits:predict"
LABELS = {"app": "isvc.digits-predictor", "serving.kserve.io/inferenceservice": "digits"}

App = Callable[[Any, Any, Any], Awaitable[None]]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with what it was asked."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    reply = {
        "method": scope["method"],
        "path": scope["raw_path"].decode(),
        "query": scope["query_string"].decode(),
        "headers": {key.decode(): value.decode() for key, value in scope["headers"]},
        "size": len(body),
        "body": body[:100].decode("latin-1"),
    }
    await answer(send, json.dumps(reply).encode())


async def answer(send: Any, body: bytes, *, status: int = 200) -> None:
    length = str(len(body)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length)]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def named(name: str) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await answer(send, name.encode())

    return app


@dataclass(kw_only=True)
class Stage:
    """A gateway on a port, the API that it follows, and the pods behind it."""

    url: str
    client: MemoryClient
    gateway: Gateway
    http: httpx.AsyncClient
    stack: AsyncExitStack
    ports: dict[str, int] = field(default_factory=dict)

    async def add_service(self, name: str = "digits", *, namespace: str = "default") -> None:
        model = {"modelFormat": {"name": "kubeloop"}, "storageUri": "/m"}
        await self.client.create(
            {
                "apiVersion": "serving.kserve.io/v1beta1",
                "kind": "InferenceService",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {"predictor": {"model": model}},
            }
        )
        await self.client.create(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {
                    "name": f"{name}-predictor",
                    "namespace": namespace,
                    "labels": {"serving.kserve.io/inferenceservice": name},
                },
                "spec": {
                    "selector": {"app": f"isvc.{name}-predictor"},
                    "ports": [{"port": 80, "targetPort": 8080}],
                },
            }
        )
        await wait_until(lambda: self.gateway.table.find(namespace, name) is not None)

    async def add_pod(self, name: str, app: App | None = None, *, port: int = 0) -> None:
        if app is not None:
            listener = bind(0, what="pod", option="-")
            port = listener.getsockname()[1]
            await self.stack.enter_async_context(serve(app, listener))
        self.ports[name] = port
        pod = await self.client.create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": "default",
                    "labels": LABELS,
                    "annotations": {"kubeloop.dev/host-ports": json.dumps({"8080": port})},
                },
                "spec": {"containers": [{"name": "kserve-container", "image": "x"}]},
            }
        )
        pod["status"] = {"podIP": "127.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
        await self.client.replace_status(pod)
        await wait_until(lambda: name in self.backends())

    async def add_raw_pod(self, name: str, handler: Handler) -> None:
        """A pod that need not speak HTTP well."""

        async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await handler(reader, writer)
            finally:
                writer.close()

        server = await asyncio.start_server(run, "127.0.0.1", 0)
        self.stack.push_async_callback(server.wait_closed)
        self.stack.callback(server.close)
        await self.add_pod(name, port=server.sockets[0].getsockname()[1])

    async def remove_pod(self, name: str) -> None:
        await self.client.delete(PODS, name, namespace="default", grace_period_seconds=0)
        await wait_until(lambda: name not in self.backends())

    def backends(self) -> list[str]:
        route = self.gateway.table.find("default", "digits")
        return [backend.pod for backend in route.backends] if route else []


Scenario = Callable[[Stage], Awaitable[None]]


@asynccontextmanager
async def running_gateway(config: GatewayConfig | None) -> AsyncIterator[Stage]:
    async with memory_api() as client, AsyncExitStack() as stack:
        gateway = Gateway(client, config=config)
        listener = bind(0, what="gateway", option="--gateway-port")
        follower = asyncio.create_task(gateway.run())
        try:
            async with (
                serve(gateway, listener),
                httpx.AsyncClient(base_url=url_of(listener), timeout=10) as http,
            ):
                yield Stage(
                    url=url_of(listener), client=client, gateway=gateway, http=http, stack=stack
                )
                await stack.aclose()
        finally:
            follower.cancel()
            with suppress(asyncio.CancelledError):
                await follower


def run(scenario: Scenario, *, config: GatewayConfig | None = None) -> None:
    async def main() -> None:
        async with running_gateway(config) as stage:
            await scenario(stage)

    asyncio.run(main())


def impatient(seconds: float) -> GatewayConfig:
    return GatewayConfig(upstream=UpstreamConfig(read_seconds=seconds))


def test_request_reaches_the_pod_below_the_prefix() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_pod("a", echo)

        response = await stage.http.post(f"{PREDICT}?x=1&y=%2F", content=b"[1]")

        reply = response.json()
        assert response.status_code == 200
        assert reply["method"] == "POST"
        assert reply["path"] == "/v1/models/digits:predict"
        assert reply["query"] == "x=1&y=%2F"
        assert reply["body"] == "[1]"
        assert reply["headers"]["kserve-isvc-name"] == "digits"
        assert reply["headers"]["kserve-isvc-namespace"] == "default"

    run(scenario)


def test_header_fields_of_one_connection_stay_there() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_pod("a", echo)
        headers = {"connection": "keep-alive, x-own", "x-own": "1", "te": "gzip", "x-kept": "2"}

        reply = (await stage.http.post(PREDICT, content=b"", headers=headers)).json()

        assert reply["headers"]["x-kept"] == "2"
        assert not {"connection", "x-own", "te"} & set(reply["headers"])

    run(scenario)


def test_path_is_passed_on_as_it_was_written() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_pod("a", echo)

        reply = (await stage.http.get("/serving/default/digits/a%2Fb/%C3%A4?q")).json()

        assert reply["path"] == "/a%2Fb/%C3%A4"

    run(scenario)


@pytest.mark.parametrize(
    "host",
    [
        "digits-default.example.com",
        "digits-predictor.default",
        "digits-predictor.default.svc.cluster.local",
        "digits.default.svc:80",
    ],
)
def test_host_name_of_an_endpoint_leads_to_it(host: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_pod("a", echo)

        response = await stage.http.get("/v2/models", headers={"host": host})

        assert response.json()["path"] == "/v2/models"

    run(scenario)


@pytest.mark.parametrize("host", ["evil.example.org", "digits", "10.0.0.1", "127.0.0.1.evil.org"])
def test_foreign_host_is_refused(host: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_pod("a", echo)

        response = await stage.http.get(PREDICT, headers={"host": host})

        assert response.status_code == 403
        assert "neither loopback" in response.json()["error"]

    run(scenario)


@pytest.mark.parametrize(
    ("origin", "status"),
    [("https://evil.example.org", 403), ("null", 403), ("http://localhost:3000", 200)],
)
def test_page_of_another_origin_is_refused(origin: str, status: int) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_pod("a", echo)

        response = await stage.http.post(PREDICT, content=b"", headers={"origin": origin})

        assert response.status_code == status

    run(scenario)


def test_model_path_alone_finds_the_endpoint_of_its_name() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_pod("a", echo)

        found = await stage.http.get("/v2/models/digits/ready")
        missing = await stage.http.get("/v1/models/other:predict")

        assert found.json()["path"] == "/v2/models/digits/ready"
        assert missing.status_code == 404

    run(scenario)


def test_unknown_endpoint_is_404_and_says_where_to_look() -> None:
    async def scenario(stage: Stage) -> None:
        response = await stage.http.get("/serving/default/other/v2")

        assert response.status_code == 404
        assert "no endpoint default/other" in response.json()["error"]

    run(scenario)


def test_endpoint_without_a_ready_pod_is_503_with_its_reason() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        service = await stage.client.get(INFERENCE_SERVICES, "digits", namespace="default")
        condition = {"type": "Ready", "status": "False", "reason": "Why", "message": "because"}
        service["status"] = {"conditions": [condition]}
        await stage.client.replace_status(service)
        await wait_until(lambda: "because" in read_reason(stage))

        response = await stage.http.post(PREDICT, content=b"{}")

        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert response.json()["error"] == ("Endpoint default/digits is not ready: Why: because.")

    run(scenario)


def reached(statuses: list[int], goal: int) -> bool:
    return len(statuses) >= goal


def read_reason(stage: Stage) -> str:
    route = stage.gateway.table.find("default", "digits")
    return route.reason if route else ""


def test_own_pages_list_the_endpoints() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_pod("a", echo)

        reply = (await stage.http.get("/healthz")).json()

        assert reply["status"] == "ok"
        assert reply["endpoints"] == [
            {
                "namespace": "default",
                "name": "digits",
                "ready": True,
                "path": "/serving/default/digits",
            }
        ]
        assert (await stage.http.get("/nonsense")).status_code == 404

    run(scenario)


def test_pods_take_turns_and_a_dead_one_is_skipped() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_pod("a", named("a"))
        await stage.add_pod("b", named("b"))
        closed = bind(0, what="pod", option="-")
        port = closed.getsockname()[1]
        closed.close()
        await stage.add_pod("dead", port=port)

        replies = [(await stage.http.post(PREDICT, content=b"{}")).text for _ in range(12)]

        assert set(replies) == {"a", "b"}

    run(scenario)


def test_pods_that_are_all_dead_are_503() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        closed = bind(0, what="pod", option="-")
        port = closed.getsockname()[1]
        closed.close()
        await stage.add_pod("dead", port=port)

        response = await stage.http.post(PREDICT, content=b"{}")

        assert response.status_code == 503
        assert "none of its 1 pods accepts connections" in response.json()["error"]

    run(scenario)


def test_pod_that_is_to_be_deleted_gets_no_more_requests() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_pod("a", named("a"))
        await stage.add_pod("b", named("b"))
        pod = await stage.client.get(PODS, "a", namespace="default")
        pod["spec"]["nodeName"] = "node"
        await stage.client.replace(pod)

        await stage.client.delete(PODS, "a", namespace="default", grace_period_seconds=30)
        await wait_until(lambda: stage.backends() == ["b"])

        replies = [(await stage.http.post(PREDICT, content=b"{}")).text for _ in range(4)]
        assert set(replies) == {"b"}

    run(scenario)


def test_no_request_fails_while_pods_are_replaced() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_pod("pod-0", named("0"))
        statuses: list[int] = []
        done = asyncio.Event()

        async def ask() -> None:
            while not done.is_set():
                statuses.append((await stage.http.post(PREDICT, content=b"{}")).status_code)

        asking = [asyncio.create_task(ask()) for _ in range(4)]
        for number in range(1, 6):
            await stage.add_pod(f"pod-{number}", named(str(number)))
            await stage.remove_pod(f"pod-{number - 1}")
            goal = len(statuses) + 20
            await wait_until(partial(reached, statuses, goal))
        done.set()
        await asyncio.gather(*asking)

        assert set(statuses) == {200}

    run(scenario)


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


def test_route_is_gone_with_its_endpoint() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_pod("a", echo)

        await stage.client.delete(INFERENCE_SERVICES, "digits", namespace="default")
        await wait_until(lambda: stage.gateway.table.find("default", "digits") is None)

        assert (await stage.http.get(PREDICT)).status_code == 404

    run(scenario)


def test_endpoints_of_one_name_in_two_namespaces_are_told_apart() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_service(namespace="kubeflow")
        await stage.add_pod("a", named("a"))

        here = await stage.http.get("/serving/default/digits/")
        there: Manifest = (await stage.http.get("/serving/kubeflow/digits/")).json()

        assert here.text == "a"
        assert "kubeflow/digits is not ready" in there["error"]
        assert (await stage.http.get("/v2/models/digits/ready")).status_code == 404

    run(scenario)
