"""Recurring runs: listed and read; this version does not make them yet."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kubeloop.local.pipelines.lists import Listing, list_page
from kubeloop.local.pipelines.rendering import render_recurring_run
from kubeloop.local.pipelines.routes.http import reply, route
from kubeloop.local.pipelines.rpc_errors import RpcCode, RpcError, not_found
from kubeloop.local.pipelines.service import Service

_KEYS = {
    "recurring_run_id": "recurring_run_id",
    "id": "recurring_run_id",
    "display_name": "display_name",
    "name": "display_name",
    "created_at": "created_at",
    "updated_at": "updated_at",
    "description": "description",
}


class RecurringRunRoutes:
    """Handlers of `/recurringruns`."""

    def __init__(self, service: Service) -> None:
        self._store = service.store
        self._listing = Listing(
            table=self._store.recurring_runs, key="recurring_run_id", keys=_KEYS
        )

    def routes(self) -> list[Route]:
        """All routes of recurring runs."""
        return [
            route("/recurringruns", self.create, method="POST"),
            route("/recurringruns", self.list_all, method="GET"),
            route("/recurringruns/{recurring_run_id}", self.get, method="GET"),
        ]

    async def create(self, request: Request) -> Response:
        del request
        raise RpcError(
            RpcCode.UNIMPLEMENTED,
            "Recurring runs are not available on this machine yet; start each run by itself.",
        )

    async def list_all(self, request: Request) -> Response:
        params = dict(request.query_params)
        only = {name: params.get(name, "") for name in ("namespace", "experiment_id")}
        page = list_page(self._listing, params, only=only)
        return reply(
            {
                "recurringRuns": [render_recurring_run(item) for item in page.records],
                "total_size": page.total_size,
                "next_page_token": page.next_page_token,
            }
        )

    async def get(self, request: Request) -> Response:
        identifier = request.path_params["recurring_run_id"]
        recurring = self._store.recurring_runs.get(identifier)
        if recurring is None:
            raise not_found("Recurring run", identifier)
        return reply(render_recurring_run(recurring))
