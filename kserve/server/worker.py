"""The thread that a model computes in.

Requests that arrive while the model is busy gather, and are computed together when it is free: no
request waits for others to come, and under load the batches grow by themselves.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Generic, TypeVar

import numpy as np

from kubeloop.kserve.server.errors import InferenceError, NotReadyError, RequestError
from kubeloop.kserve.server.metrics import ModelMetrics
from kubeloop.kserve.server.model import Arrays, Model

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """Limits of a model's worker."""

    max_batch_rows: int = 64
    """Rows computed at once; a larger request is computed in pieces."""
    max_waiting: int = 1024
    """Requests that may wait; further ones are answered 503."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Job(Generic[T]):
    read: Callable[[], Arrays]
    render: Callable[[Arrays], T]
    reply: asyncio.Future[T]
    rows: Arrays | None = None
    result: T | None = None
    error: Exception | None = None


class Worker:
    """Runs one model; close it to end its thread."""

    def __init__(
        self, model: Model, *, metrics: ModelMetrics, config: WorkerConfig | None = None
    ) -> None:
        self._model = model
        self._metrics = metrics
        self._config = config or WorkerConfig()
        self._waiting: deque[_Job[Any]] = deque()  # jobs of any reply type
        self._is_busy = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    async def run(self, read: Callable[[], Arrays], render: Callable[[Arrays], T]) -> T:
        """Read one request, compute it, and render its reply; both callables run in the thread.

        Raises:
            RequestError: What `read` raised, or the model failed, or too many requests wait.
        """
        if len(self._waiting) >= self._config.max_waiting:
            raise NotReadyError(f"{len(self._waiting)} requests wait already; send fewer at once.")
        loop = asyncio.get_running_loop()
        job: _Job[T] = _Job(read=read, render=render, reply=loop.create_future())
        self._waiting.append(job)
        if not self._is_busy:
            self._start(loop)
        return await job.reply

    async def drain(self) -> None:
        """Wait until no request is waiting or being computed, then end the thread."""
        await self._idle.wait()
        await asyncio.to_thread(self._executor.shutdown)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        jobs = list(self._waiting)
        self._waiting.clear()
        self._is_busy = True
        self._idle.clear()
        self._executor.submit(self._work, jobs).add_done_callback(
            lambda future: loop.call_soon_threadsafe(self._finish, loop, jobs, future.exception())
        )

    def _finish(
        self, loop: asyncio.AbstractEventLoop, jobs: list[_Job[Any]], bug: BaseException | None
    ) -> None:
        self._is_busy = False
        for job in jobs:
            if job.reply.cancelled():
                continue
            if error := job.error or bug:
                job.reply.set_exception(error)
            else:
                job.reply.set_result(job.result)
        if self._waiting:
            self._start(loop)
        else:
            self._idle.set()

    def _work(self, jobs: list[_Job[Any]]) -> None:
        groups: dict[tuple[Any, ...], list[_Job[Any]]] = {}
        for job in jobs:
            self._read(job)
            if job.rows is not None:
                groups.setdefault(_signature(job.rows), []).append(job)
        for group in groups.values():
            self._compute_group(group)

    def _read(self, job: _Job[Any]) -> None:
        started = perf_counter()
        try:
            job.rows = job.read()
        except Exception as error:  # noqa: BLE001  # one bad request must not fail the others
            job.error = _as_request_error(error)
        self._metrics.preprocess.observe(perf_counter() - started)

    def _compute_group(self, group: list[_Job[Any]]) -> None:
        started = perf_counter()
        batches = [job.rows for job in group if job.rows is not None]
        try:
            outputs = self._compute(_join(batches))
        except Exception as error:  # noqa: BLE001  # the thread must outlive a failing model
            for job in group:
                job.error = _as_request_error(error)
            return
        self._metrics.observe_batch(len(group), seconds=perf_counter() - started)
        start = 0
        for job, rows in zip(group, batches, strict=True):
            stop = start + _count_rows(rows)
            self._render(job, {name: array[start:stop] for name, array in outputs.items()})
            start = stop

    def _compute(self, rows: Arrays) -> Arrays:
        size = self._config.max_batch_rows
        if _count_rows(rows) <= size:
            return self._model.compute(rows)
        pieces = [
            self._model.compute({name: array[at : at + size] for name, array in rows.items()})
            for at in range(0, _count_rows(rows), size)
        ]
        return _join(pieces)

    def _render(self, job: _Job[Any], outputs: Arrays) -> None:
        started = perf_counter()
        try:
            job.result = job.render(outputs)
        except Exception as error:  # noqa: BLE001  # as above
            job.error = _as_request_error(error)
        self._metrics.postprocess.observe(perf_counter() - started)


def _signature(rows: Arrays) -> tuple[Any, ...]:
    """Requests of equal signature can be joined."""
    return tuple((name, array.dtype, array.shape[1:]) for name, array in sorted(rows.items()))


def _count_rows(rows: Arrays) -> int:
    return len(next(iter(rows.values())))


def _join(batches: list[Arrays]) -> Arrays:
    if len(batches) == 1:
        return batches[0]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def _as_request_error(error: Exception) -> Exception:
    if isinstance(error, RequestError):
        return error
    failure = InferenceError(f"{type(error).__name__} : {error}")
    failure.__cause__ = error
    return failure
