"""Experiments: groups of runs."""

from __future__ import annotations

from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kubeloop.local.pipelines.lists import Listing, list_page
from kubeloop.local.pipelines.messages import text
from kubeloop.local.pipelines.rendering import render_experiment
from kubeloop.local.pipelines.routes.http import read_message, reply, route
from kubeloop.local.pipelines.rpc_errors import (
    RpcCode,
    RpcError,
    invalid,
    not_found,
    precondition,
)
from kubeloop.local.pipelines.service import Service
from kubeloop.local.pipelines.storage.records import (
    DEFAULT_EXPERIMENT,
    Experiment,
    StorageState,
    new_id,
)
from kubeloop.local.pipelines.storage.tables import Query

_FIELDS = (
    "experiment_id",
    "display_name",
    "description",
    "created_at",
    "namespace",
    "storage_state",
    "last_run_created_at",
)
_KEYS = {
    "experiment_id": "experiment_id",
    "id": "experiment_id",
    "display_name": "display_name",
    "name": "display_name",
    "created_at": "created_at",
    "last_run_created_at": "last_run_created_at",
    "description": "description",
    "namespace": "namespace",
    "storage_state": "storage_state",
}


class ExperimentRoutes:
    """Handlers of `/experiments`."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._store = service.store
        self._listing = Listing(table=self._store.experiments, key="experiment_id", keys=_KEYS)

    def routes(self) -> list[Route]:
        """All routes of experiments."""
        one = "/experiments/{experiment_id}"
        return [
            route("/experiments", self.create, method="POST"),
            route("/experiments", self.list_all, method="GET"),
            route(f"{one}:archive", self.archive, method="POST"),
            route(f"{one}:unarchive", self.unarchive, method="POST"),
            route(one, self.get, method="GET"),
            route(one, self.delete, method="DELETE"),
        ]

    async def create(self, request: Request) -> Response:
        message = await read_message(request, kind="Experiment", fields=_FIELDS)
        name = text(message, "display_name")
        if not name:
            raise invalid("An experiment needs a display_name.")
        query = Query(where="display_name = ?", values=(name,), limit=1)
        if self._store.experiments.select(query):
            raise RpcError(
                RpcCode.ALREADY_EXISTS, f"An experiment named {name!r} exists; choose another name."
            )
        experiment = Experiment(
            experiment_id=new_id(),
            display_name=name,
            description=text(message, "description"),
            created_at=self._service.clock(),
            namespace=self._service.namespace,
        )
        self._store.experiments.put(experiment)
        return reply(render_experiment(experiment))

    async def list_all(self, request: Request) -> Response:
        params = dict(request.query_params)
        page = list_page(self._listing, params, only={"namespace": params.get("namespace", "")})
        return reply(
            {
                "experiments": [render_experiment(item) for item in page.records],
                "total_size": page.total_size,
                "next_page_token": page.next_page_token,
            }
        )

    async def get(self, request: Request) -> Response:
        return reply(render_experiment(self._find(request)))

    async def delete(self, request: Request) -> Response:
        experiment = self._find(request)
        if experiment.display_name == DEFAULT_EXPERIMENT:
            raise precondition("The experiment Default cannot be deleted.")
        self._store.experiments.delete("experiment_id = ?", (experiment.experiment_id,))
        return reply({})

    async def archive(self, request: Request) -> Response:
        """Archive an experiment and its runs; its recurring runs stop."""
        experiment = self._find(request)
        identifier = experiment.experiment_id
        own = Query(where="experiment_id = ?", values=(identifier,))
        with self._store.transaction():
            self._put(experiment, StorageState.ARCHIVED)
            for run in self._store.runs.select(own):
                self._store.runs.put(replace(run, storage_state=StorageState.ARCHIVED))
            for recurring in self._store.recurring_runs.select(own):
                self._store.recurring_runs.put(replace(recurring, enabled=False))
        return reply({})

    async def unarchive(self, request: Request) -> Response:
        """Unarchive an experiment; its runs stay as they are."""
        self._put(self._find(request), StorageState.AVAILABLE)
        return reply({})

    def _put(self, experiment: Experiment, state: StorageState) -> None:
        self._store.experiments.put(replace(experiment, storage_state=state))

    def _find(self, request: Request) -> Experiment:
        identifier = request.path_params["experiment_id"]
        experiment = self._store.experiments.get(identifier)
        if experiment is None:
            raise not_found("Experiment", identifier)
        return experiment
