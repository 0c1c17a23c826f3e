"""The engine: follows the Pods of all runs and keeps one execution going for each that has not
ended.

On start it reads which Pods exist before it looks at any run: a task whose Pod is there goes on
with it, a task whose Pod is gone starts a new attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

from kubeloop.errors import (
    ExpiredError,
    InputError,
    KubeloopError,
    NotFoundError,
    TransientError,
)
from kubeloop.local.api.resources import EXPERIMENTS, JOBS, PODS, PYTORCH_JOBS, Resource
from kubeloop.local.client import Client, EventType, Manifest
from kubeloop.local.pipelines.engine.context import EngineContext, PodBook, Slots
from kubeloop.local.pipelines.engine.execution import RunExecution
from kubeloop.local.pipelines.engine.executor import (
    COMPONENT_LABEL,
    GRACE_PERIOD_SECONDS,
    RUN_LABEL,
    TASK_ID_ANNOTATION,
)
from kubeloop.local.pipelines.engine.object_stores import ObjectStores
from kubeloop.local.pipelines.engine.recording import change_state
from kubeloop.local.pipelines.engine.retrying import reset_tasks
from kubeloop.local.pipelines.spec.documents import document_from_json
from kubeloop.local.pipelines.spec.parsing import parse_pipeline
from kubeloop.local.pipelines.storage.records import Run, RuntimeState, TaskState, TaskType
from kubeloop.local.pipelines.storage.store import Store

logger = logging.getLogger(__name__)

_SELECTOR = f"{COMPONENT_LABEL}=true,{RUN_LABEL}"
_WATCH_RETRY_SECONDS = 0.1
_MADE_BY_STEPS: tuple[Resource, ...] = (PYTORCH_JOBS, EXPERIMENTS, JOBS)


class Engine:
    """Runs what the store holds."""

    def __init__(
        self,
        client: Client,
        store: Store,
        *,
        namespace: str,
        clock: Callable[[], float],
        max_active_pods: int,
        folder: Path,
    ) -> None:
        """Args: folder: takes copies of what is in object stores, and workspaces of runs."""
        self._client = client
        self._store = store
        self._namespace = namespace
        self._clock = clock
        self._context = EngineContext(
            client=client,
            store=store,
            namespace=namespace,
            clock=clock,
            slots=Slots(max_active_pods),
            stores=ObjectStores(client, namespace=namespace, folder=folder / ".copies"),
            workspaces=folder / ".workspaces",
        )
        self._executions: dict[str, RunExecution] = {}
        self._pods: dict[str, PodBook] = {}
        """Of the runs that have not ended."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Run all runs, those of the store and those submitted later, until cancelled."""
        unfinished = self._store.unfinished_runs()
        self._pods = {run.run_id: PodBook() for run in unfinished}
        version = await self._read_pods()
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                for run in unfinished:
                    self._count_running(run)
                for run in self._store.unfinished_runs():
                    self.submit(run)
                await self._follow_pods(version)
            finally:
                self._group = None
                for task in self._tasks.values():
                    task.cancel()

    def _count_running(self, run: Run) -> None:
        """Count the Pods that run already, before any new one may start."""
        for task in self._store.tasks_of(run.run_id):
            if task.type is TaskType.RUNTIME and task.state is TaskState.RUNNING:
                self._context.slots.take(task.task_id, wake=_nothing, force=True)

    def submit(self, run: Run) -> None:
        """Start driving a run of the store. Before `run` has started it is picked up there."""
        if self._group is None or run.run_id in self._tasks:
            return
        self._pods.setdefault(run.run_id, PodBook())
        task = self._group.create_task(self._execute(run), name=f"run {run.run_id}")
        self._tasks[run.run_id] = task

    def terminate(self, run: Run) -> None:
        """Bring a run to an early end: its Pods are deleted, what they started goes with them."""
        now = self._clock()
        self._store.runs.put(change_state(run, RuntimeState.CANCELING, now=now))
        if execution := self._executions.get(run.run_id):
            execution.terminate()

    def retry(self, run: Run) -> None:
        """Run the tasks of a failed run again that did not succeed."""
        pipeline = parse_pipeline(document_from_json(run.spec))
        with self._store.transaction():
            reset_tasks(self._store, run, pipeline)
            reset = change_state(replace(run, error=""), RuntimeState.PENDING, now=self._clock())
            self._store.runs.put(reset)
        self.submit(reset)

    async def forget(self, run: Run) -> None:
        """Stop driving a run, and delete its Pods and records."""
        if task := self._tasks.get(run.run_id):
            task.cancel()
            await asyncio.wait([task])
        self._store.delete_run(run.run_id)
        await self._delete_labelled(PODS, run.run_id)

    async def _execute(self, run: Run) -> None:
        try:
            pipeline = parse_pipeline(document_from_json(run.spec))
            execution = RunExecution(
                run, pipeline, context=self._context, pods=self._pods[run.run_id]
            )
            self._executions[run.run_id] = execution
            await execution.run()
            ended = self._store.runs.get(run.run_id)
            if ended is not None and _was_terminated(ended):
                await self._clean_up(run.run_id)
        except InputError as error:
            self._fail(run, str(error))
        except Exception as error:  # one broken run must not stop the rest
            logger.exception("run broke the engine", extra={"uid": run.run_id})
            self._fail(run, f"The engine could not run it: {error!r}.")
        finally:
            self._executions.pop(run.run_id, None)
            self._pods.pop(run.run_id, None)
            self._tasks.pop(run.run_id, None)

    def _fail(self, run: Run, error: str) -> None:
        current = self._store.runs.get(run.run_id) or run
        if not current.state.is_final:
            now = self._clock()
            self._store.runs.put(change_state(current, RuntimeState.FAILED, now=now, error=error))

    async def _clean_up(self, run_id: str) -> None:
        """Delete the jobs of a terminated run that its steps did not delete themselves."""
        for resource in _MADE_BY_STEPS:
            await self._delete_labelled(resource, run_id)

    async def _delete_labelled(self, resource: Resource, run_id: str) -> None:
        try:
            found = await self._client.list(
                resource, namespace=self._namespace, label_selector=f"{RUN_LABEL}={run_id}"
            )
            for manifest in found.items:
                await self._delete(resource, manifest)
        except KubeloopError:
            logger.warning(
                "clean-up incomplete", extra={"kind": resource.kind, "uid": run_id}, exc_info=True
            )

    async def _delete(self, resource: Resource, manifest: Manifest) -> None:
        with contextlib.suppress(NotFoundError):
            await self._client.delete(
                resource,
                manifest["metadata"]["name"],
                namespace=self._namespace,
                grace_period_seconds=GRACE_PERIOD_SECONDS,
            )

    async def _read_pods(self) -> str:
        """List the Pods of all runs; answers the version to watch from."""
        listed = await self._client.list(PODS, namespace=self._namespace, label_selector=_SELECTOR)
        present = {pod["metadata"]["name"] for pod in listed.items}
        for book in self._pods.values():
            for name in set(book.pods) - present:
                book.remove(name)
        for pod in listed.items:
            if known := self._pods.get(pod["metadata"]["labels"][RUN_LABEL]):
                known.update(pod)
        return listed.resource_version

    async def _follow_pods(self, version: str) -> None:
        while True:
            try:
                watch = self._client.watch(
                    PODS,
                    namespace=self._namespace,
                    label_selector=_SELECTOR,
                    resource_version=version,
                )
                async with aclosing(watch) as events:  # type: ignore[type-var]  # an async generator
                    async for event in events:
                        if event.type not in (EventType.BOOKMARK, EventType.ERROR):
                            self._pod_changed(event.type, event.object)
            except (ExpiredError, TransientError) as error:
                logger.warning("watch interrupted", extra={"kind": "Pod", "cause": error})
            await asyncio.sleep(_WATCH_RETRY_SECONDS)
            version = await self._catch_up(version)

    async def _catch_up(self, version: str) -> str:
        """Read all Pods again after the watch broke, and look at all that may have changed."""
        try:
            version = await self._read_pods()
        except TransientError:
            return version
        for execution in self._executions.values():
            execution.look_at_all()
        return version

    def _pod_changed(self, kind: EventType, pod: Manifest) -> None:
        metadata = pod["metadata"]
        run_id = metadata["labels"][RUN_LABEL]
        book = self._pods.get(run_id)
        if book is None:
            return
        if kind is EventType.DELETED:
            book.remove(metadata["name"])
        else:
            book.update(pod)
        if execution := self._executions.get(run_id):
            execution.task_changed(metadata.get("annotations", {}).get(TASK_ID_ANNOTATION, ""))


def _nothing() -> None:
    """Forced slots never wait."""


def _was_terminated(run: Run) -> bool:
    return any(change.state == RuntimeState.CANCELING for change in run.state_history[-2:])
