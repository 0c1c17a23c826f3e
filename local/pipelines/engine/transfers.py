"""Moves the files of steps to and from object stores, beside everything else that a run does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from kubeloop.digests import digest_path
from kubeloop.errors import InputError
from kubeloop.local.pipelines.engine.executor import Plan
from kubeloop.local.pipelines.engine.object_stores import (
    Location,
    NotConfiguredError,
    ObjectStores,
    parse_location,
)
from kubeloop.local.pipelines.engine.outputs import Outputs
from kubeloop.local.pipelines.engine.tree import Node


class Transfers:
    """The transfers of one run. Each is asked for again until it is done."""

    def __init__(self, stores: ObjectStores, *, wake: Callable[[Node, float], None]) -> None:
        self._stores = stores
        self._wake = wake
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def is_underway(self, node: Node) -> bool:
        """Whether one of a step's was begun and its end not noticed."""
        return node.record.task_id in self._tasks

    def fetch(self, node: Node, plan: Plan) -> bool:
        """Bring a step's inputs here; whether they are.

        Raises:
            InputError: One cannot be had.
        """
        return not (plan.uri or plan.remote_uris) or self._go_on(node, lambda: self._fetch(plan))

    def put(self, node: Node, plan: Plan, outputs: Outputs) -> bool:
        """Bring a step's outputs to their store; whether they are there.

        Raises:
            InputError: The store does not take them.
        """
        return not plan.uri or self._go_on(node, lambda: self._put(plan, outputs))

    async def put_log(self, plan: Plan, log: Outputs) -> None:
        """Bring the log of a failed attempt to its store, if that can be."""
        if plan.uri:
            with contextlib.suppress(InputError):
                await self._put(plan, log)

    def mounts(self, plan: Plan) -> dict[str, Path]:
        """Where a step's container sees the copies, and what is mounted there."""
        schemes = {found.scheme for uri in plan.remote_uris if (found := self._find_copy(uri))}
        if location := parse_location(plan.uri):
            schemes.add(location.scheme)
        return {f"/{scheme}": self._stores.mounted(scheme) for scheme in sorted(schemes)}

    def describe_missing(self, plan: Plan) -> list[str]:
        """One sentence for each input that was not fetched."""
        return [
            f"{uri} was not copied to its path: no object store is configured"
            for uri in plan.remote_uris
            if not self._find_copy(uri)
        ]

    def _find_copy(self, uri: str) -> Location | None:
        return parse_location(uri) if self._stores.path(uri).exists() else None

    def cancel(self, node: Node) -> None:
        """Give up a step's."""
        if task := self._tasks.pop(node.record.task_id, None):
            task.cancel()

    def close(self) -> None:
        """Give up all."""
        for task in self._tasks.values():
            task.cancel()

    def _go_on(self, node: Node, begin: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        identifier = node.record.task_id
        task = self._tasks.get(identifier)
        if task is None:
            task = self._tasks[identifier] = asyncio.create_task(begin())
            task.add_done_callback(lambda _: self._wake(node, 0.0))
        if not task.done():
            return False
        del self._tasks[identifier]
        task.result()
        return True

    async def _fetch(self, plan: Plan) -> None:
        if plan.uri:  # before anything runs for nothing
            await self._stores.check(plan.uri)
        for artifact in plan.remote_inputs:
            path = self._stores.path(artifact.uri)
            here = await asyncio.to_thread(digest_path, path) if artifact.digest else ""
            if not here or here != artifact.digest:
                # A step may open the store itself, with what it has; not to know how is no fault.
                with contextlib.suppress(NotConfiguredError):
                    await self._stores.fetch(artifact.uri)

    async def _put(self, plan: Plan, outputs: Outputs) -> None:
        for artifact in (item for given in outputs.artifacts.values() for item in given):
            path = plan.locate(artifact.uri)
            if plan.is_own(artifact.uri) and path is not None and await _exists(path):
                await self._stores.put(artifact.uri, path)


async def _exists(path: Path) -> bool:
    return await asyncio.to_thread(path.exists)
