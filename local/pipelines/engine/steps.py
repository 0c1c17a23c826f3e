"""Runs the tasks that do something: containers as Pods, and importers.

A step is looked at whenever something about it may have changed, and each look does the next thing
that its record and its Pod call for. The record is written before the Pod is made, with the name
the Pod will have: whenever the process dies, the next one finds either the Pod or nothing, and in
the second case starts a new attempt in a new folder.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from kubeloop.errors import AlreadyExistsError, ApiError, InputError, NotFoundError
from kubeloop.local.api.resources import PODS
from kubeloop.local.client import Manifest
from kubeloop.local.operators.events import record_event
from kubeloop.local.pipelines.engine import caching
from kubeloop.local.pipelines.engine.claims import is_claim_step, run_claim_step
from kubeloop.local.pipelines.engine.context import EngineContext, PodBook
from kubeloop.local.pipelines.engine.executor import (
    CONTAINER_NAME,
    GRACE_PERIOD_SECONDS,
    Plan,
    build_pod,
    pod_name,
    prepare_folder,
    safe_name,
)
from kubeloop.local.pipelines.engine.importing import import_artifact
from kubeloop.local.pipelines.engine.object_stores import parse_location
from kubeloop.local.pipelines.engine.outputs import NOTHING, Outputs, keep_log, read_outputs
from kubeloop.local.pipelines.engine.placeholders import WORKSPACE_PATH
from kubeloop.local.pipelines.engine.pods import (
    PodEnd,
    describe_end,
    describe_waiting,
    is_over,
    pod_end,
    started_at,
)
from kubeloop.local.pipelines.engine.recording import Recorder
from kubeloop.local.pipelines.engine.resolve import resolve_setting
from kubeloop.local.pipelines.engine.transfers import Transfers
from kubeloop.local.pipelines.engine.tree import Node
from kubeloop.local.pipelines.spec import ir
from kubeloop.local.pipelines.spec.kubernetes_config import PodSettings, build_pod_settings
from kubeloop.local.pipelines.storage.records import Attempt, Run, TaskState, new_id

Wake = Callable[[Node, float], None]
"""Asks for another look at a node after so many seconds."""


class StepRunner:
    """Runs the steps of one run."""

    def __init__(
        self,
        context: EngineContext,
        run: Run,
        *,
        recorder: Recorder,
        pods: PodBook,
        facts: dict[str, str],
        workspace: Path | None,
        wake: Wake,
    ) -> None:
        self._context = context
        self._run = run
        self._recorder = recorder
        self._pods = pods
        self._facts = facts
        self._workspace = workspace
        self._wake = wake
        self._transfers = Transfers(context.stores, wake=wake)
        self._stopping: set[str] = set()

    def close(self) -> None:
        """Give up what is going on beside the visits."""
        self._transfers.close()

    async def visit(self, node: Node, *, is_canceling: bool) -> None:
        """Do what comes next for a step that has not ended.

        Raises:
            InputError: The step cannot run as the pipeline describes it.
            ApiError: The API refuses its Pod.
        """
        if is_canceling:
            await self._stop(node)
        elif node.state is TaskState.PENDING:
            await self._start(node)
        else:
            await self._follow(node)

    def finish(self, node: Node, state: TaskState, *, error: str = "", message: str = "") -> None:
        """End a step without outputs."""
        self._context.slots.release(node.record.task_id)
        if message:
            node.record = replace(node.record, status_message=message)
        self._recorder.finish(node, state, error=error)

    async def _start(self, node: Node) -> None:
        if self._transfers.is_underway(node):
            await self._launch(node, self._settings(node))
            return
        task = node.record
        delay = task.next_attempt_at - self._context.clock()
        if delay > 0:
            self._wake(node, delay)
            return
        if isinstance(node.component.executor, ir.ImporterSpec):
            await import_artifact(
                node, run=self._run, context=self._context, recorder=self._recorder
            )
            return
        if is_claim_step(node):
            await run_claim_step(
                node, run=self._run, context=self._context, recorder=self._recorder
            )
            return
        settings = self._settings(node)
        if task.attempt is None and await self._take_cached(node, settings):
            return
        if self._context.slots.take(task.task_id, wake=lambda: self._wake(node, 0.0)):
            await self._launch(node, settings)

    def _settings(self, node: Node) -> PodSettings:
        assert node.parent is not None
        assert isinstance(node.component.executor, ir.ContainerSpec)
        parent = node.parent
        return build_pod_settings(
            node.component.executor.kubernetes, lambda source: resolve_setting(source, parent)
        )

    def _plan(self, node: Node, folder: str) -> Plan:
        assert node.parent is not None
        component = node.component
        container = component.executor
        assert isinstance(container, ir.ContainerSpec)
        is_remote = parse_location(folder) is not None
        given = node.inputs
        declared = component.input_parameters
        return Plan(
            container=container,
            component=component,
            parameters={
                name: value for name, value in given.parameters.items() if name in declared
            },
            extra_parameters={
                name: value for name, value in given.parameters.items() if name not in declared
            },
            artifacts={
                name: self._context.store.get_artifacts(identifiers)
                for name, identifiers in given.artifacts.items()
            },
            folder=self._context.stores.path(folder) if is_remote else Path(folder),
            uri=folder if is_remote else "",
            facts={
                **self._facts,
                "pipeline_task_name": node.record.name,
                "pipeline_task_uuid": node.parent.record.task_id,
            },
        )

    async def _take_cached(self, node: Node, settings: PodSettings) -> bool:
        """Look for an earlier task to take the outputs of; remember what was looked for."""
        assert node.spec is not None
        if not node.spec.cache_enabled:
            return False
        if node.spec.cache_key:
            parts = {"cache key": node.spec.cache_key}
            fingerprint = caching.fingerprint_of_key(node.component.name, node.spec.cache_key)
        else:
            plan = self._plan(node, "")
            parts = await _in_thread(
                lambda: caching.fingerprint_parts(plan, claims=settings.claims),
                worthwhile=bool(plan.artifacts),
            )
            fingerprint = caching.fingerprint_of_parts(parts)
        node.record = replace(node.record, fingerprint=fingerprint, fingerprint_parts=parts)
        store = self._context.store
        for earlier in store.find_cached(fingerprint, pipeline_name=self._run.pipeline_name):
            identifiers = [name for found in earlier.outputs.artifacts.values() for name in found]
            artifacts = store.get_artifacts(tuple(identifiers))
            intact = await _in_thread(
                lambda artifacts=artifacts: caching.are_intact(artifacts),  # type: ignore[misc]  # binds the loop's value
                worthwhile=bool(artifacts),
            )
            if not intact or len(artifacts) < len(identifiers):
                continue
            with store.transaction():
                node.record = replace(node.record, cached_from=earlier.task_id)
                self._recorder.relate_outputs(node.record, earlier.outputs)
                self._recorder.finish(node, TaskState.CACHED, outputs=earlier.outputs)
            return True
        return False

    async def _launch(self, node: Node, settings: PodSettings) -> None:
        """Start a new attempt, under a name and in a folder that no earlier one had."""
        if not self._transfers.fetch(node, self._plan(node, self._run.root)):
            return
        task = node.record
        number = task.attempt.number if task.attempt else 0
        while True:
            number += 1
            attempt = Attempt(
                number=number,
                retry_index=task.retries_used,
                pod_name=pod_name(task, number=number),
                folder=f"{self._run.root}/{safe_name(task.name)}/{new_id()}",
            )
            plan = self._plan(node, attempt.folder)
            notes = (*plan.container.notes, *self._transfers.describe_missing(plan))
            self._recorder.save(
                node,
                replace(node.record, state=TaskState.RUNNING, attempt=attempt, notes=notes),
            )
            prepare_folder(plan)
            pod = build_pod(
                plan,
                task=node.record,
                attempt=attempt,
                settings=self._mount_folders(settings, plan),
                namespace=self._context.namespace,
            )
            try:
                created = await self._context.client.create(pod)
            except AlreadyExistsError:
                continue  # left by a run of this identifier whose record is gone
            break
        self._pods.update(created)
        attempt = replace(attempt, pod_uid=created["metadata"]["uid"])
        self._recorder.save(node, replace(node.record, attempt=attempt))
        for note in notes:
            await record_event(
                self._context.client,
                created,
                type="Normal",
                reason="NotApplied",
                message=note,
                component="pipelines",
            )

    def _mount_folders(self, settings: PodSettings, plan: Plan) -> PodSettings:
        """Mount what was copied from object stores, and the workspace, where KFP has them."""
        folders = self._transfers.mounts(plan)
        if self._workspace is not None:
            folders[WORKSPACE_PATH] = self._workspace
        for path, folder in folders.items():
            if all(mount["mountPath"] != path for mount in settings.mounts):
                source = {"path": str(folder), "type": "DirectoryOrCreate"}
                settings.mount({"hostPath": source}, path)
        return settings

    async def _follow(self, node: Node) -> None:
        """Look at the Pod of a running step."""
        task = node.record
        assert task.attempt is not None
        self._context.slots.take(task.task_id, wake=lambda: None, force=True)
        pod = self._pods.pods.get(task.attempt.pod_name)
        if pod is None:
            if task.attempt.pod_name in self._pods.deleted:
                self._fail(node, f"Task {task.name!r} failed: its Pod was deleted.")
            else:
                await self._relaunch(node)
            return
        self._note_progress(node, pod)
        end = pod_end(pod)
        if end is None:
            return
        if end.is_lost:
            await self._relaunch(node)
        elif end.succeeded:
            await self._complete(node, log=await self._read_log(pod))
        else:
            log = await self._read_log(pod)
            plan = self._plan(node, task.attempt.folder)
            kept = keep_log(plan, log, retry_index=task.attempt.retry_index)
            await self._transfers.put_log(plan, kept)
            self._fail(node, describe_end(task.name, end, log=log), kept=kept)

    async def _relaunch(self, node: Node) -> None:
        """Run a step again whose Pod was lost with the process that ran it."""
        await self._launch(node, self._settings(node))

    def _note_progress(self, node: Node, pod: Manifest) -> None:
        task = node.record
        started = started_at(pod)
        waiting = describe_waiting(pod)
        # NB: a Pod's times are whole seconds, rounded down.
        start = task.start_time or (max(started, task.create_time) if started else 0.0)
        if (started and not task.start_time) or waiting != task.status_message:
            self._recorder.save(
                node,
                replace(task, start_time=start, status_message=waiting),
            )

    async def _complete(self, node: Node, *, log: str = "") -> None:
        """Record what a step left that exited with 0."""
        task = node.record
        assert task.attempt is not None
        plan = self._plan(node, task.attempt.folder)
        try:
            outputs = await _in_thread(
                lambda: read_outputs(plan), worthwhile=bool(plan.component.output_artifacts)
            )
            kept = keep_log(plan, log, retry_index=task.attempt.retry_index)
            outputs = replace(outputs, artifacts={**outputs.artifacts, **kept.artifacts})
            if not self._transfers.put(node, plan, outputs):
                return
        except InputError as error:
            self._fail(node, f"Task {task.name!r} failed: {error}.")
            return
        self._context.slots.release(task.task_id)
        with self._context.store.transaction():
            values = self._recorder.record_outputs(node, outputs)
            self._recorder.finish(node, TaskState.SUCCEEDED, outputs=values)

    def _fail(self, node: Node, error: str, *, kept: Outputs = NOTHING) -> None:
        """End a failed attempt: try again where the task's retry policy says so."""
        assert node.spec is not None
        assert node.record.attempt is not None
        with self._context.store.transaction():
            node.record = replace(node.record, outputs=self._recorder.record_outputs(node, kept))
            self._end_attempt(node, node.spec.retry, error)

    def _end_attempt(self, node: Node, policy: ir.RetryPolicy, error: str) -> None:
        assert node.record.attempt is not None
        task = node.record
        failed_pods = (*task.failed_pods, node.record.attempt.pod_name)
        if task.retries_used >= policy.max_retries:
            node.record = replace(task, failed_pods=failed_pods)
            self.finish(node, TaskState.FAILED, error=error)
            return
        delay = policy.delay_seconds(task.retries_used)
        self._context.slots.release(task.task_id)
        retried = replace(
            task,
            state=TaskState.PENDING,
            retries_used=task.retries_used + 1,
            next_attempt_at=self._context.clock() + delay,
            failed_pods=failed_pods,
            error=error,
        )
        self._recorder.save(node, retried)
        self._wake(node, delay)

    async def _stop(self, node: Node) -> None:
        """Bring a step to its end in a run that is being terminated."""
        task = node.record
        if task.state is TaskState.PENDING:
            self._transfers.cancel(node)
            self.finish(node, TaskState.NOT_RUN, message="not run: the run was terminated")
            return
        assert task.attempt is not None
        name = task.attempt.pod_name
        pod = self._pods.pods.get(name)
        if pod is not None and not is_over(pod):
            if name not in self._stopping:
                self._stopping.add(name)
                await self._delete_pod(name)
            return
        end: PodEnd | None = pod_end(pod) if pod is not None else None
        if end is not None and end.succeeded:
            await self._complete(node)
        else:
            self.finish(
                node,
                TaskState.FAILED,
                error=f"Task {task.name!r} was stopped: the run was terminated.",
            )

    async def _delete_pod(self, name: str) -> None:
        try:
            await self._context.client.delete(
                PODS,
                name,
                namespace=self._context.namespace,
                grace_period_seconds=GRACE_PERIOD_SECONDS,
            )
        except NotFoundError:
            self._pods.remove(name)

    async def _read_log(self, pod: Manifest) -> str:
        try:
            return await self._context.client.read_log(
                pod["metadata"]["name"],
                namespace=self._context.namespace,
                container=CONTAINER_NAME,
            )
        except ApiError:
            return ""  # the message does without


async def _in_thread(work: Callable[[], Any], *, worthwhile: bool) -> Any:
    """Do work that reads files; in a thread where it may read much."""
    return await asyncio.to_thread(work) if worthwhile else work()
