"""Recurring runs: make, look at, enable and disable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kubeloop.local.pipelines.lists import Listing, list_page
from kubeloop.local.pipelines.messages import choice, flag, text, whole_number
from kubeloop.local.pipelines.rendering import render_recurring_run
from kubeloop.local.pipelines.routes.http import read_message, reply, route
from kubeloop.local.pipelines.rpc_errors import invalid, not_found
from kubeloop.local.pipelines.schedules.triggers import parse_trigger
from kubeloop.local.pipelines.service import Service
from kubeloop.local.pipelines.storage.records import RecurringRun, new_id
from kubeloop.local.pipelines.submission import Submission, read_config

_FIELDS = (
    "recurring_run_id",
    "display_name",
    "description",
    "pipeline_version_id",
    "pipeline_spec",
    "pipeline_version_reference",
    "runtime_config",
    "service_account",
    "max_concurrency",
    "trigger",
    "mode",
    "created_at",
    "updated_at",
    "status",
    "error",
    "no_catchup",
    "namespace",
    "experiment_id",
    "plugins_input",
)
_KEYS = {
    "recurring_run_id": "recurring_run_id",
    "id": "recurring_run_id",
    "display_name": "display_name",
    "name": "display_name",
    "created_at": "created_at",
    "updated_at": "updated_at",
    "description": "description",
}
_MODES = ("MODE_UNSPECIFIED", "ENABLE", "DISABLE")
_MAX_CONCURRENCY = 10


class RecurringRunRoutes:
    """Handlers of `/recurringruns`."""

    def __init__(self, service: Service, *, wake: Callable[[], None]) -> None:
        """Args:
        service: Shared by all routes.
        wake: Called when what is due may have changed.
        """
        self._service = service
        self._store = service.store
        self._submission = Submission(service)
        self._wake = wake
        self._listing = Listing(
            table=self._store.recurring_runs, key="recurring_run_id", keys=_KEYS
        )

    def routes(self) -> list[Route]:
        """All routes of recurring runs."""
        one = "/recurringruns/{recurring_run_id}"
        return [
            route("/recurringruns", self.create, method="POST"),
            route("/recurringruns", self.list_all, method="GET"),
            route(f"{one}:enable", self.enable, method="POST"),
            route(f"{one}:disable", self.disable, method="POST"),
            route(one, self.get, method="GET"),
            route(one, self.delete, method="DELETE"),
        ]

    async def create(self, request: Request) -> Response:
        """Make a recurring run; a version that it names is kept as it is now."""
        message = await read_message(request, kind="RecurringRun", fields=_FIELDS)
        if not text(message, "display_name"):
            raise invalid("A recurring run needs a display_name.")
        concurrency = whole_number(message, "max_concurrency")
        if not 1 <= concurrency <= _MAX_CONCURRENCY:
            raise invalid(
                f"The max_concurrency of a recurring run is {concurrency}; give 1 to "
                f"{_MAX_CONCURRENCY}."
            )
        trigger = parse_trigger(message.get("trigger", {}))
        source, config = self._submission.read_source(message), read_config(message)
        self._submission.check(source, config)
        experiment = self._submission.find_experiment(text(message, "experiment_id"))
        reference = message.get("pipeline_version_reference", {})
        follows_latest = bool(reference) and not reference.get("pipeline_version_id")
        now = self._service.clock()
        recurring = RecurringRun(
            recurring_run_id=new_id(),
            experiment_id=experiment.experiment_id,
            display_name=text(message, "display_name"),
            description=text(message, "description"),
            created_at=now,
            updated_at=now,
            namespace=self._service.namespace,
            spec={} if follows_latest else source.document.to_json(),
            parameters=dict(config.parameters),
            pipeline_id=source.pipeline_id,
            pipeline_version_id="" if follows_latest else source.pipeline_version_id,
            pipeline_root=config.pipeline_root,
            service_account=text(message, "service_account"),
            trigger=trigger.to_json(),
            max_concurrency=concurrency,
            no_catchup=flag(message, "no_catchup"),
            enabled=choice(message, "mode", _MODES) == "ENABLE",
        )
        self._store.recurring_runs.put(recurring)
        self._wake()
        return reply(render_recurring_run(recurring))

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
        return reply(render_recurring_run(self._find(request)))

    async def enable(self, request: Request) -> Response:
        return self._change(request, enabled=True)

    async def disable(self, request: Request) -> Response:
        return self._change(request, enabled=False)

    async def delete(self, request: Request) -> Response:
        """Forget a recurring run; the runs that it started stay."""
        identifier = self._find(request).recurring_run_id
        self._store.recurring_runs.delete("recurring_run_id = ?", (identifier,))
        return reply({})

    def _change(self, request: Request, *, enabled: bool) -> Response:
        found = self._find(request)
        changed = replace(found, enabled=enabled, updated_at=self._service.clock())
        self._store.recurring_runs.put(changed)
        self._wake()
        return reply({})

    def _find(self, request: Request) -> RecurringRun:
        identifier = request.path_params["recurring_run_id"]
        recurring = self._store.recurring_runs.get(identifier)
        if recurring is None:
            raise not_found("Recurring run", identifier)
        return recurring
