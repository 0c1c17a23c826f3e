"""Writes what happened to a task: state changes, artifacts, and which task took or gave them."""

from __future__ import annotations

import uuid
from dataclasses import replace

from kubeloop.local.pipelines.engine.context import EngineContext
from kubeloop.local.pipelines.engine.outputs import OutputArtifact, Outputs
from kubeloop.local.pipelines.engine.tree import Node
from kubeloop.local.pipelines.storage.records import (
    Artifact,
    ArtifactTask,
    InputKind,
    Run,
    RuntimeState,
    StateChange,
    Task,
    TaskState,
    TaskValues,
    new_id,
)


class Recorder:
    """Records the tasks of one run."""

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._store = context.store

    def save(self, node: Node, task: Task) -> None:
        """Store a task's new record; a change of state also enters its history."""
        if not task.state_history or task.state_history[-1].state != task.state:
            change = StateChange(state=task.state, time=self._context.clock(), message=task.error)
            task = replace(task, state_history=(*task.state_history, change))
        node.record = task
        self._store.tasks.put(task)

    def finish(
        self, node: Node, state: TaskState, *, outputs: TaskValues | None = None, error: str = ""
    ) -> None:
        """Store how a task ended."""
        now = self._context.clock()
        task = node.record
        has_run = state not in (TaskState.NOT_RUN, TaskState.SKIPPED)
        self.save(
            node,
            replace(
                task,
                state=state,
                end_time=now,
                start_time=task.start_time or (now if has_run else 0.0),
                outputs=outputs or task.outputs,
                error=error,
            ),
        )

    def record_inputs(self, node: Node) -> None:
        """Store which artifacts a task takes."""
        for key, identifiers in node.inputs.artifacts.items():
            origin = node.inputs.origins[key]
            for identifier in identifiers:
                self._relate(
                    node.record,
                    identifier,
                    kind=origin.kind,
                    key=key,
                    producer=(origin.task_name, origin.key),
                )

    def record_outputs(self, node: Node, outputs: Outputs) -> TaskValues:
        """Store the artifacts that a task gave; answers them with those of its earlier attempts.

        To be called in a transaction with the attempt's end.
        """
        identifiers = {
            name: tuple(self._create(node.record, item) for item in items)
            for name, items in outputs.artifacts.items()
        }
        values = TaskValues(parameters=outputs.parameters, artifacts=identifiers)
        self.relate_outputs(node.record, values)
        return replace(values, artifacts={**node.outputs.artifacts, **identifiers})

    def relate_outputs(self, task: Task, values: TaskValues) -> None:
        """Store that a task gave artifacts which exist already."""
        for key, identifiers in values.artifacts.items():
            for identifier in identifiers:
                self._relate(
                    task, identifier, kind=InputKind.OUTPUT, key=key, producer=(task.name, key)
                )

    def _create(self, task: Task, item: OutputArtifact) -> str:
        artifact = Artifact(
            artifact_id=new_id(),
            name=item.name,
            schema_title=item.spec.schema_title,
            schema_version=item.spec.schema_version,
            uri=item.uri,
            metadata=item.metadata,
            created_at=self._context.clock(),
            namespace=self._context.namespace,
            run_id=task.run_id,
            task_id=task.task_id,
            digest=item.digest,
        )
        self._store.artifacts.put(artifact)
        return artifact.artifact_id

    def _relate(
        self, task: Task, artifact_id: str, *, kind: InputKind, key: str, producer: tuple[str, str]
    ) -> None:
        identity = f"{kind}/{key}/{artifact_id}"
        self._store.artifact_tasks.put(
            ArtifactTask(
                id=str(uuid.uuid5(uuid.UUID(task.task_id), identity)),
                artifact_id=artifact_id,
                run_id=task.run_id,
                task_id=task.task_id,
                type=kind,
                key=key,
                producer_task_name=producer[0],
                producer_key=producer[1],
            )
        )


def change_state(run: Run, state: RuntimeState, *, now: float, error: str = "") -> Run:
    """The run in another state, with the change in its history."""
    change = StateChange(state=state, time=now, message=error)
    return replace(
        run,
        state=state,
        error=error or run.error,
        state_history=(*run.state_history, change),
        finished_at=now if state.is_final else 0.0,
    )


def summarize_failure(node: Node) -> str:
    """Why a DAG or a run failed: its first failed task, and how many more there are."""
    failed = sorted(
        (
            below.record
            for below in node.walk()
            if below.state is TaskState.FAILED
            and TaskState.FAILED not in below.child_states().values()
            and below.record.error
        ),
        key=lambda task: task.end_time,
    )
    if not failed:
        return f"{node.record.name!r} failed."
    more = f" ({len(failed) - 1} more failed)" if len(failed) > 1 else ""
    return f"{failed[0].error}{more}"
