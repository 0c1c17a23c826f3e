"""A small control plane for tests: an API in memory, a kubelet that runs processes, controllers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from kubeloop.local.client import Client
from kubeloop.local.kubelet.kubelet import Kubelet, KubeletConfig
from kubeloop.local.kubelet.warm_parent import WarmConfig
from kubeloop.local.operators.controller import Controller, Reconciler
from kubeloop.testing.api import memory_api


@asynccontextmanager
async def small_plane(
    state: Path, *builds: Callable[[Client], Reconciler], warm: tuple[str, ...] = ()
) -> AsyncIterator[Client]:
    """A client of a plane that runs pods for real and drives some kinds.

    Args:
        state: Folder of the pods' files and logs.
        builds: Constructors of the reconcilers to run.
        warm: What the parent of the pods' processes has imported; it costs a cold start.
    """
    config = KubeletConfig(warm=WarmConfig(layers=(warm,) if warm else ()))
    async with (
        memory_api(pods_dir=state / "pods") as client,
        Kubelet(client, state=state, config=config),
    ):
        controllers = [
            asyncio.create_task(Controller(client, build(client)).run()) for build in builds
        ]
        try:
            yield client
        finally:
            for controller in controllers:
                controller.cancel()
            await asyncio.wait(controllers)
