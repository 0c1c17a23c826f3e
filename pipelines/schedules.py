"""Recurring runs of pipelines, through the official KFP client.

The same calls reach the embedded plane and a cluster. Cron expressions are KFP's: they start with
seconds, and their times are the server's, which is UTC unless a cluster says otherwise.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from kubeloop.errors import InputError
from kubeloop.pipelines.packages import PipelinePackage
from kubeloop.pipelines.runs import (
    DEFAULT_EXPERIMENT,
    KfpClient,
    Run,
    parse_run,
    translated_errors,
)

_PAGE = 200
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleConfig:
    """When runs start, and how they go about it."""

    cron: str = ""
    """Second, minute, hour, day, month and weekday, or @daily and the like."""
    every_seconds: int = 0
    """Seconds between runs, instead of `cron`."""
    start: datetime | None = None
    """Nothing starts before; None: from now on."""
    end: datetime | None = None
    """Nothing starts after; None: no end."""
    max_concurrency: int = 1
    """Runs at a time, 1 to 10; further ones wait."""
    catch_up: bool = True
    """Whether every run that was missed is made up for; else only the latest is."""
    enabled: bool = True
    """Whether runs start before it is enabled."""

    def __post_init__(self) -> None:
        if bool(self.cron) == bool(self.every_seconds):
            raise InputError("Give a cron expression or an interval, and not both.")
        if self.every_seconds < 0:
            raise InputError(f"An interval is 1 second or more, not {self.every_seconds}.")
        if not 1 <= self.max_concurrency <= 10:
            raise InputError(f"max_concurrency is 1 to 10, not {self.max_concurrency}.")
        for moment in (self.start, self.end):
            if moment is not None and moment.tzinfo is None:
                raise InputError(f"{moment.isoformat()} has no time zone; give one.")
        if self.start is not None and self.end is not None and self.end < self.start:
            raise InputError(f"The end {self.end} is before the start {self.start}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A recurring run as the API presents it."""

    schedule_id: str
    name: str
    trigger: str
    """The cron expression, or "every N s"."""
    is_enabled: bool
    max_concurrency: int
    catches_up: bool
    created_at: datetime | None = None
    start: datetime | None = None
    end: datetime | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    """Why the run that is due cannot start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadedPipeline:
    """A pipeline that the API keeps in versions; a schedule of it runs the newest each time."""

    pipeline_id: str
    name: str
    package: PipelinePackage
    """Its newest version as it is now."""


def find_pipeline(client: KfpClient, name: str) -> UploadedPipeline:
    """The uploaded pipeline of this name, with its newest version.

    Raises:
        InputError: There is none, or it has no version.
    """
    with _calling(f"find pipeline {name}"):
        pipeline_id = client.get_pipeline_id(name)
    if pipeline_id is None:
        msg = (
            f"No pipeline {name!r} has been uploaded; upload one with kfp.Client().upload_pipeline,"
            " and its next versions with upload_pipeline_version."
        )
        raise InputError(msg)
    with _calling(f"read pipeline {name}"):
        page = client.list_pipeline_versions(
            pipeline_id=pipeline_id, page_size=1, sort_by="created_at desc"
        )
    versions = page.pipeline_versions or []
    if not versions:
        raise InputError(f"Pipeline {name!r} has no version; upload one.")
    documents = dict(versions[0].pipeline_spec)
    package = PipelinePackage(
        path=Path(name),
        spec=documents.get("pipeline_spec", documents),
        platform_spec=documents.get("platform_spec") or {},
    )
    return UploadedPipeline(pipeline_id=pipeline_id, name=name, package=package)


def schedule(
    client: KfpClient,
    pipeline: PipelinePackage | UploadedPipeline,
    *,
    config: ScheduleConfig,
    parameters: Mapping[str, Any],
    name: str = "",
    experiment: str = DEFAULT_EXPERIMENT,
    pipeline_root: str = "",
    enable_caching: bool | None = None,
) -> str:
    """Create a recurring run of a pipeline.

    Args:
        client: From `connect`.
        pipeline: What to run: a compiled pipeline as it is now, or the version of an uploaded one
            that is the newest when a run starts.
        config: When.
        parameters: Pipeline parameters; texts may hold `[[ScheduledTime]]`, `[[Index]]` and the
            like.
        name: Display name; empty: the pipeline's.
        experiment: KFP experiment, made when missing.
        pipeline_root: Where artifacts go; empty: the server's default.
        enable_caching: Overrides what the tasks of a compiled pipeline say.

    Returns:
        The recurring run's id.

    Raises:
        InputError: The API refused the pipeline, its parameters or the schedule.
    """
    what: dict[str, str]
    if isinstance(pipeline, UploadedPipeline):
        # NB: to the API no version means the newest; the client demands that one is given.
        what = {"pipeline_id": pipeline.pipeline_id, "version_id": ""}
    else:
        what = {"pipeline_package_path": str(pipeline.path)}
    with _calling(f"schedule {name or pipeline.name}"):
        made = client.create_recurring_run(
            experiment_id=client.create_experiment(experiment).experiment_id,
            job_name=name or pipeline.name,
            start_time=_render_time(config.start),
            end_time=_render_time(config.end),
            interval_second=config.every_seconds or None,
            cron_expression=config.cron or None,
            max_concurrency=config.max_concurrency,
            no_catchup=not config.catch_up,
            params=dict(parameters),
            **what,
            pipeline_root=pipeline_root or None,
            enable_caching=enable_caching,
            enabled=config.enabled,
        )
    return str(made.recurring_run_id)


def list_schedules(client: KfpClient) -> list[Schedule]:
    """All recurring runs, newest first."""
    found: list[Schedule] = []
    token = ""
    with _calling("list recurring runs"):
        while True:
            page = client.list_recurring_runs(
                page_token=token, page_size=_PAGE, sort_by="created_at desc"
            )
            found += [_parse_schedule(raw) for raw in page.recurring_runs or []]
            token = page.next_page_token or ""
            if not token:
                return found


def find_schedule(client: KfpClient, name: str) -> Schedule:
    """The recurring run of this id, start of an id, or display name.

    Raises:
        InputError: There is none, or several.
    """
    known = list_schedules(client)
    found = [item for item in known if name in (item.schedule_id, item.name)]
    found = found or [item for item in known if item.schedule_id.startswith(name)]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(f"{item.name} ({item.schedule_id})" for item in found or known) or "none"
    if found:
        raise InputError(f"Several schedules are called {name!r}; give the id of one: {listed}.")
    raise InputError(f"No schedule {name!r}; there are: {listed}.")


def list_runs_of(client: KfpClient, schedule_id: str, *, limit: int = 1) -> tuple[list[Run], int]:
    """The latest runs of a recurring run, newest first, and how many there are in all."""
    predicate = {"operation": 1, "key": "recurring_run_id", "stringValue": schedule_id}
    with _calling(f"list runs of {schedule_id}"):
        page = client.list_runs(
            page_size=limit,
            sort_by="scheduled_at desc",
            filter=json.dumps({"predicates": [predicate]}),
        )
    return [parse_run(raw) for raw in page.runs or []], page.total_size or 0


def enable(client: KfpClient, schedule_id: str) -> None:
    """Let a recurring run start runs again."""
    with _calling(f"enable {schedule_id}"):
        client.enable_recurring_run(schedule_id)


def disable(client: KfpClient, schedule_id: str) -> None:
    """Let a recurring run start no more runs; those that are active go on."""
    with _calling(f"disable {schedule_id}"):
        client.disable_recurring_run(schedule_id)


def delete(client: KfpClient, schedule_id: str) -> None:
    """Delete a recurring run; its runs stay."""
    with _calling(f"delete {schedule_id}"):
        client.delete_recurring_run(schedule_id)


def parse_interval(text: str) -> int:
    """Seconds of an interval such as `90s`, `15m`, `1h30m` or `1d`.

    Raises:
        InputError: It is not one.
    """
    parts = re.findall(r"(\d{1,9})([smhd])", text)
    seconds = sum(int(number) * _UNIT_SECONDS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or not seconds:
        raise InputError(f"{text!r} is no interval; give one such as 90s, 15m, 1h30m or 1d.")
    return seconds


@contextlib.contextmanager
def _calling(action: str) -> Iterator[None]:
    """Call the SDK: its exceptions become ours, and the links that it prints go nowhere."""
    with translated_errors(action), contextlib.redirect_stdout(io.StringIO()):
        yield


def _render_time(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None


def _parse_schedule(raw: Any) -> Schedule:  # Any: kfp_server_api's V2beta1RecurringRun
    trigger = raw.trigger
    cron = trigger.cron_schedule if trigger else None
    periodic = trigger.periodic_schedule if trigger else None
    timed = cron or periodic
    return Schedule(
        schedule_id=raw.recurring_run_id,
        name=raw.display_name or "",
        trigger=cron.cron if cron else f"every {periodic.interval_second} s" if periodic else "",
        is_enabled=raw.status == "ENABLED",
        max_concurrency=int(raw.max_concurrency or 1),
        catches_up=not raw.no_catchup,
        created_at=raw.created_at,
        start=timed.start_time if timed else None,
        end=timed.end_time if timed else None,
        parameters=(raw.runtime_config.parameters if raw.runtime_config else None) or {},
        error=(raw.error.message or "") if raw.error else "",
    )
