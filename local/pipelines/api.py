"""The pipelines part as one piece: the KFP v2beta1 API and the engine behind it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kubeloop.errors import InputError
from kubeloop.local.client import Client
from kubeloop.local.pipelines.engine.engine import Engine
from kubeloop.local.pipelines.routes.experiments import ExperimentRoutes
from kubeloop.local.pipelines.routes.http import PREFIX, BearerToken, Door, reply, route
from kubeloop.local.pipelines.routes.metadata import MetadataRoutes
from kubeloop.local.pipelines.routes.pipelines import PipelineRoutes
from kubeloop.local.pipelines.routes.recurring_runs import RecurringRunRoutes
from kubeloop.local.pipelines.routes.reports import ReportRoutes
from kubeloop.local.pipelines.routes.runs import RunRoutes
from kubeloop.local.pipelines.rpc_errors import RpcCode, RpcError
from kubeloop.local.pipelines.schedules.recurring import RecurringRuns
from kubeloop.local.pipelines.service import Service
from kubeloop.local.pipelines.storage.store import Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelinesConfig:
    """Settings of the pipelines part."""

    pipeline_root: Path
    """Absolute folder below which runs put their outputs, where they name no other."""
    token: str
    """The bearer token that requests need: the one of the Kubernetes API."""
    store_path: Path | None = None
    """The SQLite file; None keeps all in memory, for tests."""
    namespace: str = "default"
    """Where the Pods of tasks are made."""
    max_active_pods: int = 64
    """Pods of tasks at a time, over all runs; further tasks wait their turn."""
    clock: Callable[[], float] = time.time
    """Seconds since the epoch."""

    def __post_init__(self) -> None:
        if not self.pipeline_root.is_absolute():
            raise InputError(f"pipeline_root {str(self.pipeline_root)!r} is not an absolute path.")
        if not self.token:
            raise InputError("token is empty; give the token of the Kubernetes API.")
        if self.max_active_pods < 1:
            raise InputError(f"max_active_pods is {self.max_active_pods}; give 1 or more.")


class Pipelines:
    """The API (`app`) and the engine.

    As a context manager it opens the store and drives runs; on exit the engine stops, Pods stay
    as they are, and the next start goes on from there.
    """

    def __init__(self, client: Client, config: PipelinesConfig) -> None:
        self._config = config
        self._store = Store(config.store_path)
        self._store.default_experiment(namespace=config.namespace, now=config.clock())
        self._engine = Engine(
            client,
            self._store,
            namespace=config.namespace,
            clock=config.clock,
            max_active_pods=config.max_active_pods,
            folder=config.pipeline_root,
        )
        service = Service(
            store=self._store,
            engine=self._engine,
            namespace=config.namespace,
            pipeline_root=config.pipeline_root,
            clock=config.clock,
        )
        self.recurring_runs = RecurringRuns(service, submit=self._engine.submit)
        routes = build_app(service, recurring_runs=self.recurring_runs, token=config.token)
        self.app = Door(routes)
        self._stack = AsyncExitStack()

    async def run(self) -> None:
        """Drive runs, and start those that are due, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._engine.run())
            group.create_task(self.recurring_runs.run())

    async def __aenter__(self) -> Self:
        self._stack.callback(self._store.close)
        task = asyncio.create_task(self.run(), name="pipelines engine")
        task.add_done_callback(_report)
        self._stack.push_async_callback(_stop, task)
        self._stack.callback(self.app.close)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("engine stopped; runs wait for the next start", exc_info=error)


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def build_app(service: Service, *, recurring_runs: RecurringRuns, token: str) -> Starlette:
    """The KFP v2beta1 API as an ASGI application."""
    routes = [
        route("/healthz", _health, method="GET"),
        *ExperimentRoutes(service).routes(),
        *PipelineRoutes(service).routes(),
        *RunRoutes(service).routes(),
        *RecurringRunRoutes(service, wake=recurring_runs.wake).routes(),
        *MetadataRoutes(service).routes(),
        *ReportRoutes(service).routes(),
        Route("/{path:path}", _unknown, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
    ]
    return Starlette(routes=routes, middleware=[Middleware(BearerToken, token=token)])


async def _health(request: Request) -> Response:
    del request
    return reply({"multi_user": False, "pipeline_store": "database"})


async def _unknown(request: Request) -> Response:
    error = RpcError(
        RpcCode.NOT_FOUND,
        f"{request.method} {request.url.path} is no call of this API, whose calls are under "
        f"{PREFIX}.",
    )
    return reply(error.to_json(), status=error.http_status)
