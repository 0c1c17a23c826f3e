"""Described runs in the embedded plane's store, served by its KFP API."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kubeloop.local.pipelines.api import Pipelines, PipelinesConfig
from kubeloop.local.pipelines.storage.records import (
    Artifact,
    ArtifactTask,
    Attempt,
    InputKind,
    Run,
    RuntimeState,
    Task,
    TaskState,
    TaskType,
    TaskValues,
    new_id,
)
from kubeloop.local.pipelines.storage.store import Store
from kubeloop.local.serving import bind, serve, url_of
from kubeloop.testing.api import memory_api
from kubeloop.testing.recorded_runs import START, GivenRun, GivenTask

TOKEN = "token-of-tests"  # noqa: S105  # guards nothing


@contextmanager
def serving_native(folder: Path, runs: Sequence[GivenRun]) -> Iterator[str]:
    """The URL of a KFP API that holds these runs; requests need `TOKEN`."""
    path = folder / "pipelines.db"
    with Store(path) as store, store.transaction():
        _Writer(store).write(runs)
    ready: list[str] = []
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        config = PipelinesConfig(pipeline_root=folder / "artifacts", token=TOKEN, store_path=path)
        listener = bind(0, what="KFP API", option="--kfp-port")
        async with (
            memory_api(pods_dir=folder / "pods") as client,
            Pipelines(client, config) as pipelines,
            serve(pipelines.app, listener),
        ):
            ready.append(url_of(listener))
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    try:
        assert started.wait(30), "the API did not start"
        yield ready[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


class _Writer:
    """Writes as the engine's recorder does; times count up, so that order is certain."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tasks: dict[str, Task] = {}
        self._time = START.timestamp()

    def write(self, runs: Sequence[GivenRun]) -> None:
        for run in runs:
            self._write_run(run)

    def _write_run(self, given: GivenRun) -> None:
        run = Run(
            run_id=given.run_id,
            experiment_id="",
            display_name=f"{given.pipeline} of today",
            created_at=self._tick(),
            scheduled_at=self._time,
            namespace="default",
            spec={"pipelineInfo": {"name": given.pipeline}},
            parameters={},
            pipeline_name=given.pipeline,
            root="",
            state=RuntimeState.SUCCEEDED,
            finished_at=self._time + 300,
        )
        self._store.runs.put(run)
        groups = {"": self._write_group(run, "root", TaskType.ROOT, "")}
        for task in given.tasks:
            if task.group not in groups:
                groups[task.group] = self._write_group(
                    run, task.group, TaskType.DAG, groups[""].task_id
                )
            self._write_task(run, task, groups[task.group])

    def _write_group(self, run: Run, name: str, type: TaskType, parent_id: str) -> Task:  # noqa: A002
        task = Task(
            task_id=new_id(),
            run_id=run.run_id,
            parent_id=parent_id,
            name=name,
            display_name=name,
            path=name,
            type=type,
            state=TaskState.SUCCEEDED,
            create_time=self._tick(),
        )
        self._store.tasks.put(task)
        return task

    def _write_task(self, run: Run, given: GivenTask, parent: Task) -> None:
        task_id = new_id()
        taken = {
            key: tuple(self._tasks[source].outputs.artifacts[name][0] for source, name in wanted)
            for key, wanted in given.takes.items()
        }
        earlier = self._tasks.get(given.cached_from)
        made = earlier.outputs.artifacts if earlier else self._write_artifacts(run, given, task_id)
        state = TaskState.FAILED if given.is_failed else TaskState.SUCCEEDED
        has_pod = not (earlier or given.is_importer)
        task = Task(
            task_id=task_id,
            run_id=run.run_id,
            parent_id=parent.task_id,
            name=given.name,
            display_name=given.name,
            path=f"{parent.path}.{given.name}",
            type=TaskType.RUNTIME,
            state=TaskState.CACHED if earlier else state,
            create_time=self._tick(),
            start_time=self._time,
            end_time=self._time + 2,
            inputs=TaskValues(parameters=dict(given.inputs), artifacts=taken),
            outputs=TaskValues(parameters=dict(given.outputs), artifacts=made),
            attempt=Attempt(number=0, retry_index=0, pod_name="pod", folder="")
            if has_pod
            else None,
            cached_from=earlier.task_id if earlier else "",
            error="it broke" if given.is_failed else "",
        )
        self._store.tasks.put(task)
        self._tasks[f"{run.run_id}/{given.name}"] = task
        for kind, side in ((InputKind.TASK_OUTPUT_INPUT, taken), (InputKind.OUTPUT, made)):
            # A nested pipeline passes on what its tasks give.
            for owner in (task, parent) if kind is InputKind.OUTPUT else (task,):
                self._relate(owner, kind, side)

    def _write_artifacts(
        self, run: Run, given: GivenTask, task_id: str
    ) -> dict[str, tuple[str, ...]]:
        written: dict[str, tuple[str, ...]] = {}
        for key, items in given.gives.items():
            for item in items:
                artifact = Artifact(
                    artifact_id=new_id(),
                    name=item.name,
                    schema_title=f"system.{item.type}",
                    schema_version="0.0.1",
                    uri=item.uri,
                    metadata=dict(item.metadata),
                    created_at=self._tick(),
                    namespace="default",
                    run_id=run.run_id,
                    task_id=task_id,
                    digest=item.digest,
                )
                self._store.artifacts.put(artifact)
                written[key] = (*written.get(key, ()), artifact.artifact_id)
        return written

    def _relate(self, task: Task, kind: InputKind, side: dict[str, tuple[str, ...]]) -> None:
        for key, identifiers in side.items():
            for identifier in identifiers:
                self._store.artifact_tasks.put(
                    ArtifactTask(
                        id=f"{self._tick():020.3f}",
                        artifact_id=identifier,
                        run_id=task.run_id,
                        task_id=task.task_id,
                        type=kind,
                        key=key,
                    )
                )

    def _tick(self) -> float:
        self._time += 0.001
        return self._time
