import asyncio

import pytest

from kubeloop.errors import NotFoundError
from kubeloop.local.api.resources import PODS
from kubeloop.local.operators.deletion import delete_this
from kubeloop.testing.api import memory_api
from kubeloop.testing.manifests import build_pod


def test_an_object_is_deleted_once() -> None:
    async def scenario() -> None:
        async with memory_api() as client:
            pod = await client.create(build_pod("a"))

            assert await delete_this(client, PODS, pod)
            assert not await delete_this(client, PODS, pod)
            with pytest.raises(NotFoundError):
                await client.get(PODS, "a", namespace="default")

    asyncio.run(scenario())


def test_an_object_that_got_the_name_since_is_left_alone() -> None:
    async def scenario() -> None:
        async with memory_api() as client:
            first = await client.create(build_pod("a"))
            await delete_this(client, PODS, first)
            second = await client.create(build_pod("a"))

            assert not await delete_this(client, PODS, first)
            assert await client.get(PODS, "a", namespace="default") == second

    asyncio.run(scenario())
