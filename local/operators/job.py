"""Runs batch/v1 Jobs to completion.

Differs from Kubernetes in one number: after a failed pod the next one waits 1 s, doubled with each
further failure, where a cluster starts at 10 s. What is not served (indexed Jobs, pod failure
policies) is refused when the Job is created, see `local.api.admission.jobs`.

Source: Kubernetes `pkg/controller/job`, `pkg/controller/ttlafterfinished`.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from kubeloop.errors import ApiError, NotFoundError
from kubeloop.local.api.resources import JOBS, PODS, Resource
from kubeloop.local.client import Client, Manifest, Propagation
from kubeloop.local.operators.conditions import FALSE, Clock, format_time, utc_now
from kubeloop.local.operators.controller import (
    Reconciler,
    Request,
    Result,
    build_owner_reference,
    controller_owner,
)
from kubeloop.local.operators.deletion import delete_this
from kubeloop.local.operators.events import record_event
from kubeloop.local.operators.job_status import (
    COMPLETE,
    TRACKING_FINALIZER,
    JobDraft,
    Verdict,
    is_tracked,
    seconds_to_next_try,
)
from kubeloop.local.operators.pod_states import is_active, is_being_deleted, is_ready
from kubeloop.local.operators.pod_troubles import Severity

_OUR_MANAGER = "kubernetes.io/job-controller"
_JOB_NAME_LABEL = "batch.kubernetes.io/job-name"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobConfig:
    """Settings of the Job operator."""

    first_backoff_seconds: float = 1.0
    """Wait before a new pod after one failure; doubles with each that follows."""
    last_backoff_seconds: float = 360.0
    """The longest such wait."""

    def __post_init__(self) -> None:
        if not 0 <= self.first_backoff_seconds <= self.last_backoff_seconds:
            raise ValueError(
                f"first_backoff_seconds {self.first_backoff_seconds!r} is not between 0 and "
                f"last_backoff_seconds {self.last_backoff_seconds!r}"
            )


class JobReconciler(Reconciler):
    """Drives Jobs."""

    resource: ClassVar[Resource] = JOBS
    owns: ClassVar[tuple[Resource, ...]] = (PODS,)

    def __init__(
        self, client: Client, *, clock: Clock = utc_now, config: JobConfig | None = None
    ) -> None:
        self._client = client
        self._clock = clock
        self._config = config or JobConfig()

    async def reconcile(self, request: Request) -> Result:
        """Bring one Job forward by one pass."""
        try:
            job = await self._client.get(JOBS, request.name, namespace=request.namespace)
        except NotFoundError:
            await self._split_pods(request, uid="")
            return Result()
        if job["spec"].get("managedBy") not in (None, _OUR_MANAGER):
            return Result()
        pods = await self._split_pods(request, uid=job["metadata"]["uid"])
        draft = JobDraft.of(job, now=self._clock())
        if draft.finish_time is not None:
            await self._untrack(pods)
            return await self._delete_when_expired(draft)
        draft.count(pods)
        await self._note_suspension(draft)
        verdict = draft.find_verdict(pods)
        if verdict is not None:
            draft.set_condition(verdict.target_type, reason=verdict.reason, message=verdict.message)
        draft.observe(pods)
        wait_seconds = await self._adjust_pods(draft, pods, verdict=verdict)
        return await self._settle(draft, verdict=verdict, wait_seconds=wait_seconds)

    async def _settle(
        self, draft: JobDraft, *, verdict: Verdict | None, wait_seconds: float | None
    ) -> Result:
        """Store the status in steps that can be interrupted anywhere without losing a count."""
        pods = await self._list_pods(draft.job)
        draft.observe(pods)
        await self._save(draft)
        if noted := {uid for uids in draft.uncounted.values() for uid in uids}:
            await self._untrack(pod for pod in pods if pod["metadata"]["uid"] in noted)
            draft.count([pod for pod in pods if pod["metadata"]["uid"] not in noted])
        is_quiet = "active" not in draft.status and not draft.status["terminating"]
        ends = verdict is not None and is_quiet and not draft.uncounted
        if verdict is not None and ends:
            draft.set_condition(
                verdict.condition_type, reason=verdict.reason, message=verdict.message
            )
            if verdict is COMPLETE:
                draft.status["completionTime"] = format_time(draft.now)
        await self._save(draft)
        if verdict is None:
            waits = [w for w in (wait_seconds, draft.seconds_to_deadline()) if w is not None]
            return Result(requeue_after_seconds=max(min(waits), 0.0) if waits else None)
        if not ends:
            return Result()
        if verdict is COMPLETE:
            await self._record(draft.job, reason="Completed", message="Job completed")
        else:
            await self._record(
                draft.job, reason=verdict.reason, message=verdict.message, severity="Warning"
            )
        return await self._delete_when_expired(draft)

    async def _note_suspension(self, draft: JobDraft) -> None:
        if draft.is_suspended:
            if draft.set_condition("Suspended", reason="JobSuspended", message="Job suspended"):
                await self._record(draft.job, reason="Suspended", message="Job suspended")
            return
        stamp = format_time(draft.now)
        draft.status.setdefault("startTime", stamp)
        if draft.set_condition(
            "Suspended", reason="JobResumed", message="Job resumed", status=FALSE
        ):
            draft.status["startTime"] = stamp
            await self._record(draft.job, reason="Resumed", message="Job resumed")

    async def _adjust_pods(
        self, draft: JobDraft, pods: list[Manifest], *, verdict: Verdict | None
    ) -> float | None:
        """Create or delete pods; return the seconds to wait if it is too early for a new one."""
        active = [pod for pod in pods if is_active(pod)]
        if verdict is not None:
            # What a failed Job still ran counts as failed; what a complete Job ran does not.
            await self._delete_pods(draft.job, active, counted=verdict is not COMPLETE)
            return None
        if is_being_deleted(draft.job):
            return None
        num_wanted = 0 if draft.is_suspended else draft.count_wanted()
        if len(active) > num_wanted:
            active.sort(key=lambda pod: (is_ready(pod), -_creation_rank(pod)))
            excess = active[: len(active) - num_wanted]
            await self._delete_pods(draft.job, excess, counted=False)
        num_missing = num_wanted - len(active)
        if num_missing <= 0:
            return None
        wait_seconds = seconds_to_next_try(
            pods,
            now=draft.now,
            first=self._config.first_backoff_seconds,
            last=self._config.last_backoff_seconds,
        )
        if wait_seconds > 0:
            return wait_seconds
        for _ in range(num_missing):
            await self._create_pod(draft.job)
        return None

    async def _delete_when_expired(self, draft: JobDraft) -> Result:
        ttl_seconds = draft.job["spec"].get("ttlSecondsAfterFinished")
        finished = draft.finish_time
        if ttl_seconds is None or finished is None or is_being_deleted(draft.job):
            return Result()
        remaining = finished + timedelta(seconds=ttl_seconds) - draft.now
        if remaining > timedelta():
            return Result(requeue_after_seconds=remaining.total_seconds())
        await delete_this(self._client, JOBS, draft.job, propagation=Propagation.FOREGROUND)
        return Result()

    async def _save(self, draft: JobDraft) -> None:
        if draft.status != draft.job.get("status"):
            written = {**draft.job, "status": deepcopy(draft.status)}
            draft.job = await self._client.replace_status(written)

    async def _list_pods(self, job: Manifest) -> list[Manifest]:
        metadata = job["metadata"]
        request = Request(namespace=metadata["namespace"], name=metadata["name"])
        found = await self._list_pods_by_name(request)
        return [pod for pod, owner in found if owner["uid"] == metadata["uid"]]

    async def _split_pods(self, request: Request, *, uid: str) -> list[Manifest]:
        """The Job's pods; those of gone Jobs of its name disappear too, as nobody counts them."""
        found = await self._list_pods_by_name(request)
        await self._untrack(pod for pod, owner in found if owner["uid"] != uid)
        return [pod for pod, owner in found if owner["uid"] == uid]

    async def _list_pods_by_name(self, request: Request) -> list[tuple[Manifest, Manifest]]:
        """Pods, each with its owner, of every Job that has or had this name."""
        found = await self._client.list(
            PODS, namespace=request.namespace, label_selector=f"{_JOB_NAME_LABEL}={request.name}"
        )
        owners = ((pod, controller_owner(pod)) for pod in found.items)
        return [(pod, owner) for pod, owner in owners if owner and owner["kind"] == JOBS.kind]

    async def _untrack(self, pods: Iterable[Manifest]) -> None:
        for pod in filter(is_tracked, pods):
            metadata = pod["metadata"]
            kept = [f for f in metadata["finalizers"] if f != TRACKING_FINALIZER]
            try:
                await self._client.patch(
                    PODS,
                    metadata["name"],
                    namespace=metadata["namespace"],
                    body={"metadata": {"finalizers": kept or None}},
                )
            except NotFoundError:
                continue

    async def _create_pod(self, job: Manifest) -> None:
        template = deepcopy(job["spec"]["template"])
        metadata = template.get("metadata") or {}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "generateName": f"{job['metadata']['name']}-",
                "namespace": job["metadata"]["namespace"],
                "labels": {
                    _JOB_NAME_LABEL: job["metadata"]["name"],
                    **(metadata.get("labels") or {}),
                },
                "annotations": metadata.get("annotations") or {},
                "finalizers": [TRACKING_FINALIZER],
                "ownerReferences": [build_owner_reference(job)],
            },
            "spec": template["spec"],
        }
        try:
            created = await self._client.create(pod)
        except ApiError as error:
            await self._record(
                job,
                reason="FailedCreate",
                message=f"Error creating: {error}",
                severity="Warning",
            )
            raise
        message = f"Created pod: {created['metadata']['name']}"
        await self._record(job, reason="SuccessfulCreate", message=message)

    async def _delete_pods(self, job: Manifest, pods: Iterable[Manifest], *, counted: bool) -> None:
        pods = list(pods)
        if not counted:
            await self._untrack(pods)
        for pod in pods:
            if await delete_this(self._client, PODS, pod):
                message = f"Deleted pod: {pod['metadata']['name']}"
                await self._record(job, reason="SuccessfulDelete", message=message)

    async def _record(
        self, job: Manifest, *, reason: str, message: str, severity: Severity = "Normal"
    ) -> None:
        await record_event(
            self._client,
            job,
            type=severity,
            reason=reason,
            message=message,
            component="job-controller",
            now=self._clock(),
        )


def _creation_rank(pod: Manifest) -> int:
    return int(pod["metadata"]["resourceVersion"])
