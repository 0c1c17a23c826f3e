"""Asks the model server's application without a port: one request, or several on one server."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from kubeloop.kserve.server.app import AppConfig, build_app
from kubeloop.kserve.server.dataplane import DataPlane
from kubeloop.kserve.server.metrics import ServerMetrics
from kubeloop.kserve.server.repository import ModelRepository, find_packages

LENGTH = "inference-header-content-length"
RED = [[[250, 10, 10]] * 4] * 3
BLUE = [[[10, 10, 250]] * 4] * 3
PREDICT = "/v1/models/colors:predict"
INFER = "/v2/models/colors/infer"

Check = Callable[[httpx.AsyncClient, DataPlane], Awaitable[None]]


@asynccontextmanager
async def serving(
    folder: Path,
    *,
    name: str = "colors",
    load: bool = True,
    max_body_bytes: int = 1 << 20,
    variant: str = "",
) -> AsyncIterator[tuple[httpx.AsyncClient, DataPlane]]:
    metrics = ServerMetrics()
    folders = find_packages(folder, model_name=name)
    repository = ModelRepository(folders, metrics=metrics, variant=variant)
    if load:
        await repository.load_all()
    plane = DataPlane(repository)
    app = build_app(plane, metrics=metrics, config=AppConfig(max_body_bytes=max_body_bytes))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://model") as client:
        yield client, plane
    await repository.close()


def run(folder: Path, check: Check, **options: Any) -> None:
    async def main() -> None:
        async with serving(folder, **options) as (client, plane):
            await check(client, plane)

    asyncio.run(main())


def get(folder: Path, path: str, **options: Any) -> httpx.Response:
    return ask(folder, "GET", path, **options)


def post(folder: Path, path: str, content: Any, **options: Any) -> httpx.Response:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    headers = options.pop("headers", {"content-type": "application/json"})
    return ask(folder, "POST", path, content=body, headers=headers, **options)


def ask(
    folder: Path,
    method: str,
    path: str,
    *,
    content: bytes | None = None,
    headers: dict[str, str] | None = None,
    **options: Any,
) -> httpx.Response:
    replies: list[httpx.Response] = []

    async def check(client: httpx.AsyncClient, _: DataPlane) -> None:
        replies.append(await client.request(method, path, content=content, headers=headers))

    run(folder, check, **options)
    return replies[0]


def png(color: tuple[int, int, int], size: tuple[int, int] = (5, 6)) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def tensor(**fields: Any) -> dict[str, Any]:
    image = {"name": "image", "shape": [1, 1, 1, 3], "datatype": "UINT8", "data": [250, 10, 10]}
    return {"inputs": [{**image, **fields}]}
