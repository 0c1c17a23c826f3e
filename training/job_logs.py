"""Follow what the replicas of a job print: each line once, by streams that stay open.

Every life of a container has a log of its own: Kubernetes keeps that of the present life and of the
one before, and none of a pod that was deleted. A stream that is open gives the last words all the
same. One that breaks off is opened anew, and what it gave before is skipped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from kubeflow.training.constants import constants

from kubeloop.errors import KubeloopError, TransientError
from kubeloop.sdk_errors import MissingObjectError, translate_errors

_CONTAINER = constants.PYTORCHJOB_CONTAINER
_REOPEN_SECONDS = 3.0
"""After which a stream that ended before its container did is opened anew."""
_CONNECT_SECONDS = 10.0
_SILENCE_SECONDS = 300.0
"""After which a stream counts as broken: connections get lost without a word."""
_PAUSE_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One run of a pod's program."""

    pod: str
    uid: str
    container_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """What a program printed."""

    life: Life
    text: str


class JobLogs:
    """The logs of a job's replicas: a thread reads each stream, `follow` gives what has come."""

    def __init__(
        self,
        api: Any,  # the client's CoreV1Api
        *,
        namespace: str,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._clock = clock
        self._sleep = sleep
        self._streams: dict[Life, _Stream] = {}

    def follow(self, pods: Iterable[Any]) -> Iterator[LogLine]:
        """Return what was printed since the last call.

        Args:
            pods: The client's `V1Pod`s to follow, as they are now.
        """
        for pod in pods:
            self._advance(pod)
        for life, stream in self._streams.items():
            yield from (LogLine(life=life, text=text) for text in stream.take())

    def follow_to_end(self, pods: Sequence[Any], *, timeout_seconds: float) -> Iterator[LogLine]:
        """Return all that is missing of the lives that are over.

        Args:
            pods: As for `follow`.
            timeout_seconds: How long to wait for an API that does not give it.
        """
        deadline = self._clock() + timeout_seconds
        there = {pod.metadata.uid for pod in pods}
        while True:
            yield from self.follow(pods)
            is_through = [self._advance(pod) for pod in pods]
            is_through += [s.is_over for s in self._streams.values() if s.life.uid not in there]
            if all(is_through) or self._clock() > deadline:
                return
            self._sleep(_PAUSE_SECONDS)

    def close(self) -> None:
        """Let go of the streams; each ends with the next that it brings."""
        for stream in self._streams.values():
            stream.is_closed = True

    def _advance(self, pod: Any) -> bool:  # Any: the client's V1Pod
        """Read a pod's lives one after another; returns whether those that are over were read."""
        lives = _find_lives(pod)
        for life in lives:
            is_running = life == lives[-1] and _is_running(pod)
            stream = self._streams.get(life)
            if stream is None or (stream.is_over and (stream.is_cut or is_running)):
                self._open(life, is_previous=life != lives[-1])
            elif stream.is_over:
                continue
            return is_running
        return True

    def _open(self, life: Life, *, is_previous: bool) -> None:
        before = self._streams.get(life)
        if before is not None and self._clock() - before.ended_at < _REOPEN_SECONDS:
            return
        stream = _Stream(
            life=life,
            is_previous=is_previous,
            api=self._api,
            namespace=self._namespace,
            clock=self._clock,
            num_skipped=max(before.num_lines, before.num_skipped) if before else 0,
        )
        self._streams[life] = stream
        threading.Thread(target=stream.read, name=f"log of {life.pod}", daemon=True).start()


@dataclass(slots=True, kw_only=True)
class _Stream:
    """The lines of one life, but for those that were read before."""

    life: Life
    is_previous: bool
    api: Any  # the client's CoreV1Api
    namespace: str
    clock: Callable[[], float]
    num_skipped: int
    num_lines: int = 0
    is_closed: bool = False
    is_cut: bool = False
    """Whether it broke off, or never was this life's."""
    ended_at: float = 0.0
    lines: SimpleQueue[str] = field(default_factory=SimpleQueue)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def is_over(self) -> bool:
        """Whether it has ended, and all its lines were taken."""
        return self.over.is_set() and self.lines.empty()

    def take(self) -> Iterator[str]:
        """Return the lines that have come; for one thread alone."""
        while not self.lines.empty():
            yield self.lines.get()

    def read(self) -> None:
        """Read to the end."""
        try:
            with translate_errors(f"read the log of pod {self.namespace}/{self.life.pod}"):
                self._transfer()
        except TransientError:
            self.is_cut = True
        except MissingObjectError:
            pass  # The pod is gone, and its log with it.
        except KubeloopError as error:
            self.lines.put(str(error))
        finally:
            self.ended_at = self.clock()
            self.over.set()

    def _transfer(self) -> None:
        response = self.api.read_namespaced_pod_log(
            self.life.pod,
            self.namespace,
            container=_CONTAINER,
            follow=not self.is_previous,
            previous=self.is_previous,
            _preload_content=False,
            _request_timeout=(_CONNECT_SECONDS, _SILENCE_SECONDS),
        )
        try:
            # NB: what was asked for is the pod's log by name; meanwhile it may be another life's.
            self.is_cut = not self._is_meant(self._read_pod())
            if not self.is_cut:
                self._split(response.stream())
        finally:
            response.close()

    def _split(self, chunks: Iterable[bytes]) -> None:
        rest = b""
        for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._put(line)
            if self.is_closed:
                return
        # NB: a line is only half there where the stream ends before the program does.
        self.is_cut = bool(rest) and self._goes_on()
        if rest and not self.is_cut:
            self._put(rest)

    def _put(self, line: bytes) -> None:
        self.num_lines += 1
        if self.num_lines > self.num_skipped:
            self.lines.put(line.decode("utf-8", "replace"))

    def _goes_on(self) -> bool:
        """Whether the program is still running."""
        with suppress(MissingObjectError), translate_errors(f"read pod {self.life.pod}"):
            pod = self._read_pod()
            return not self.is_previous and self._is_meant(pod) and _is_running(pod)
        return False

    def _is_meant(self, pod: Any) -> bool:  # Any: the client's V1Pod
        """Whether the log that the pod gives now is this life's."""
        lives = _find_lives(pod)
        return self.life in (lives[:-1] if self.is_previous else lives[-1:])

    def _read_pod(self) -> Any:
        return self.api.read_namespaced_pod(self.life.pod, self.namespace)


def _find_lives(pod: Any) -> list[Life]:  # Any: the client's V1Pod
    """Return the lives of a pod's program that have a log: the present one last."""
    for status in pod.status.container_statuses or ():
        if status.name == _CONTAINER:
            ended = [state.terminated for state in (status.last_state, status.state) if state]
            ids = [state.container_id for state in ended if state]
            if _is_running(pod):
                ids.append(status.container_id)
            return [
                Life(pod=pod.metadata.name, uid=pod.metadata.uid, container_id=container_id)
                for container_id in dict.fromkeys(filter(None, ids))
            ]
    return []


def _is_running(pod: Any) -> bool:  # Any: the client's V1Pod
    return any(
        status.name == _CONTAINER and status.state and status.state.running
        for status in pod.status.container_statuses or ()
    )
