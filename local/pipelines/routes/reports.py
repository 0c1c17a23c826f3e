"""Reports of tasks and artifacts by clients: steps that keep their own book."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kubeloop.local.pipelines.engine.outputs import digest_uri
from kubeloop.local.pipelines.rendering import render_artifact, render_artifact_task, render_task
from kubeloop.local.pipelines.reported_tasks import TaskReports
from kubeloop.local.pipelines.reporting import ArtifactReports
from kubeloop.local.pipelines.routes.http import read_json, read_message, reply, route
from kubeloop.local.pipelines.routes.metadata import artifacts_of, children_of
from kubeloop.local.pipelines.rpc_errors import invalid
from kubeloop.local.pipelines.service import Service
from kubeloop.local.pipelines.storage.records import Artifact, ArtifactTask, Task


class ReportRoutes:
    """Handlers that write `/tasks`, `/artifacts` and `/artifact_tasks`.

    Tasks are also written below their run, where KFP serves them since it released them.
    """

    def __init__(self, service: Service) -> None:
        self._store = service.store
        self._artifacts = ArtifactReports(service)
        self._tasks = TaskReports(service)

    def routes(self) -> list[Route]:
        """All routes that write."""
        below_run = "/runs/{run_id}/tasks"
        return [
            route("/artifacts:batchCreate", self.create_artifacts, method="POST"),
            route("/artifacts", self.create_artifact, method="POST"),
            route("/artifact_tasks:batchCreate", self.create_relations, method="POST"),
            route("/artifact_tasks", self.create_relation, method="POST"),
            *(
                handler
                for tasks in ("/tasks", below_run)
                for handler in (
                    route(f"{tasks}:batchUpdate", self.update_tasks, method="POST"),
                    route(tasks, self.create_task, method="POST"),
                    route(f"{tasks}/{{task_id}}", self.update_task, method="PATCH"),
                )
            ),
        ]

    async def create_artifact(self, request: Request) -> Response:
        """Record an artifact that a task gave."""
        (created,) = await self._create_artifacts([await read_json(request)])
        return reply(render_artifact(created))

    async def create_artifacts(self, request: Request) -> Response:
        """Record several artifacts, all or none."""
        created = await self._create_artifacts(await _read_batch(request, "artifacts"))
        return reply({"artifacts": [render_artifact(artifact) for artifact in created]})

    async def create_relation(self, request: Request) -> Response:
        """Record that a task took or gave an artifact which exists."""
        fields = ("artifact_task",)
        body = await read_message(request, kind="CreateArtifactTaskRequest", fields=fields)
        (created,) = self._create_relations([body.get("artifact_task", {})])
        return reply(render_artifact_task(created))

    async def create_relations(self, request: Request) -> Response:
        """Record several relations of one run, all or none."""
        created = self._create_relations(await _read_batch(request, "artifact_tasks"))
        return reply({"artifact_tasks": [render_artifact_task(relation) for relation in created]})

    async def create_task(self, request: Request) -> Response:
        """Make a task that the client keeps."""
        run_id = request.path_params.get("run_id", "")
        task = self._tasks.read_new_task(await read_json(request), run_id=run_id)
        self._store.tasks.put(task)
        return reply(self._render(task))

    async def update_task(self, request: Request) -> Response:
        """Change a task that the client keeps; what the message does not name stays."""
        body = await read_json(request)
        task = self._change(request, request.path_params["task_id"], body)
        self._store.tasks.put(task)
        return reply(self._render(task))

    async def update_tasks(self, request: Request) -> Response:
        """Change several tasks, all or none."""
        fields = ("run_id", "tasks")
        body = await read_message(request, kind="UpdateTasksBulkRequest", fields=fields)
        changes = body.get("tasks")
        if not isinstance(changes, dict) or not changes:
            raise invalid("tasks is an object of at least one task by its identifier.")
        changed = [self._change(request, key, value) for key, value in changes.items()]
        with self._store.transaction():
            for task in changed:
                self._store.tasks.put(task)
        return reply({"tasks": {task.task_id: self._render(task) for task in changed}})

    def _change(self, request: Request, task_id: str, value: Any) -> Task:
        run_id = request.path_params.get("run_id", "")
        return self._tasks.read_change(task_id, value, run_id=run_id)

    async def _create_artifacts(self, requests: list[Any]) -> list[Artifact]:
        reported = [self._artifacts.read_artifact(item) for item in requests]
        artifacts = [
            replace(item.artifact, digest=await asyncio.to_thread(digest_uri, item.artifact.uri))
            for item in reported
        ]
        with self._store.transaction():
            for artifact, item in zip(artifacts, reported, strict=True):
                self._store.artifacts.put(artifact)
                self._store.artifact_tasks.put(item.relation)
        return artifacts

    def _create_relations(self, requests: list[Any]) -> list[ArtifactTask]:
        relations = [self._artifacts.read_relation(item) for item in requests]
        if len({relation.run_id for relation in relations}) > 1:
            raise invalid("The artifact_tasks of one request belong to one run.")
        with self._store.transaction():
            for relation in relations:
                self._store.artifact_tasks.put(relation)
        return relations

    def _render(self, task: Task) -> dict[str, Any]:
        (merged,) = self._store.with_reports([task])
        artifacts = artifacts_of(self._store, [merged])
        return render_task(merged, children=children_of(self._store, task), artifacts=artifacts)


async def _read_batch(request: Request, name: str) -> list[Any]:
    body = await read_message(request, kind="bulk request", fields=(name,))
    items = body.get(name)
    if not isinstance(items, list) or not items:
        raise invalid(f"{name} is a list of at least one.")
    return items
