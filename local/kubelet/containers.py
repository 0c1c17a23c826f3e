"""Keeps one container of a pod: starts its process, probes it, and starts it again as it should."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from kubeloop.errors import InputError, TransientError
from kubeloop.local import log_times
from kubeloop.local.client import Manifest
from kubeloop.local.kubelet.node import Node
from kubeloop.local.kubelet.probes import ProbeKind, ProbeTarget, watch_probe
from kubeloop.local.kubelet.process import ExitStatus, Process, ProcessSpec, StartError
from kubeloop.local.kubelet.references import MissingReferenceError
from kubeloop.local.kubelet.status import (
    CONTAINER_ID_SCHEME,
    ContainerRecord,
    Running,
    Terminated,
    Waiting,
    expect_restart,
)

_RETRY_SECONDS = 1.0
_NOTE_SECONDS = 1.0
_NOT_STARTED_EXIT_CODE = 128
_MAX_MESSAGE_BYTES = 2048
_MAX_MESSAGE_LINES = 80
_OOM_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodHooks:
    """What a container needs of its pod."""

    pod: Manifest
    grace_seconds: float
    build_spec: Callable[[Manifest, Path], Awaitable[ProcessSpec]]
    """What to start for a container, with its log."""
    host_ports: Callable[[], dict[int, int]]
    changed: Callable[[], None]
    """Called when the record has changed."""


class ContainerRunner:
    """Runs one container until it has ended for good."""

    def __init__(
        self,
        container: Manifest,
        *,
        record: ContainerRecord,
        policy: str,
        node: Node,
        pod: PodHooks,
    ) -> None:
        self.record = record
        self._container = container
        self._policy = policy
        self._node = node
        self._pod = pod
        self._stopping = asyncio.Event()
        self._ending = asyncio.Event()
        self._grace_seconds = pod.grace_seconds
        self._process: Process | None = None
        self._num_failures = 0
        self._ends_well = False

    async def run(self) -> None:
        """Start, watch and start again; returns when nothing is to be started any more."""
        try:
            while expect_restart(self.record, policy=self._policy):
                if isinstance(self.record.state, Terminated):
                    await self._wait_before_restart(self.record.state)
                if self._stopping.is_set():
                    return
                await self._run_once()
        finally:
            if self._process is not None and self._process.exit_status is None:
                self._process.send_signal(signal.SIGKILL)

    def stop(self, *, grace_seconds: float, ends_well: bool = False) -> None:
        """Have it end: SIGTERM, and SIGKILL when the grace is over. Again: with less grace.

        With `ends_well` it counts as having succeeded, however it ends.
        """
        self._ends_well = self._ends_well or ends_well
        first = not self._stopping.is_set()
        self._grace_seconds = grace_seconds if first else min(self._grace_seconds, grace_seconds)
        if first and self._process is not None and self._process.exit_status is None:
            self._say("Killing", f"Stopping container {self.record.name}")
        self._stopping.set()
        self._ending.set()
        if grace_seconds <= 0 and self._process is not None:
            self._process.send_signal(signal.SIGKILL)

    async def _run_once(self) -> None:
        self._ending.clear()
        process = await self._start()
        if process is None:
            return
        self._process = process
        if self._stopping.is_set():  # while it was being started
            self._ending.set()
        self.record.state = Running(started_at=process.started_at)
        self.record.started = ProbeKind.STARTUP.value not in self._container
        self.record.ready = self._is_ready_at_start()
        self._say("Created", f"Created container: {self.record.name}")
        self._say("Started", f"Started container {self.record.name}")
        self._pod.changed()
        notes = log_times.LogNotes(self._find_log(self.record.restart_count))
        num_oom_kills = _count_oom_kills()
        async with contextlib.AsyncExitStack() as stack:
            for work in (self._probe(), self._end_when_asked(process), self._keep_noting(notes)):
                stack.push_async_callback(_cancel, asyncio.create_task(work))
            status = await process.wait()
        self._note(notes)
        self._close(process, status, oom=_count_oom_kills() > num_oom_kills)

    async def _start(self) -> Process | None:
        """Start the process as soon as all it needs is there; None if it cannot or must not."""
        # NB: as long as the status tells of the life before, its count and its log are that one's.
        restart_count = self.record.restart_count + self.record.has_run
        log = self._find_log(restart_count)
        # NB: there is one if the control plane was killed before it could note that it had started.
        log_times.forget(log)
        while not self._stopping.is_set():
            try:
                spec = await self._pod.build_spec(self._container, log)
                process = await self._node.processes.start(spec)
            except StartError as error:
                self.record.restart_count = restart_count
                self._refuse(str(error))
                return None
            except (InputError, MissingReferenceError) as error:
                self._wait("CreateContainerConfigError", str(error))
            except TransientError as error:
                self._wait("CreateContainerError", str(error))
            else:
                digest = hashlib.sha256(f"{log}:{process.pid}:{process.started_at}".encode())
                self.record.container_id = CONTAINER_ID_SCHEME + digest.hexdigest()
                self.record.restart_count = restart_count
                return process
            await self._pause(_RETRY_SECONDS)
        return None

    def _find_log(self, restart_count: int) -> Path:
        uid = self._pod.pod["metadata"]["uid"]
        return self._node.log(uid, container=self.record.name, restart_count=restart_count)

    async def _keep_noting(self, notes: log_times.LogNotes) -> None:
        while True:
            self._note(notes)
            await asyncio.sleep(_NOTE_SECONDS)

    def _note(self, notes: log_times.LogNotes) -> None:
        notes.note(now=self._node.clock().timestamp())

    def _refuse(self, message: str) -> None:
        now = self._node.clock().timestamp()
        self._say("Failed", f"Error: {message}", warning=True)
        self._end(
            Terminated(
                exit_code=_NOT_STARTED_EXIT_CODE,
                reason="StartError",
                message=message,
                started_at=now,
                finished_at=now,
            )
        )

    def _wait(self, reason: str, message: str) -> None:
        self._say("Failed", f"Error: {message}", warning=True)
        if isinstance(self.record.state, Terminated):
            self.record.last = self.record.state
        self.record.state = Waiting(reason=reason, message=message)
        self._pod.changed()

    def _close(self, process: Process, status: ExitStatus, *, oom: bool) -> None:
        code = 0 if self._ends_well else status.code
        reason = "Completed" if code == 0 else "Error"
        if oom and status.signal == signal.SIGKILL and not self._stopping.is_set():
            reason = "OOMKilled"
        if status.lost:
            reason = "ContainerStatusUnknown"
        self._end(
            Terminated(
                exit_code=code,
                reason=reason,
                message=self._read_termination_message() if code else "",
                signal=0 if self._ends_well else status.signal,
                started_at=process.started_at,
                finished_at=status.finished_at,
                container_id=self.record.container_id,
            )
        )

    def _read_termination_message(self) -> str:
        """The end of the log where the container asks for it (FallbackToLogsOnError)."""
        if self._container.get("terminationMessagePolicy") != "FallbackToLogsOnError":
            return ""
        log = self._find_log(self.record.restart_count)
        with contextlib.suppress(OSError), log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _MAX_MESSAGE_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
            return "\n".join(lines[-_MAX_MESSAGE_LINES:])
        return ""

    def _end(self, state: Terminated) -> None:
        if state.finished_at - state.started_at >= self._node.config.reset_backoff_seconds:
            self._num_failures = 0
        self.record.state = state
        self.record.ready = False
        self.record.started = False
        self._pod.changed()

    async def _wait_before_restart(self, ended: Terminated) -> None:
        self.record.last = ended
        config = self._node.config
        delay = 0.0
        if self._num_failures:
            doubled = config.first_backoff_seconds * 2.0 ** (self._num_failures - 1)
            delay = min(doubled, config.last_backoff_seconds)
        self._num_failures += 1
        if delay:
            metadata = self._pod.pod["metadata"]
            where = f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"
            message = f"restarting failed container={self.record.name} pod={where}"
            self.record.state = Waiting(
                reason="CrashLoopBackOff", message=f"back-off {delay:g}s {message}"
            )
            self._say("BackOff", f"Back-off {message}", warning=True)
            self._pod.changed()
            await self._pause(delay)

    async def _end_when_asked(self, process: Process) -> None:
        await self._ending.wait()
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(self._grace_seconds)
        process.send_signal(signal.SIGKILL)

    async def _probe(self) -> None:
        target = ProbeTarget(
            container=self._container,
            host_ports=self._pod.host_ports(),
            run_command=self._run_beside,
        )
        probes = {kind: self._container.get(kind.value) for kind in ProbeKind}
        if startup := probes[ProbeKind.STARTUP]:
            await watch_probe(
                startup,
                target,
                on_success=self._set_started,
                on_failure=lambda message: self._restart("startup", message),
                until_success=True,
            )
        async with asyncio.TaskGroup() as group:
            if readiness := probes[ProbeKind.READINESS]:
                group.create_task(
                    watch_probe(
                        readiness,
                        target,
                        on_success=lambda: self._set_ready(ready=True),
                        on_failure=self._become_unready,
                        until_success=False,
                    )
                )
            if liveness := probes[ProbeKind.LIVENESS]:
                group.create_task(
                    watch_probe(
                        liveness,
                        target,
                        on_success=lambda: None,
                        on_failure=lambda message: self._restart("liveness", message),
                        until_success=False,
                    )
                )

    def _is_ready_at_start(self) -> bool:
        probes = (ProbeKind.STARTUP, ProbeKind.READINESS)
        return not any(self._container.get(kind.value) for kind in probes)

    def _set_started(self) -> None:
        self.record.started = True
        self._set_ready(ready=ProbeKind.READINESS.value not in self._container)

    def _set_ready(self, *, ready: bool) -> None:
        if self.record.ready != ready or not ready:
            self.record.ready = ready
            self._pod.changed()

    def _become_unready(self, message: str) -> None:
        self._say("Unhealthy", f"Readiness probe failed: {message}", warning=True)
        self._set_ready(ready=False)

    def _restart(self, kind: str, message: str) -> None:
        if not self._ending.is_set():
            self._say("Unhealthy", f"{kind.capitalize()} probe failed: {message}", warning=True)
            what = f"Container {self.record.name} failed {kind} probe"
            self._say("Killing", f"{what}, will be restarted")
            self._ending.set()

    async def _run_beside(self, command: list[str], timeout_seconds: float) -> tuple[int, str]:
        """Run a probe's command as the container's own program would run."""
        log = self._node.folder(self._pod.pod["metadata"]["uid"]) / "probes" / self.record.name
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        probed = {**self._container, "command": command, "args": []}
        try:
            process = await self._node.processes.start(await self._pod.build_spec(probed, log))
        except (StartError, TransientError, InputError) as error:
            return _NOT_STARTED_EXIT_CODE, str(error)
        try:
            async with asyncio.timeout(timeout_seconds):
                status = await process.wait()
        finally:
            process.send_signal(signal.SIGKILL)
        return status.code, log.read_text("utf-8", "replace")[-1024:]

    async def _pause(self, seconds: float) -> None:
        """Sleep, unless it is to stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _say(self, reason: str, message: str, *, warning: bool = False) -> None:
        self._node.events.say(self._pod.pod, reason, message, warning=warning)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _count_oom_kills() -> int:
    """Processes that the kernel has killed for memory since it was started."""
    try:
        found = _OOM_KILLS.search(Path("/proc/vmstat").read_text("utf-8"))
    except OSError:
        return 0
    return int(found[1]) if found else 0
