"""Collects the metrics of trials while their pods run.

On a cluster a sidecar in each primary pod does this. Here one collector, beside the pod runner,
looks at a pod whenever its trial is looked at: it stores what was reported since the last look, and
tests the early stopping rules. Each pod's reports are a unit of their own: they go when the pod
fails, as a sidecar of a failed pod reports nothing, and are read again from the start after a
restart of the control plane, so that nothing is counted twice.

Source: katib v0.19 `cmd/metricscollector/v1beta1/file-metricscollector/main.go`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from kubeloop.local.api.logs import container_status, has_started
from kubeloop.local.client import Client, Manifest
from kubeloop.local.kubelet.pod_files import PodFiles
from kubeloop.local.operators.katib.metrics import MetricLog, require_objective
from kubeloop.local.operators.katib.observations import ObservationStore
from kubeloop.local.operators.katib.report_readers import (
    ReportReader,
    open_reader,
    read_all,
    wanted_metrics,
)
from kubeloop.local.operators.katib.stop_rules import StopRules
from kubeloop.local.operators.katib.trial_pods import list_primary_pods
from kubeloop.local.operators.pod_states import is_terminal, phase_of

_BYTES_WORTH_A_THREAD = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What is known of a trial's metrics by now."""

    is_final: bool
    """No primary pod runs any more."""
    stop: str = ""
    """Why the trial is to be stopped early; empty: it is not."""
    fault: str = ""
    """Why the metrics cannot be read; empty: they can."""


@dataclass(slots=True, kw_only=True)
class _Follower:
    """Follows one incarnation of a primary container."""

    reader: ReportReader
    rules: StopRules
    restart_count: int
    has_stored: bool = False
    fault: str = ""


_Followers = dict[str, _Follower]  # by uid of the pod


class MetricsCollector:
    """Collects for all trials; what it knows it can find out again.

    A context manager: it keeps logs open.
    """

    def __init__(self, client: Client, *, store: ObservationStore, files: PodFiles) -> None:
        self._client = client
        self._store = store
        self._files = files
        self._followers: dict[str, _Followers] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for uid in list(self._followers):
            self._close(uid)

    async def collect(self, trial: Manifest, *, has_succeeded: bool) -> Collection:
        """Store what a trial's pods have reported since the last look.

        Args:
            trial: The trial.
            has_succeeded: Whether its job has. A pod that is gone by then had done its work.
        """
        pods = await list_primary_pods(self._client, trial)
        known = self._followers.setdefault(trial["metadata"]["uid"], {})
        is_over = has_succeeded and not pods
        present = {pod["metadata"]["uid"] for pod in pods}
        if not is_over:
            for uid in self._list_sources(trial, known) - present:
                self._drop(trial, uid, known)
        for pod in pods:
            await self._look_at(trial, pod, known)
        for uid in known.keys() - present:
            await self._advance(trial, uid, known[uid], is_final=True)
        followers = known.values()
        return Collection(
            is_final=all(map(is_terminal, pods)),
            stop=_first(follower.rules.verdict for follower in followers),
            fault=_first(follower.fault for follower in followers),
        )

    def finish(self, trial: Manifest) -> tuple[MetricLog, ...]:
        """All reports of a trial that has ended; one of "unavailable" without the objective."""
        name = trial["metadata"]["name"]
        stored = self._store.read(name)
        logs = require_objective(stored, objective=wanted_metrics(trial)[0])
        if logs != stored:
            self._store.replace(name, logs)
        return logs

    def forget(self, trial: Manifest) -> None:
        """Let go of the files of a trial that needs no collecting any more."""
        self._close(trial["metadata"]["uid"])

    def _close(self, uid: str) -> None:
        for follower in self._followers.pop(uid, {}).values():
            follower.reader.close()

    async def _look_at(self, trial: Manifest, pod: Manifest, known: _Followers) -> None:
        uid, container = pod["metadata"]["uid"], trial["spec"].get("primaryContainerName") or ""
        status = container_status(pod, container)
        restart_count = int(status.get("restartCount", 0))
        follower = known.get(uid)
        if follower is not None and follower.rules.verdict:
            return
        if phase_of(pod) == "Failed":
            self._drop(trial, uid, known)
            return
        if follower is None or follower.restart_count != restart_count:
            self._drop(trial, uid, known)
            follower = None
            if has_started(status):
                follower = self._follow(trial, pod, restart_count=restart_count)
            if follower is None:
                return
            known[uid] = follower
        await self._advance(trial, uid, follower, is_final=phase_of(pod) == "Succeeded")

    def _list_sources(self, trial: Manifest, known: _Followers) -> set[str]:
        """Pods that have reported; at the first look also those of an earlier control plane."""
        return set(known) or self._store.list_sources(trial["metadata"]["name"])

    def _drop(self, trial: Manifest, uid: str, known: _Followers) -> None:
        """Let the reports of a pod go that has done its work in vain."""
        self._store.replace(trial["metadata"]["name"], (), source=uid)
        if follower := known.pop(uid, None):
            follower.reader.close()

    def _follow(self, trial: Manifest, pod: Manifest, *, restart_count: int) -> _Follower | None:
        reader = open_reader(trial, pod, files=self._files, restart_count=restart_count)
        if reader is None:
            return None
        return _Follower(reader=reader, rules=StopRules(trial), restart_count=restart_count)

    async def _advance(
        self, trial: Manifest, source: str, follower: _Follower, *, is_final: bool
    ) -> None:
        if follower.fault or follower.rules.verdict:
            return
        if follower.reader.pending_bytes() > _BYTES_WORTH_A_THREAD:
            logs, fault = await asyncio.to_thread(read_all, follower.reader, is_final=is_final)
        else:
            logs, fault = read_all(follower.reader, is_final=is_final)
        follower.rules.note(logs)
        name = trial["metadata"]["name"]
        if not follower.has_stored:
            self._store.replace(name, logs, source=source)
            follower.has_stored = True
        elif logs:
            self._store.report(name, logs, source=source)
        follower.fault = fault


def _first(texts: Iterable[str]) -> str:
    return next(filter(None, texts), "")
