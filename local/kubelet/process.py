"""Starts processes through the warm parent and follows them to their end.

The daemon's side of `zygote.py`: it keeps one warm parent running, sends each launch to the deepest
layer that is ready and up to date, and hands out a `Process` to signal and to wait for. Everything
that a process started is gone when `Process.wait` returns, and when the daemon itself is gone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from kubeloop.errors import PermanentError, TransientError
from kubeloop.local.kubelet import linux, wire
from kubeloop.local.kubelet.warm_parent import Layer, WarmConfig, WarmParent
from kubeloop.local.kubelet.zygote import Announcement

logger = logging.getLogger(__name__)

_FIRST_RESTART_SECONDS = 0.05
_LAST_RESTART_SECONDS = 30.0
_START_SECONDS = 60.0


class StartError(PermanentError):
    """The program could not be started: no such file, no such directory, not executable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """What to run."""

    name: str
    """Shown by `ps`; the first 15 bytes count."""
    argv: tuple[str, ...]
    env: Mapping[str, str]
    """The whole environment."""
    cwd: Path
    log: Path
    """Takes stdout and stderr; created, or appended to."""
    warm: bool
    """Whether a forked interpreter may run `argv`; `argv[0]` is then the warm parent's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitStatus:
    """How a process ended."""

    code: int
    """Exit code; 128 + n after signal n."""
    signal: int = 0
    finished_at: float
    """Seconds since the epoch."""
    lost: bool = False
    """The supervisor vanished, so that nobody saw the real status."""


class Process:
    """A running process; made by `ProcessRunner.start`."""

    def __init__(self, *, pid: int, started_at: float, writer: asyncio.StreamWriter) -> None:
        self.pid = pid
        self.started_at = started_at
        self._writer = writer
        self._ended: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()

    @property
    def exit_status(self) -> ExitStatus | None:
        """None while it runs."""
        return self._ended.result() if self._ended.done() else None

    async def wait(self) -> ExitStatus:
        """Until the process and all its descendants are gone."""
        return await asyncio.shield(self._ended)

    def send_signal(self, number: signal.Signals) -> None:
        """Signal its process group; SIGKILL takes all descendants, in whatever group."""
        if not self._ended.done():
            self._writer.write(wire.encode({"signal": int(number)}))

    async def follow(self, reader: asyncio.StreamReader) -> None:
        """Read the supervisor's last report; run once, by the runner."""
        try:
            report = await _read_report(reader)
            self._ended.set_result(self._judge(report))
        finally:
            self._writer.close()

    def _judge(self, report: wire.Report | None) -> ExitStatus:
        if report is None:
            for pid in linux.list_session(self.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return ExitStatus(code=137, signal=9, finished_at=time.time(), lost=True)
        code = os.waitstatus_to_exitcode(report["status"])
        return ExitStatus(
            code=code if code >= 0 else 128 - code, signal=max(0, -code), finished_at=report["at"]
        )


class ProcessRunner:
    """Owns the warm parent and every process started through it."""

    def __init__(self, config: WarmConfig, *, env: Mapping[str, str]) -> None:
        """Args: env: what the warm parent runs with; processes that share it start warm."""
        self._config = config
        self._env = dict(env)
        self._parent: WarmParent | None = None
        self._changed = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._processes: dict[Process, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        self._keeper = asyncio.create_task(self._keep_parent())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGKILL)
        await asyncio.gather(*self._processes.values(), return_exceptions=True)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    @property
    def announcements(self) -> list[Announcement]:
        """What the layers that are ready said of themselves, shallowest first."""
        return [layer.announcement for layer in self._parent.ready] if self._parent else []

    @property
    def warm_parent_pid(self) -> int | None:
        """The first layer's; None while there is none."""
        return (
            self._parent.ready[0].announcement["pid"]
            if self._parent and self._parent.ready
            else None
        )

    async def start(self, spec: ProcessSpec) -> Process:
        """Start `spec`.

        Raises:
            StartError: the program cannot be started.
            TransientError: the warm parent went away meanwhile.
        """
        layer = await self._choose_layer(warm=spec.warm)
        channel, theirs = socket.socketpair()
        try:
            with theirs:
                spec.log.parent.mkdir(parents=True, exist_ok=True)
                log_fd = os.open(spec.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                try:
                    layer.send(theirs.fileno(), log_fd)
                finally:
                    os.close(log_fd)
            reader, writer = await asyncio.open_connection(sock=channel)
        except BaseException:
            channel.close()
            raise
        try:
            return await self._hand_over(spec, reader, writer)
        except BaseException:
            writer.close()
            raise

    async def wait_until_warm(self, *, depth: int = -1) -> None:
        """Until the layer at `depth` (the deepest by default) can be forked."""
        depth = depth if depth >= 0 else len(self._config.layers)
        while self._parent is None or len(self._parent.ready) <= depth:
            self._changed.clear()
            await self._changed.wait()

    async def _hand_over(
        self, spec: ProcessSpec, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Process:
        request: wire.LaunchRequest = {
            "name": spec.name,
            "argv": list(spec.argv),
            "env": dict(spec.env),
            "cwd": str(spec.cwd),
            "warm": spec.warm,
        }
        writer.write(wire.encode(request))
        report = await _read_report(reader)
        if report is None:
            raise TransientError(f"Failed to start {spec.name}: the warm parent went away")
        if "error" in report:
            raise StartError(f"Failed to start {spec.name}: {report['error']}")
        process = Process(pid=report["pid"], started_at=report["at"], writer=writer)
        task = self._processes[process] = asyncio.create_task(process.follow(reader))
        task.add_done_callback(lambda _: self._processes.pop(process, None))
        return process

    async def _choose_layer(self, *, warm: bool) -> Layer:
        try:
            async with asyncio.timeout(_START_SECONDS):
                while True:
                    if self._parent and (layer := self._parent.choose(warm=warm)):
                        return layer
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError as error:
            raise TransientError("Failed to start a process: the warm parent is down") from error

    async def _keep_parent(self) -> None:
        """Have a warm parent at all times; one that dies soon is started less and less often."""
        loop = asyncio.get_running_loop()
        delay = _FIRST_RESTART_SECONDS
        while True:
            started_at = loop.time()
            async with WarmParent.started(
                self._config, env=self._env, notify=self._changed.set
            ) as self._parent:
                await self._parent.wait_until_retired()
            if loop.time() - started_at > _LAST_RESTART_SECONDS:
                delay = _FIRST_RESTART_SECONDS
            logger.warning("warm parent ended, starting it again", extra={"delay": delay})
            await asyncio.sleep(delay)
            delay = min(delay * 4, _LAST_RESTART_SECONDS)


async def _read_report(reader: asyncio.StreamReader) -> wire.Report | None:
    try:
        length = wire.parse_length(await reader.readexactly(4))
        report: wire.Report = wire.decode(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return report
