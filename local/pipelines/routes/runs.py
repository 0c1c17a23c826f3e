"""Runs: create, look at, steer."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kubeloop.local.pipelines.documents import (
    MAX_PACKAGE_BYTES,
    PipelineDocument,
    document_from_json,
)
from kubeloop.local.pipelines.executor import is_local
from kubeloop.local.pipelines.lists import Listing, list_page
from kubeloop.local.pipelines.parsing import parse_pipeline
from kubeloop.local.pipelines.placeholders import local_path
from kubeloop.local.pipelines.recording import change_state
from kubeloop.local.pipelines.records import (
    Experiment,
    PipelineVersion,
    Run,
    RuntimeState,
    StorageState,
    new_id,
)
from kubeloop.local.pipelines.rendering import render_run, render_task_details, render_tasks
from kubeloop.local.pipelines.routes.http import as_message, read_message, reply, route, text
from kubeloop.local.pipelines.routes.metadata import artifacts_of
from kubeloop.local.pipelines.rpc_errors import invalid, not_found, precondition
from kubeloop.local.pipelines.service import Service
from kubeloop.local.pipelines.submission import check_parameters, choose_root
from kubeloop.local.pipelines.tables import Query

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
_CONFIG_FIELDS = ("parameters", "pipeline_root")
_REFERENCE_FIELDS = ("pipeline_id", "pipeline_version_id")
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
        run = self._build(message, experiment_id=request.query_params.get("experiment_id", ""))
        self._store.runs.put(run)
        self._engine.submit(run)
        return reply(render_run(run))

    def _build(self, message: dict[str, Any], *, experiment_id: str) -> Run:
        if not text(message, "display_name"):
            raise invalid("A run needs a display_name.")
        document, version = self._read_source(message)
        pipeline = parse_pipeline(document)
        config = as_message(
            message.get("runtime_config", {}), kind="RuntimeConfig", fields=_CONFIG_FIELDS
        )
        given = config.get("parameters") or {}
        if not isinstance(given, dict):
            raise invalid(f"runtime_config.parameters is a JSON object, not {given!r}.")
        parameters = check_parameters(pipeline, given)
        experiment = self._experiment(experiment_id or text(message, "experiment_id"))
        now = self._service.clock()
        run_id = new_id()
        run = Run(
            run_id=run_id,
            experiment_id=experiment.experiment_id,
            display_name=text(message, "display_name"),
            description=text(message, "description"),
            created_at=now,
            scheduled_at=now,
            namespace=self._service.namespace,
            spec=document.to_json(),
            parameters=parameters,
            pipeline_name=pipeline.name,
            pipeline_root=text(config, "pipeline_root"),
            root=choose_root(
                pipeline,
                given=text(config, "pipeline_root"),
                default=self._service.pipeline_root,
                run_id=run_id,
            ),
            service_account=text(message, "service_account"),
            pipeline_id=version.pipeline_id if version else "",
            pipeline_version_id=version.pipeline_version_id if version else "",
        )
        self._store.experiments.put(replace(experiment, last_run_created_at=now))
        return change_state(run, RuntimeState.PENDING, now=now)

    def _read_source(
        self, message: dict[str, Any]
    ) -> tuple[PipelineDocument, PipelineVersion | None]:
        if "pipeline_spec" in message:
            return document_from_json(message["pipeline_spec"]), None
        reference = as_message(
            message.get("pipeline_version_reference", {}),
            kind="PipelineVersionReference",
            fields=_REFERENCE_FIELDS,
        )
        identifier = text(reference, "pipeline_version_id") or text(message, "pipeline_version_id")
        pipeline_id = text(reference, "pipeline_id")
        if not identifier and not pipeline_id:
            raise invalid("A run needs a pipeline_spec or a pipeline_version_reference.")
        version = self._find_version(identifier, pipeline_id=pipeline_id)
        return document_from_json(version.spec), version

    def _find_version(self, identifier: str, *, pipeline_id: str) -> PipelineVersion:
        versions = self._store.versions
        if identifier:
            version = versions.get(identifier)
            if version is None or pipeline_id not in ("", version.pipeline_id):
                raise not_found("Pipeline version", identifier)
            return version
        latest = versions.select(
            Query(
                where="pipeline_id = ?",
                values=(pipeline_id,),
                order="created_at DESC, rowid DESC",
                limit=1,
            )
        )
        if not latest:
            raise not_found("Pipeline with a version", pipeline_id)
        return latest[0]

    def _experiment(self, identifier: str) -> Experiment:
        if not identifier:
            return self._store.default_experiment(
                namespace=self._service.namespace, now=self._service.clock()
            )
        experiment = self._store.experiments.get(identifier)
        if experiment is None:
            raise not_found("Experiment", identifier)
        if experiment.storage_state is StorageState.ARCHIVED:
            raise precondition(
                f"Experiment {experiment.display_name!r} is archived; unarchive it first."
            )
        return experiment

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
        tasks = self._store.tasks_of(run.run_id)
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
