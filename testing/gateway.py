"""A gateway on a port of its own, the API that it follows, and pods behind it that tests write."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from kubeloop.local.api.memory import MemoryClient
from kubeloop.local.api.resources import PODS
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
        del scope
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
