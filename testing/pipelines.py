"""The KFP API and the engine on a loopback port, for tests that talk to it with KFP's client.

The client blocks, so everything that serves it runs in an event loop of its own, in a thread. The
Kubernetes API behind it outlives the engine and the kubelet: a test may stop either in the middle
of a run and start it again, as a restart of the control plane does.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from kubeloop.local.api.resources import PODS
from kubeloop.local.client import Client
from kubeloop.local.kubelet.kubelet import Kubelet, KubeletConfig
from kubeloop.local.kubelet.scheduling import NodeConfig
from kubeloop.local.kubelet.warm_parent import WarmConfig
from kubeloop.local.pipelines.api import Pipelines, PipelinesConfig
from kubeloop.local.serving import bind, serve, url_of
from kubeloop.testing.api import memory_api

T = TypeVar("T")

TOKEN = "token-of-tests"  # noqa: S105  # guards nothing
_START_SECONDS = 30.0
_KUBELET = KubeletConfig(
    node=NodeConfig(num_gpus=2),
    warm=WarmConfig(layers=(("kfp", "kfp.dsl.executor_main", "minio"),)),
    shutdown_grace_seconds=1.0,
)


class PipelinesStage:
    """A Kubernetes API, something that runs Pods, and the pipelines part on top."""

    def __init__(self, folder: Path, *, max_active_pods: int) -> None:
        self.folder = folder
        self.pipeline_root = folder / "artifacts"
        self._max_active_pods = max_active_pods
        self._loop = asyncio.new_event_loop()
        self._stop: asyncio.Event | None = None
        self._engine: asyncio.Task[None] | None = None
        self._kubelet: asyncio.Task[None] | None = None
        self._client: Client | None = None
        self.url = ""

    @property
    def client(self) -> Client:
        """The Kubernetes API; its calls belong to the stage's loop, see `call`."""
        assert self._client is not None
        return self._client

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the stage's loop, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=_START_SECONDS)

    def pod_names(self, *, phase: str = "") -> list[str]:
        """Names of the Pods, of all or of those in a phase."""
        pods = self.call(self.client.list(PODS, namespace="default")).items
        return [
            pod["metadata"]["name"]
            for pod in pods
            if not phase or pod.get("status", {}).get("phase") == phase
        ]

    def start_kubelet(self) -> None:
        """Start what runs the Pods."""
        self.call(self._start_kubelet())

    def stop_kubelet(self) -> None:
        """Stop what runs the Pods, and their processes with it."""
        self.call(self._stop_kubelet())

    async def _start_kubelet(self) -> None:
        kubelet = Kubelet(self.client, state=self.folder, config=_KUBELET)
        self._kubelet = asyncio.create_task(kubelet.run())

    async def _stop_kubelet(self) -> None:
        await _cancel(self._kubelet)
        self._kubelet = None

    def start_engine(self) -> None:
        """Start the API and the engine on what the folder holds."""
        self.call(self._start_engine())

    def stop_engine(self) -> None:
        """Stop the API and the engine where they are; Pods go on."""
        self.call(self._stop_engine())

    async def _start_engine(self) -> None:
        ready: asyncio.Future[str] = self._loop.create_future()
        self._engine = asyncio.create_task(self._serve(ready))
        both: set[asyncio.Future[Any]] = {ready, self._engine}
        done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if self._engine in done:
            await self._engine
        self.url = await ready

    async def _stop_engine(self) -> None:
        await _cancel(self._engine)
        self._engine = None

    async def _serve(self, ready: asyncio.Future[str]) -> None:
        config = PipelinesConfig(
            pipeline_root=self.pipeline_root,
            token=TOKEN,
            store_path=self.folder / "pipelines.db",
            max_active_pods=self._max_active_pods,
        )
        async with Pipelines(self.client, config) as pipelines:
            listener = bind(0, what="KFP API", option="--kfp-port")
            async with serve(pipelines.app, listener):
                ready.set_result(url_of(listener))
                await asyncio.Event().wait()

    def run_in_thread(self) -> None:
        """Run the stage's loop until `close`."""
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._main())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        async with memory_api(pods_dir=self.folder / "pods") as client:
            self._client = client
            try:
                await self._start_kubelet()
                await self._start_engine()
                await self._stop.wait()
            finally:
                await self._stop_engine()
                await self._stop_kubelet()

    def close(self) -> None:
        """End the stage."""
        if self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)

    @property
    def is_ready(self) -> bool:
        """Whether the API answers."""
        return bool(self.url)


async def _cancel(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextmanager
def running_pipelines(folder: Path, *, max_active_pods: int = 64) -> Iterator[PipelinesStage]:
    """A stage in a thread of its own, ready to be called."""
    stage = PipelinesStage(folder, max_active_pods=max_active_pods)
    failures: list[BaseException] = []
    thread = threading.Thread(target=_guarded(stage.run_in_thread, failures), daemon=True)
    thread.start()
    try:
        waited = threading.Event()
        for _ in range(int(_START_SECONDS / 0.01)):
            if stage.is_ready or failures:
                break
            waited.wait(0.01)
        if failures:
            raise failures[0]
        yield stage
    finally:
        stage.close()
        thread.join(timeout=_START_SECONDS)
    if failures:
        raise failures[0]


def _guarded(work: Callable[[], None], failures: list[BaseException]) -> Callable[[], None]:
    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # re-raised in the test's thread
            failures.append(error)

    return run
