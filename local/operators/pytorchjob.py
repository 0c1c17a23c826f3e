"""Runs PyTorchJobs: one pod and one headless service a replica, and the job's status from them.

Behaves like Training Operator 1.9, restart rules and limits included, as long as that is not given
the name of a gang scheduler: one machine has one scheduler.

Source: training-operator v1.9 `pytorch/pytorchjob_controller.go`, `common/job.go`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import ClassVar

from kubeloop.errors import ApiError, NotFoundError
from kubeloop.local.api.resources import PODS, PYTORCH_JOBS, SERVICES, Resource
from kubeloop.local.client import Client, Manifest
from kubeloop.local.operators.conditions import FALSE, Clock, format_time, utc_now
from kubeloop.local.operators.controller import Reconciler, Request, Result, controller_owner
from kubeloop.local.operators.deletion import delete_this
from kubeloop.local.operators.events import record_event
from kubeloop.local.operators.pod_states import is_active, is_being_deleted, phase_of
from kubeloop.local.operators.pod_troubles import Severity, find_troubles
from kubeloop.local.operators.pytorchjob_autoscaler import reconcile_autoscaler
from kubeloop.local.operators.pytorchjob_pods import (
    OPERATOR_NAME,
    build_pod,
    build_service,
    is_of_type,
    render_selector,
    replica_index,
)
from kubeloop.local.operators.pytorchjob_spec import apply_defaults, replica_specs
from kubeloop.local.operators.pytorchjob_status import (
    StatusDraft,
    conclude,
    exceeds_backoff_limit,
    judge_pods,
)

_OUR_MANAGER = "kubeflow.org/training-operator"
_RESTART_POLICY_IGNORED = (
    "Restart policy in pod template will be overwritten by restart policy in replica spec"
)


class PyTorchJobReconciler(Reconciler):
    """Drives PyTorchJobs."""

    resource: ClassVar[Resource] = PYTORCH_JOBS
    owns: ClassVar[tuple[Resource, ...]] = (PODS, SERVICES)

    def __init__(self, client: Client, *, clock: Clock = utc_now) -> None:
        self._client = client
        self._clock = clock

    async def reconcile(self, request: Request) -> Result:
        """Bring one job forward by one pass."""
        try:
            stored = await self._client.get(PYTORCH_JOBS, request.name, namespace=request.namespace)
        except NotFoundError:
            return Result()
        manager = (stored["spec"].get("runPolicy") or {}).get("managedBy") or _OUR_MANAGER
        if manager != _OUR_MANAGER or is_being_deleted(stored):
            return Result()
        draft = StatusDraft.of(apply_defaults(stored), now=self._clock())
        await reconcile_autoscaler(self._client, draft.job)
        pods = await self._list_controlled(PODS, draft.job)
        services = await self._list_controlled(SERVICES, draft.job)

        if draft.is_finished:
            return await self._clean_up(draft, pods=pods, services=services, stored=stored)
        if draft.job["spec"]["runPolicy"].get("suspend"):
            await self._suspend(draft, pods=pods, services=services)
        else:
            await self._advance(draft, pods=pods, services=services)
        await self._save(draft, stored=stored)
        return _look_again_at_limits(draft)

    async def _advance(
        self, draft: StatusDraft, *, pods: list[Manifest], services: list[Manifest]
    ) -> None:
        if draft.says("Suspended"):
            _resume(draft)
        for pod in filter(is_active, pods):
            draft.announcements.extend(find_troubles(pod))
        if limit := _find_exceeded_limit(draft, pods):
            message = f"Job {draft.name} has failed because {limit}"
            draft.stamp("completionTime")
            await self._delete_all(draft.job, pods=pods, services=services)
            draft.announce("Failed", message=message)
            draft.write("Failed", message=message)
            return
        for replica_type in replica_specs(draft.job):
            await self._reconcile_pods(draft, pods, replica_type=replica_type)
            await self._reconcile_services(draft.job, services, replica_type=replica_type)
        conclude(draft)

    async def _reconcile_pods(
        self, draft: StatusDraft, pods: Iterable[Manifest], *, replica_type: str
    ) -> None:
        spec = replica_specs(draft.job)[replica_type]
        existing = [pod for pod in pods if is_of_type(pod, replica_type)]
        for index in _find_missing(existing, num_replicas=spec["replicas"]):
            if (spec["template"].get("spec") or {}).get("restartPolicy"):
                await self._record(
                    draft.job,
                    reason="SetPodTemplateRestartPolicy",
                    message=_RESTART_POLICY_IGNORED,
                    severity="Warning",
                )
            await self._create(
                draft.job, build_pod(draft.job, replica_type=replica_type, index=index)
            )
        excess = _find_excess(existing, num_replicas=spec["replicas"])
        failed = judge_pods(draft, existing, replica_type=replica_type)
        await self._delete(draft.job, PODS, [*excess, *(p for p in failed if p not in excess)])

    async def _reconcile_services(
        self, job: Manifest, services: Iterable[Manifest], *, replica_type: str
    ) -> None:
        num_replicas = replica_specs(job)[replica_type]["replicas"]
        existing = [service for service in services if is_of_type(service, replica_type)]
        for index in _find_missing(existing, num_replicas=num_replicas):
            await self._create(job, build_service(job, replica_type=replica_type, index=index))
        await self._delete(job, SERVICES, _find_excess(existing, num_replicas=num_replicas))

    async def _suspend(
        self, draft: StatusDraft, *, pods: list[Manifest], services: list[Manifest]
    ) -> None:
        await self._delete_all(draft.job, pods=pods, services=services)
        draft.set_no_replica_active()
        message = f"PyTorchJob {draft.name} is suspended."
        if draft.says("Running"):
            draft.write("Running", message=message, status=FALSE, outcome="Suspended")
        if not draft.says("Suspended"):
            draft.write("Suspended", message=message)
        draft.announce("Suspended", message=message)

    async def _clean_up(
        self,
        draft: StatusDraft,
        *,
        pods: list[Manifest],
        services: list[Manifest],
        stored: Manifest,
    ) -> Result:
        run_policy = draft.job["spec"]["runPolicy"]
        policy = run_policy["cleanPodPolicy"]
        if policy == "All":
            await self._delete_all(draft.job, pods=pods, services=services)
        elif policy == "Running":
            doomed = [pod for pod in pods if phase_of(pod) in ("Running", "Pending")]
            names = {pod["metadata"]["name"] for pod in doomed}
            await self._delete_all(
                draft.job,
                pods=doomed,
                services=[s for s in services if s["metadata"]["name"] in names],
            )
        if draft.says("Succeeded"):
            draft.set_no_replica_active(counted_as="succeeded")
        await self._save(draft, stored=stored)
        ttl_seconds = run_policy.get("ttlSecondsAfterFinished")
        if ttl_seconds is None or run_policy.get("suspend"):
            return Result()
        return await self._delete_when_expired(draft, ttl_seconds=ttl_seconds)

    async def _delete_when_expired(self, draft: StatusDraft, *, ttl_seconds: int) -> Result:
        """Delete the job when its time is over; never, if it has no completion time.

        Only a permanent failure by exit code leaves the completion time empty, as upstream.
        """
        elapsed = draft.elapsed_since("completionTime")
        if elapsed is None:
            return Result()
        remaining = timedelta(seconds=ttl_seconds) - elapsed
        if remaining > timedelta():
            return Result(requeue_after_seconds=remaining.total_seconds())
        if await delete_this(self._client, PYTORCH_JOBS, draft.job):
            message = f"Deleted job: {draft.name}"
            await self._record(draft.job, reason="SuccessfulDeletePod", message=message)
        return Result()

    async def _save(self, draft: StatusDraft, *, stored: Manifest) -> None:
        for announcement in draft.announcements:
            await self._record(
                draft.job,
                reason=announcement.reason,
                message=announcement.message,
                severity=announcement.severity,
            )
        draft.announcements.clear()
        if draft.status != stored.get("status"):
            await self._client.replace_status({**stored, "status": draft.status})

    async def _list_controlled(self, resource: Resource, job: Manifest) -> list[Manifest]:
        metadata = job["metadata"]
        found = await self._client.list(
            resource,
            namespace=metadata["namespace"],
            label_selector=render_selector(metadata["name"]),
        )
        return [
            item
            for item in found.items
            if (owner := controller_owner(item)) and owner["uid"] == metadata["uid"]
        ]

    async def _create(self, job: Manifest, manifest: Manifest) -> None:
        kind = manifest["kind"]
        try:
            await self._client.create(manifest)
        except ApiError as error:
            await self._record(
                job,
                reason=f"FailedCreate{kind}",
                message=f"Error creating: {error}",
                severity="Warning",
            )
            raise
        message = f"Created {kind.lower()}: {manifest['metadata']['name']}"
        await self._record(job, reason=f"SuccessfulCreate{kind}", message=message)

    async def _delete_all(
        self, job: Manifest, *, pods: list[Manifest], services: list[Manifest]
    ) -> None:
        await self._delete(job, PODS, pods)
        await self._delete(job, SERVICES, services)

    async def _delete(
        self, job: Manifest, resource: Resource, manifests: Iterable[Manifest]
    ) -> None:
        for manifest in manifests:
            if is_being_deleted(manifest):
                continue
            try:
                if not await delete_this(self._client, resource, manifest):
                    continue
            except ApiError as error:
                await self._record(
                    job,
                    reason=f"FailedDelete{resource.kind}",
                    message=f"Error deleting: {error}",
                    severity="Warning",
                )
                raise
            message = f"Deleted {resource.kind.lower()}: {manifest['metadata']['name']}"
            await self._record(job, reason=f"SuccessfulDelete{resource.kind}", message=message)

    async def _record(
        self, job: Manifest, *, reason: str, message: str, severity: Severity = "Normal"
    ) -> None:
        await record_event(
            self._client,
            job,
            type=severity,
            reason=reason,
            message=message,
            component=OPERATOR_NAME,
            now=self._clock(),
        )


def _find_exceeded_limit(draft: StatusDraft, pods: list[Manifest]) -> str:
    """The limit of the run policy that the job has reached, empty when none."""
    if exceeds_backoff_limit(draft, pods):
        return "it has reached the specified backoff limit"
    limit_seconds = draft.job["spec"]["runPolicy"].get("activeDeadlineSeconds")
    elapsed = draft.elapsed_since("startTime")
    if limit_seconds is None or elapsed is None or elapsed < timedelta(seconds=limit_seconds):
        return ""
    return "it was active longer than specified deadline"


def _resume(draft: StatusDraft) -> None:
    message = f"PyTorchJob {draft.name} is resumed."
    draft.write("Suspended", message=message, status=FALSE, outcome="Resumed")
    draft.status["startTime"] = format_time(draft.now)
    draft.announce("Resumed", message=message)


def _look_again_at_limits(draft: StatusDraft) -> Result:
    """Nothing changes in the API when a deadline passes, so the clock has to wake us."""
    run_policy = draft.job["spec"]["runPolicy"]
    if draft.is_finished:
        ttl_seconds = run_policy.get("ttlSecondsAfterFinished")
        return Result(requeue_after_seconds=ttl_seconds)
    limit_seconds = run_policy.get("activeDeadlineSeconds")
    elapsed = draft.elapsed_since("startTime")
    if limit_seconds is None or elapsed is None or run_policy.get("suspend"):
        return Result()
    return Result(requeue_after_seconds=max(limit_seconds - elapsed.total_seconds(), 0.0))


def _find_missing(existing: Iterable[Manifest], *, num_replicas: int) -> list[int]:
    present = {replica_index(manifest) for manifest in existing}
    return [index for index in range(num_replicas) if index not in present]


def _find_excess(existing: Iterable[Manifest], *, num_replicas: int) -> list[Manifest]:
    return [
        manifest
        for manifest in existing
        if (index := replica_index(manifest)) is not None and index >= num_replicas
    ]
