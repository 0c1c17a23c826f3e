"""Container logs, read from the files that the pod runner writes.

A file is `<pods folder>/<pod uid>/logs/<container>/<restart count>.log`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from kubeloop.errors import ApiError
from kubeloop.local.api import refusals
from kubeloop.local.client import Manifest
from kubeloop.local.log_times import LineStamper, read_times

_CHUNK = 1 << 16
_POLL_SECONDS = 0.05
_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
LOG_ALIAS_ANNOTATION = "kubeloop.dev/log-alias"
"""`absent=present` on a pod: the log of a container that it has not is that of another."""
_STATUSES = ("containerStatuses", "initContainerStatuses")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """What part of a log to give."""

    container: str = ""
    previous: bool = False
    follow: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None
    since: float | None = None
    """Seconds since the epoch; what was written before is left out."""
    timestamps: bool = False
    """Whether each line begins with when it was written."""


class PodLogs:
    """The logs below one folder; None: no pod runs here, and no log has been written."""

    def __init__(self, pods_dir: Path | None) -> None:
        self._pods_dir = pods_dir

    def read(self, pod: Manifest, options: LogOptions) -> bytes:
        """What the container has written up to now.

        Raises:
            ApiError: 400, no such container, or it has not started.
        """
        path = self._find(pod, options)
        if path is None:
            return b""
        part = _Part(path, options)
        with path.open("rb") as file:
            file.seek(part.offset)
            return part.render(file.read(-1 if part.left is None else part.left))

    async def follow(
        self, pod: Manifest, options: LogOptions, *, is_over: Callable[[], bool]
    ) -> AsyncIterator[bytes]:
        """What the container has written, then what it writes, until `is_over` says it ended.

        Raises:
            ApiError: 400, no such container, or it has not started.
        """
        path = self._find(pod, options)
        if path is None:
            return
        part = _Part(path, options)
        with path.open("rb") as file:
            file.seek(part.offset)
            while part.left is None or part.left > 0:
                over = is_over()  # asked before reading, so that the last words are not missed
                if chunk := file.read(_CHUNK):
                    yield part.render(chunk)
                elif over:
                    return
                else:
                    await asyncio.sleep(_POLL_SECONDS)

    def _find(self, pod: Manifest, options: LogOptions) -> Path | None:
        container = choose_container(pod, options.container)
        status = container_status(pod, container)
        restarts = int(status.get("restartCount", 0))
        if options.previous:
            # NB: while a container waits to be started again, its last life is the previous one.
            is_waiting = "waiting" in (status.get("state") or {}) and bool(status.get("lastState"))
            restarts -= not is_waiting
            if restarts < 0:
                raise refusals.bad_request(
                    f'previous terminated container "{container}" in pod '
                    f'"{pod["metadata"]["name"]}" not found'
                )
        elif not has_started(status):
            raise _waiting_error(pod, container, status)
        if self._pods_dir is None:
            return None
        folder = self._pods_dir / pod["metadata"]["uid"] / "logs" / container
        path = folder / f"{restarts}.log"
        return path if path.is_file() else None


class _Part:
    """The part of a log that is asked for, as it is to be sent."""

    def __init__(self, path: Path, options: LogOptions) -> None:
        self.offset = _tail_offset(path, options.tail_lines)
        if options.since is not None:
            since = read_times(path).find_offset(options.since)
            self.offset = max(self.offset, _line_offset(path, since))
        self.left = options.limit_bytes
        self._stamper: LineStamper | None = None
        if options.timestamps:
            self._stamper = LineStamper(read_times(path), offset=self.offset)

    def render(self, chunk: bytes) -> bytes:
        """Return what is to be sent of the next piece."""
        if self._stamper is not None:
            chunk = self._stamper.stamp(chunk, now=time.time())
        if self.left is not None:
            chunk = chunk[: self.left]
            self.left -= len(chunk)
        return chunk


def choose_container(pod: Manifest, asked: str) -> str:
    """The container to read; the only or the annotated one when none is asked for.

    Raises:
        ApiError: 400, the choice is not clear or there is no such container.
    """
    name, spec = pod["metadata"]["name"], pod["spec"]
    containers = [container["name"] for container in spec.get("containers", ())]
    init_containers = [container["name"] for container in spec.get("initContainers") or ()]
    annotations = pod["metadata"].get("annotations") or {}
    asked = asked or annotations.get(_DEFAULT_CONTAINER, "")
    if not asked and len(containers) == 1:
        return str(containers[0])
    if not asked:
        choices = f"choose one of: [{' '.join(containers)}]"
        if init_containers:
            choices += f" or one of the init containers: [{' '.join(init_containers)}]"
        raise refusals.bad_request(f"a container name must be specified for pod {name}, {choices}")
    alias, _, meant = annotations.get(LOG_ALIAS_ANNOTATION, "").partition("=")
    if asked == alias and asked not in containers:
        asked = meant
    if asked not in containers and asked not in init_containers:
        raise refusals.bad_request(f"container {asked} is not valid for pod {name}")
    return asked


def container_status(pod: Manifest, container: str) -> Manifest:
    """The status entry of a container, empty before there is one."""
    for part in _STATUSES:
        for status in pod.get("status", {}).get(part) or ():
            if status["name"] == container:
                return dict(status)
    return {}


def has_started(status: Manifest) -> bool:
    """Whether the container's present incarnation, or an earlier one, has run."""
    states = (*(status.get("state") or {}), *(status.get("lastState") or {}))
    return "running" in states or "terminated" in states


def has_ended(pod: Manifest, container: str, *, restarts: int) -> bool:
    """Whether the incarnation of a container with that restart count runs no more."""
    status = container_status(pod, container)
    phase = pod.get("status", {}).get("phase")
    return (
        phase in ("Succeeded", "Failed")
        or int(status.get("restartCount", 0)) > restarts
        or "running" not in (status.get("state") or {})
    )


def _waiting_error(pod: Manifest, container: str, status: Manifest) -> ApiError:
    waiting = (status.get("state") or {}).get("waiting") or {}
    reason = waiting.get("message") or waiting.get("reason") or "ContainerCreating"
    return refusals.bad_request(
        f'container "{container}" in pod "{pod["metadata"]["name"]}" is waiting to start: {reason}'
    )


def _line_offset(path: Path, offset: int) -> int:
    """Where the line begins that a place in a file is in."""
    start = max(0, offset - _CHUNK)
    with path.open("rb") as file:
        file.seek(start)
        return start + file.read(offset - start).rfind(b"\n") + 1


def _tail_offset(path: Path, lines: int | None) -> int:
    """Where the last `lines` lines of a file begin."""
    if lines is None:
        return 0
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        if lines <= 0:
            return position
        wanted = lines + 1  # a final newline ends the last line and starts none
        skip_final = True
        while position > 0:
            start = max(0, position - _CHUNK)
            file.seek(start)
            chunk = file.read(position - start)
            if skip_final:
                wanted = lines + chunk.endswith(b"\n")
                skip_final = False
            found = len(chunk)
            while wanted > 0 and found != -1:
                found = chunk.rfind(b"\n", 0, found)
                wanted -= found != -1
            if found != -1:
                return start + found + 1
            position = start
        return 0
