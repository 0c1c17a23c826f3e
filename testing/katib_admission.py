"""Tries Katib's webhooks on a fresh API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kubeloop.errors import ApiError
from kubeloop.local.client import Client, Manifest
from kubeloop.testing.api import memory_api
from kubeloop.testing.katib_lab import build_experiment


def run(scenario: Callable[[Client], Awaitable[None]]) -> None:
    async def main() -> None:
        async with memory_api() as client:
            await scenario(client)

    asyncio.run(main())


def create(experiment: Manifest) -> Manifest:
    stored: list[Manifest] = []

    async def scenario(client: Client) -> None:
        stored.append(await client.create(experiment))

    run(scenario)
    return stored[0]


def refuse(experiment: Manifest) -> str:
    """The text of the webhook's refusal."""
    with pytest.raises(ApiError) as caught:
        create(experiment)
    assert (caught.value.status, caught.value.reason) == (400, "BadRequest")
    prefix = 'admission webhook "validator.experiment.katib.kubeflow.org" denied the request: '
    assert caught.value.message.startswith(prefix)
    return caught.value.message.removeprefix(prefix)


def with_template(**changes: Any) -> Manifest:  # any part of the template
    template = {**build_experiment()["spec"]["trialTemplate"], **changes}
    return build_experiment(
        trialTemplate={key: value for key, value in template.items() if value is not None}
    )
