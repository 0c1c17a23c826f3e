"""Runs: create, look at, steer."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kubeloop.local.pipelines.lists import Listing, list_page
from kubeloop.local.pipelines.messages import text
from kubeloop.local.pipelines.rendering import render_run, render_task_details, render_tasks
from kubeloop.local.pipelines.routes.http import read_message, reply, route
from kubeloop.local.pipelines.routes.metadata import artifacts_of
from kubeloop.local.pipelines.rpc_errors import invalid, not_found, precondition
from kubeloop.local.pipelines.service import Service
from kubeloop.local.pipelines.spec.documents import MAX_PACKAGE_BYTES
from kubeloop.local.pipelines.spec.uris import is_local, local_path
from kubeloop.local.pipelines.storage.records import Run, RuntimeState, StorageState
from kubeloop.local.pipelines.submission import RunRequest, Submission, read_config

_FIELDS = (
    "experiment_id",
    "run_id",
    "display_name",
    "storage_state",
    "description",
    "pipeline_version_id",
    "pipeline_spec",
    "pipeline_version_reference",
    "runtime_config",
    "service_account",
    "created_at",
    "scheduled_at",
    "finished_at",
    "state",
    "error",
    "run_details",
    "recurring_run_id",
    "state_history",
    "pipeline_id",
    "tasks",
    "plugins_input",
    "plugins_output",
)
_KEYS = {
    "run_id": "run_id",
    "id": "run_id",
    "display_name": "display_name",
    "name": "display_name",
    "created_at": "created_at",
    "finished_at": "finished_at",
    "description": "description",
    "scheduled_at": "scheduled_at",
    "storage_state": "storage_state",
    "status": "state",
    "state": "state",
    "namespace": "namespace",
    "experiment_id": "experiment_id",
    "recurring_run_id": "recurring_run_id",
}
_TERMINABLE = frozenset(
    (
        RuntimeState.PAUSED,
        RuntimeState.PENDING,
        RuntimeState.RUNNING,
        RuntimeState.UNSPECIFIED,
    )
)


class RunRoutes:
    """Handlers of `/runs`."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._store = service.store
        self._engine = service.engine
        self._submission = Submission(service)
        self._listing = Listing(table=self._store.runs, key="run_id", keys=_KEYS)

    def routes(self) -> list[Route]:
        """All routes of runs."""
        one = "/runs/{run_id}"
        return [
            route("/runs", self.create, method="POST"),
            route("/runs", self.list_all, method="GET"),
            route(f"{one}:archive", self.archive, method="POST"),
            route(f"{one}:unarchive", self.unarchive, method="POST"),
            route(f"{one}:terminate", self.terminate, method="POST"),
            route(f"{one}:retry", self.retry, method="POST"),
            route(
                f"{one}/nodes/{{node_id}}/artifacts/{{name}}:read", self.read_artifact, method="GET"
            ),
            route(one, self.get, method="GET"),
            route(one, self.delete, method="DELETE"),
        ]

    async def create(self, request: Request) -> Response:
        message = await read_message(request, kind="Run", fields=_FIELDS)
        if not text(message, "display_name"):
            raise invalid("A run needs a display_name.")
        run = self._submission.create(
            RunRequest(
                display_name=text(message, "display_name"),
                description=text(message, "description"),
                experiment_id=request.query_params.get("experiment_id", "")
                or text(message, "experiment_id"),
                service_account=text(message, "service_account"),
                recurring_run_id=text(message, "recurring_run_id"),
                source=self._submission.read_source(message),
                config=read_config(message),
            )
        )
        self._engine.submit(run)
        return reply(render_run(run))

    async def list_all(self, request: Request) -> Response:
        params = dict(request.query_params)
        only = {name: params.get(name, "") for name in ("namespace", "experiment_id")}
        page = list_page(self._listing, params, only=only)
        return reply(
            {
                "runs": [render_run(run) for run in page.records],
                "total_size": page.total_size,
                "next_page_token": page.next_page_token,
            }
        )

    async def get(self, request: Request) -> Response:
        """A run with all its tasks, as both generations of clients read them."""
        run = self._find(request)
        tasks = self._store.with_reports(self._store.all_tasks_of(run.run_id))
        rendered = render_run(run)
        rendered["run_details"] = {"task_details": render_task_details(tasks)}
        rendered["tasks"] = render_tasks(tasks, artifacts=artifacts_of(self._store, tasks))
        return reply(rendered)

    async def archive(self, request: Request) -> Response:
        self._store.runs.put(replace(self._find(request), storage_state=StorageState.ARCHIVED))
        return reply({})

    async def unarchive(self, request: Request) -> Response:
        run = self._find(request)
        experiment = self._store.experiments.get(run.experiment_id)
        if experiment is not None and experiment.storage_state is StorageState.ARCHIVED:
            raise precondition(
                f"Experiment {experiment.display_name!r} is archived; unarchive it before its runs."
            )
        self._store.runs.put(replace(run, storage_state=StorageState.AVAILABLE))
        return reply({})

    async def terminate(self, request: Request) -> Response:
        run = self._find(request)
        if run.state not in _TERMINABLE:
            raise precondition(
                f"Failed to terminate a run {run.run_id}. Row not found: its state is {run.state}."
            )
        self._engine.terminate(run)
        return reply({})

    async def retry(self, request: Request) -> Response:
        run = self._find(request)
        if run.state is not RuntimeState.FAILED:
            raise precondition(
                f"Run {run.run_id} cannot be retried: its state is {run.state}, and only failed "
                "runs are retried."
            )
        self._engine.retry(run)
        return reply({})

    async def delete(self, request: Request) -> Response:
        await self._engine.forget(self._find(request))
        return reply({})

    async def read_artifact(self, request: Request) -> Response:
        """The bytes of an artifact that a task gave."""
        task = self._store.tasks.get(request.path_params["node_id"])
        name = request.path_params["name"]
        found = self._store.get_artifacts(task.outputs.artifacts.get(name, ())) if task else []
        if task is None or task.run_id != request.path_params["run_id"] or not found:
            raise not_found("Artifact", name)
        path = Path(local_path(found[0].uri))
        if not is_local(found[0].uri) or not path.is_file():
            raise not_found("File", found[0].uri)
        if path.stat().st_size > MAX_PACKAGE_BYTES:
            raise invalid(f"The file {path} is larger than {MAX_PACKAGE_BYTES} bytes.")
        return reply({"data": base64.b64encode(path.read_bytes()).decode()})

    def _find(self, request: Request) -> Run:
        identifier = request.path_params["run_id"]
        run = self._store.runs.get(identifier)
        if run is None:
            raise not_found("Run", identifier)
        return run
