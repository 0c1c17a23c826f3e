"""Run-scoped tasks and artifacts: what KFP's own API offers after ML Metadata's removal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kubeloop.local.pipelines.lists import Listing, list_page
from kubeloop.local.pipelines.rendering import (
    render_artifact,
    render_artifact_task,
    render_task,
    render_tasks,
)
from kubeloop.local.pipelines.routes.http import reply, route
from kubeloop.local.pipelines.rpc_errors import invalid, not_found
from kubeloop.local.pipelines.service import Service
from kubeloop.local.pipelines.storage.records import Artifact, InputKind, Task
from kubeloop.local.pipelines.storage.store import Store
from kubeloop.local.pipelines.storage.tables import Query

_ARTIFACT_KEYS = {
    "artifact_id": "artifact_id",
    "id": "artifact_id",
    "name": "name",
    "uri": "uri",
    "created_at": "created_at",
    "namespace": "namespace",
    "type": "schema_title",
    "run_id": "run_id",
    "task_id": "task_id",
}
_RELATION_KEYS = {
    "id": "id",
    "artifact_id": "artifact_id",
    "run_id": "run_id",
    "task_id": "task_id",
    "type": "type",
}
_TASK_KEYS = {
    "task_id": "task_id",
    "id": "task_id",
    "name": "name",
    "display_name": "display_name",
    "run_id": "run_id",
    "parent_task_id": "parent_id",
    "status": "state",
    "state": "state",
    "type": "type",
    "create_time": "create_time",
    "start_time": "start_time",
    "end_time": "end_time",
    "cache_fingerprint": "fingerprint",
}
_MAX_IDENTIFIERS = 500


def artifacts_of(store: Store, tasks: Iterable[Task]) -> dict[str, Artifact]:
    """The artifacts that tasks take or give, by identifier."""
    identifiers = {
        identifier
        for task in tasks
        for values in (task.inputs, task.outputs)
        for found in values.artifacts.values()
        for identifier in found
    }
    return {found.artifact_id: found for found in store.get_artifacts(tuple(sorted(identifiers)))}


class MetadataRoutes:
    """Handlers of `/tasks`, `/artifacts` and `/artifact_tasks`."""

    def __init__(self, service: Service) -> None:
        self._store = service.store
        self._artifacts = Listing(
            table=self._store.artifacts, key="artifact_id", keys=_ARTIFACT_KEYS
        )
        self._relations = Listing(
            table=self._store.artifact_tasks, key="id", keys=_RELATION_KEYS, default="id"
        )
        self._tasks = Listing(
            table=self._store.tasks, key="task_id", keys=_TASK_KEYS, default="create_time"
        )

    def routes(self) -> list[Route]:
        """All routes of tasks and artifacts."""
        return [
            route("/artifacts", self.list_artifacts, method="GET"),
            route("/artifacts/{artifact_id}", self.get_artifact, method="GET"),
            route("/artifact_tasks", self.list_relations, method="GET"),
            route("/tasks", self.list_tasks, method="GET"),
            route("/tasks/{task_id}", self.get_task, method="GET"),
            route("/runs/{run_id}/tasks", self.list_tasks, method="GET"),
            route("/runs/{run_id}/tasks/{task_id}", self.get_task, method="GET"),
        ]

    async def list_artifacts(self, request: Request) -> Response:
        params = dict(request.query_params)
        page = list_page(self._artifacts, params, only={"namespace": params.get("namespace", "")})
        return reply(
            {
                "artifacts": [render_artifact(item) for item in page.records],
                "total_size": page.total_size,
                "next_page_token": page.next_page_token,
            }
        )

    async def get_artifact(self, request: Request) -> Response:
        identifier = request.path_params["artifact_id"]
        artifact = self._store.artifacts.get(identifier)
        if artifact is None:
            raise not_found("Artifact", identifier)
        return reply(render_artifact(artifact))

    async def list_relations(self, request: Request) -> Response:
        """Which tasks took or gave which artifacts."""
        within = {
            column: _identifiers(request, f"{column}s")
            for column in ("task_id", "run_id", "artifact_id")
        }
        kinds = _kinds(request.query_params.get("type", ""))
        page = list_page(
            self._relations, dict(request.query_params), only={**within, "type": kinds}
        )
        return reply(
            {
                "artifact_tasks": [render_artifact_task(item) for item in page.records],
                "total_size": page.total_size,
                "next_page_token": page.next_page_token,
            }
        )

    async def list_tasks(self, request: Request) -> Response:
        """The tasks of a run, below a parent, or all: a namespace holds all there are."""
        params = dict(request.query_params)
        if "order_by" in params:
            params["sort_by"] = params["order_by"]
        run_id = request.path_params.get("run_id") or params.get("run_id", "")
        parent_id = params.get("parent_id", "")
        page = list_page(self._tasks, params, only={"run_id": run_id, "parent_id": parent_id})
        tasks = self._store.with_reports(page.records)
        artifacts = artifacts_of(self._store, tasks)
        rendered: list[dict[str, Any]] = []
        if run_id and len(tasks) == page.total_size:
            rendered = render_tasks(tasks, artifacts=artifacts)
        else:
            rendered = [
                render_task(task, children=children_of(self._store, task), artifacts=artifacts)
                for task in tasks
            ]
        return reply(
            {
                "tasks": rendered,
                "total_size": page.total_size,
                "next_page_token": page.next_page_token,
            }
        )

    async def get_task(self, request: Request) -> Response:
        identifier = request.path_params["task_id"]
        found = self._store.tasks.get(identifier)
        if found is None or request.path_params.get("run_id", found.run_id) != found.run_id:
            raise not_found("Task", identifier)
        (task,) = self._store.with_reports([found])
        artifacts = artifacts_of(self._store, [task])
        children = children_of(self._store, task)
        return reply(render_task(task, children=children, artifacts=artifacts))


def children_of(store: Store, task: Task) -> list[Task]:
    """The tasks below a task."""
    return store.tasks.select(
        Query(where="parent_id = ?", values=(task.task_id,), order="create_time, rowid")
    )


def _identifiers(request: Request, name: str) -> tuple[str, ...]:
    """The values of a repeated parameter, also where they are joined by commas."""
    given = [
        part for value in request.query_params.getlist(name) for part in value.split(",") if part
    ]
    if len(given) > _MAX_IDENTIFIERS:
        raise invalid(f"At most {_MAX_IDENTIFIERS} {name} are accepted, not {len(given)}.")
    return tuple(given)


def _kinds(written: str) -> tuple[str, ...]:
    """The kinds of relation asked for; INPUT stands for all ways of taking."""
    if written in ("", "UNSPECIFIED"):
        return ()
    if written == "INPUT":
        return tuple(kind for kind in InputKind if not kind.is_output)
    if written not in set(InputKind):
        raise invalid(f"type {written!r} is not known; give INPUT, {', '.join(InputKind)}.")
    return (written,)
