"""The daemon's hold on one warm parent (`zygote.py`): starting it, hearing from it, ending it."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from kubeloop.errors import TransientError
from kubeloop.local.kubelet import preloaded
from kubeloop.local.kubelet.zygote import Announcement, ZygoteSettings

logger = logging.getLogger(__name__)

_MODULE = "kubeloop.local.kubelet.zygote"
_END_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmConfig:
    """What the warm parent imports."""

    layers: tuple[tuple[str, ...], ...] = (
        (
            "kfp",
            "kfp.dsl.executor_main",
            "kubernetes.client",
            "kubernetes.config",
            "kubernetes.watch",
            "kubeflow.training",
            "kubeflow.katib",
            "kserve",
            "minio",
        ),
        (
            "torch",
            "torch.distributed",
            "torch.distributed.run",
            "torch.nn.parallel",
            "torch._dynamo",
            "torch.utils.data",
            "torch.export",
            # What exporting and loading a program imports only then.
            "torch.export._trace",
            "torch.export._unlift",
            "torch.export.pt2_archive._package",
            "torch._export.non_strict_utils",
            "torch._export.passes.replace_autocast_with_hop_pass",
            "torch._export.passes.replace_set_grad_with_hop_pass",
            "torch._export.serde.serialize",
            "torch._inductor.fx_passes.dedupe_symint_uses",
            "torch._inductor.ir",
            "torch._inductor.sizevars",
            "torch._subclasses.schema_check_mode",
            "sympy.combinatorics",
            "sympy.tensor.tensor",
            "PIL.BmpImagePlugin",
            "PIL.GifImagePlugin",
            "PIL.JpegImagePlugin",
            "PIL.PngImagePlugin",
            "PIL.PpmImagePlugin",
            "kubeloop.training.archive",
            "kubeloop.training.images",
            "kubeloop.training.loop",
            "kubeloop.training.package",
            "kubeloop.training.vision",
            "starlette.applications",
            "uvicorn",
            "orjson",
            "prometheus_client",
            "kubeloop.pipelines.lineage.reporting",
        ),
    )
    """Modules, one group a layer. A layer is ready when its group is imported, and each is forked
    from the one before: what most programs need first goes first. Modules that are not installed
    are skipped; no layers at all means that every program starts cold."""


class Layer:
    """A process of the warm parent that can be forked."""

    def __init__(self, control: socket.socket, announcement: Announcement) -> None:
        self._control = control
        self.announcement = announcement

    def send(self, channel_fd: int, log_fd: int) -> None:
        """Have it fork a supervisor with these two files."""
        try:
            socket.send_fds(self._control, [b"."], [channel_fd, log_fd])
        except OSError as error:
            raise TransientError(f"Failed to reach the warm parent: {error}") from error

    def is_current(self) -> bool:
        """Whether the code it imported is still what is on disk."""
        return preloaded.is_current(self.announcement["sources"])


class WarmParent:
    """One generation of the warm parent; `ready` fills up while it imports."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        controls: list[socket.socket],
        *,
        notify: Callable[[], None],
    ) -> None:
        self.ready: list[Layer] = []
        self._process = process
        self._controls = controls
        self._notify = notify
        self._retired = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def started(
        cls, config: WarmConfig, *, env: Mapping[str, str], notify: Callable[[], None]
    ) -> AsyncIterator[WarmParent]:
        """Start one, and end it, but not its forks, on leaving; any change calls `notify`."""
        pairs = [socket.socketpair() for _ in (None, *config.layers)]
        ours, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        settings: ZygoteSettings = {
            "control_fds": [control.fileno() for control in theirs],
            "layers": [list(layer) for layer in config.layers],
        }
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                _MODULE,
                json.dumps(settings),
                env={**env, **preloaded.PARENT_ENV},
                cwd="/",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                pass_fds=settings["control_fds"],
                start_new_session=True,
            )
        finally:
            for control in theirs:
                control.close()
        parent = cls(process, controls=ours, notify=notify)
        listeners = [asyncio.create_task(parent._listen(control)) for control in ours]
        try:
            yield parent
        finally:
            for task in listeners:
                task.cancel()
            await asyncio.gather(*listeners, return_exceptions=True)
            await parent._end()

    def choose(self, *, warm: bool) -> Layer | None:
        """The deepest ready layer for a warm start, else the first; None while there is none."""
        if not self.ready:
            return None
        if not self.ready[-1].is_current():
            logger.info("imported code changed on disk, starting the warm parent anew")
            self.retire()
            return self.ready[0]
        return self.ready[-1 if warm else 0]

    def retire(self) -> None:
        """Have `wait_until_retired` return, so that the next generation is started."""
        self._retired.set()

    async def wait_until_retired(self) -> None:
        """Until a layer has died or its code is out of date."""
        await self._retired.wait()

    async def _listen(self, control: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        control.setblocking(False)  # noqa: FBT003  # it has no keyword
        line = b""
        while not line.endswith(b"\n"):
            try:
                chunk = await loop.sock_recv(control, 65536)
            except ConnectionError:
                chunk = b""
            if not chunk:
                self.retire()
                return
            line += chunk
        self._add(Layer(control, json.loads(line)))
        with suppress(ConnectionError):
            await loop.sock_recv(control, 1)  # nothing more is ever sent: it ended
        self.retire()

    def _add(self, layer: Layer) -> None:
        announcement = layer.announcement
        facts = {"layer": len(self.ready), "seconds": round(announcement["seconds"], 3)}
        logger.info("warm parent's layer is ready", extra=facts)
        for module, cause in announcement["skipped"].items():
            logger.info("module is not preloaded", extra={"module_name": module, "cause": cause})
        if announcement["num_threads"] > 1:
            logger.warning("a preloaded module started a thread", extra=facts)
        self.ready.append(layer)
        self._notify()

    async def _end(self) -> None:
        self.ready.clear()
        for control in self._controls:
            control.close()  # its end of file is what ends a layer
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
