"""Starts the runs of recurring runs when they are due.

Level-based: each look reads the store, starts what is due, and says when to look again. A run and
the note that its tick is done are written in one transaction, so that a restart neither repeats a
tick nor, where missed ticks are caught up on, loses one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable
from dataclasses import replace

from kubeloop.errors import KubeloopError
from kubeloop.local.pipelines.schedules.triggers import parse_trigger
from kubeloop.local.pipelines.service import Service
from kubeloop.local.pipelines.spec.documents import document_from_json
from kubeloop.local.pipelines.storage.records import RecurringRun, Run, RuntimeState
from kubeloop.local.pipelines.storage.tables import Query
from kubeloop.local.pipelines.submission import RunRequest, RuntimeConfig, Source, Submission

logger = logging.getLogger(__name__)

_LONGEST_WAIT_SECONDS = 10.0  # a timer does not see that the machine slept or its clock was set
_BLOCKED_WAIT_SECONDS = 0.5
_RETRY_WAIT_SECONDS = 10.0
_FINAL = tuple(state for state in RuntimeState if state.is_final)


class RecurringRuns:
    """Drives all recurring runs of the store."""

    def __init__(self, service: Service, *, submit: Callable[[Run], None]) -> None:
        """Args:
        service: The store, and the clock that decides what is due.
        submit: Told of each new run.
        """
        self._store = service.store
        self._clock = service.clock
        self._submission = Submission(service)
        self._submit = submit
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Look again at once: something was made or changed."""
        self._changed.set()

    async def run(self) -> None:
        """Start runs until cancelled."""
        while True:
            self._changed.clear()
            wait_seconds = self.reconcile()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), timeout=wait_seconds)

    def reconcile(self) -> float:
        """Start what is due; answers after how many seconds to look again."""
        enabled = Query(where="enabled = ?", values=(True,), order="created_at, rowid")
        wait_seconds = _LONGEST_WAIT_SECONDS
        for recurring in self._store.recurring_runs.select(enabled):
            try:
                wait_seconds = min(wait_seconds, self._advance(recurring))
            except Exception:  # what is wrong with one must not stop the runs of all
                logger.exception("recurring run waits", extra={"uid": recurring.recurring_run_id})
        return wait_seconds

    def _advance(self, recurring: RecurringRun) -> float:
        """Start the runs of one recurring run that are due now, as far as its limit allows."""
        trigger = parse_trigger(recurring.trigger)
        while True:
            now = self._clock()
            tick = trigger.next_tick(
                last=recurring.last_tick,
                created=int(recurring.created_at),
                now=int(now),
                catches_up=not recurring.no_catchup,
            )
            if tick is None:
                return _LONGEST_WAIT_SECONDS
            if tick > now:
                return min(tick - now, _LONGEST_WAIT_SECONDS)
            if self._num_active(recurring) >= recurring.max_concurrency:
                return _BLOCKED_WAIT_SECONDS
            try:
                recurring = self._start(recurring, tick)
            except KubeloopError as error:
                self._note_failure(recurring, error)
                return _RETRY_WAIT_SECONDS

    def _num_active(self, recurring: RecurringRun) -> int:
        marks = ", ".join("?" * len(_FINAL))
        where = f"recurring_run_id = ? AND state NOT IN ({marks})"
        return self._store.runs.count(
            Query(where=where, values=(recurring.recurring_run_id, *_FINAL))
        )

    def _start(self, recurring: RecurringRun, tick: int) -> RecurringRun:
        index = recurring.last_index + 1
        with self._store.transaction():
            run = self._submission.create(
                RunRequest(
                    display_name=f"{resource_name(recurring)}-{index}",
                    description=recurring.description,
                    experiment_id=recurring.experiment_id,
                    source=self._find_source(recurring),
                    config=RuntimeConfig(
                        parameters=recurring.parameters, pipeline_root=recurring.pipeline_root
                    ),
                    service_account=recurring.service_account,
                    recurring_run_id=recurring.recurring_run_id,
                    scheduled_at=tick,
                    index=index,
                )
            )
            advanced = replace(recurring, last_tick=tick, last_index=index, error="")
            self._store.recurring_runs.put(advanced)
        self._submit(run)
        return advanced

    def _find_source(self, recurring: RecurringRun) -> Source:
        if recurring.spec:
            return Source(
                document=document_from_json(recurring.spec),
                pipeline_id=recurring.pipeline_id,
                pipeline_version_id=recurring.pipeline_version_id,
            )
        return self._submission.find_source(recurring.pipeline_id, "")

    def _note_failure(self, recurring: RecurringRun, error: KubeloopError) -> None:
        if recurring.error != str(error):
            logger.warning(
                "recurring run cannot start a run",
                extra={"uid": recurring.recurring_run_id, "cause": error},
            )
            self._store.recurring_runs.put(replace(recurring, error=str(error)))


def resource_name(recurring: RecurringRun) -> str:
    """The prefix of the names of its runs: its own name, made unique."""
    slug = re.sub(r"[^a-z0-9]+", "", recurring.display_name.lower())
    return f"{slug[:25] or 'job'}{recurring.recurring_run_id[:5]}"
