"""Runs trials: one job each, and the trial's status and observation from it.

Behaves like Katib 0.19 with two exceptions, both where Katib would try again for ever: a job that
the API refuses fails its trial, and a trial without metrics whose job somebody deletes gets no new
one.

Source: katib v0.19 `trial_controller.go`.
"""

from __future__ import annotations

from typing import ClassVar

from kubeloop.errors import ApiError, InputError, NotFoundError
from kubeloop.local.api.resources import (
    JOBS,
    PODS,
    PYTORCH_JOBS,
    TRIALS,
    Resource,
    find_by_kind,
)
from kubeloop.local.client import Client, Manifest, Propagation
from kubeloop.local.operators.conditions import Clock, utc_now
from kubeloop.local.operators.controller import (
    Reconciler,
    Request,
    Result,
    build_owner_reference,
    controller_owner,
)
from kubeloop.local.operators.deletion import delete_this
from kubeloop.local.operators.events import record_event
from kubeloop.local.operators.katib.collecting import Collection, MetricsCollector
from kubeloop.local.operators.katib.drafts import Severity, StatusDraft
from kubeloop.local.operators.katib.metrics import observe
from kubeloop.local.operators.katib.observations import ObservationStore
from kubeloop.local.operators.katib.report_readers import collector_kind
from kubeloop.local.operators.katib.terms import (
    EARLY_STOPPED,
    FAILED,
    PUSH,
    SUCCEEDED,
    TRIAL_FINALIZER,
    TRIAL_LABEL,
)
from kubeloop.local.operators.katib.trial_pods import complete_pods, read_last_words
from kubeloop.local.operators.katib.trial_status import (
    JobVerdict,
    fail,
    is_completed,
    is_settled,
    judge_job,
    run,
    stop_early,
    succeed,
)
from kubeloop.local.operators.pod_states import is_being_deleted, is_terminal

_COMPONENT = "trial-controller"
_REFUSALS = (400, 403, 404, 415, 422)
_METRICS_RETRY_SECONDS = 1.0
_LOOK_SECONDS = 0.5
_LOOK_WITH_RULES_SECONDS = 0.2


class TrialReconciler(Reconciler):
    """Drives Trials."""

    resource: ClassVar[Resource] = TRIALS
    owns: ClassVar[tuple[Resource, ...]] = (PYTORCH_JOBS, JOBS, PODS)

    def __init__(
        self,
        client: Client,
        *,
        observations: ObservationStore,
        collector: MetricsCollector,
        clock: Clock = utc_now,
    ) -> None:
        """Look at `observations`, where `collector` and trials themselves put their reports."""
        self._client = client
        self._observations = observations
        self._collector = collector
        self._clock = clock

    def map_event(self, resource: Resource, manifest: Manifest) -> list[Request]:
        """A trial looks again when its job changes, or one of its pods has ended."""
        if resource is not PODS:
            return super().map_event(resource, manifest)
        name = (manifest["metadata"].get("labels") or {}).get(TRIAL_LABEL)
        if not name or not is_terminal(manifest):
            return []
        return [Request(namespace=manifest["metadata"]["namespace"], name=name)]

    async def reconcile(self, request: Request) -> Result:
        """Bring one trial forward by one pass."""
        try:
            trial = await self._client.get(TRIALS, request.name, namespace=request.namespace)
        except NotFoundError:
            return Result()
        if is_being_deleted(trial):
            await self._forget(trial)
            return Result()
        trial = await self._hold(trial)
        draft = StatusDraft.of(trial, now=self._clock())
        draft.start(reason="TrialCreated", message="Trial is created")
        job = await self._find_or_create_job(draft)
        result = Result()
        if job is not None and not is_settled(draft):
            result = await self._judge(draft, job)
        await self._save(draft)
        if is_settled(draft):
            self._collector.forget(trial)
        if job is not None and is_completed(draft):
            if not trial["spec"].get("retainRun"):
                await self._delete_job(trial, job)
            elif draft.says(EARLY_STOPPED):
                await complete_pods(self._client, trial)
        return result

    async def _hold(self, trial: Manifest) -> Manifest:
        finalizers = trial["metadata"].get("finalizers") or []
        if TRIAL_FINALIZER in finalizers:
            return trial
        metadata = {**trial["metadata"], "finalizers": [*finalizers, TRIAL_FINALIZER]}
        return await self._client.replace({**trial, "metadata": metadata})

    async def _forget(self, trial: Manifest) -> None:
        finalizers = trial["metadata"].get("finalizers") or []
        if TRIAL_FINALIZER not in finalizers:
            return
        self._collector.forget(trial)
        self._observations.delete(trial["metadata"]["name"])
        left = [finalizer for finalizer in finalizers if finalizer != TRIAL_FINALIZER]
        await self._client.replace({**trial, "metadata": {**trial["metadata"], "finalizers": left}})

    async def _find_or_create_job(self, draft: StatusDraft) -> Manifest | None:
        """The trial's job; None when it is gone, or cannot be created and the trial failed."""
        trial = draft.stored
        wanted = trial["spec"]["runSpec"]
        resource = find_by_kind(wanted.get("apiVersion", ""), wanted.get("kind", ""))
        if resource is None:
            self._refuse(draft, f"kind {wanted.get('kind')} is not served by this control plane")
            return None
        metadata = trial["metadata"]
        try:
            job = await self._client.get(
                resource, metadata["name"], namespace=metadata["namespace"]
            )
        except NotFoundError:
            return None if is_settled(draft) else await self._create_job(draft)
        owner = controller_owner(job)
        if owner is None or owner["uid"] != metadata["uid"]:
            self._refuse(draft, f"{resource.kind} {metadata['name']} belongs to somebody else")
            return None
        return job

    async def _create_job(self, draft: StatusDraft) -> Manifest | None:
        trial = draft.stored
        wanted = trial["spec"]["runSpec"]
        metadata = {
            **(wanted.get("metadata") or {}),
            "name": trial["metadata"]["name"],
            "namespace": trial["metadata"]["namespace"],
            "ownerReferences": [build_owner_reference(trial)],
        }
        try:
            job = await self._client.create({**wanted, "metadata": metadata})
        except ApiError as error:
            if error.status not in _REFUSALS:
                raise
            self._refuse(draft, error.message)
            return None
        draft.announce("JobCreated", f"Job {metadata['name']} has been created")
        return job

    def _refuse(self, draft: StatusDraft, cause: str) -> None:
        if not is_settled(draft):
            verdict = JobVerdict(outcome=FAILED, reason="JobNotCreated", message=cause)
            fail(draft, verdict, job_name=draft.stored["metadata"]["name"])

    async def _judge(self, draft: StatusDraft, job: Manifest) -> Result:
        trial, name = draft.stored, job["metadata"]["name"]
        try:
            verdict = judge_job(trial, job)
        except InputError as error:
            verdict = JobVerdict(outcome=FAILED, reason="ConditionUnreadable", message=str(error))
        if verdict.outcome == FAILED:
            fail(draft, verdict, job_name=name)
            if words := await read_last_words(self._client, trial):
                # NB: before the status, so that who sees the trial fail can read why.
                await self._record(trial, "TrialPodFailed", words, severity="Warning")
            return Result()
        return await self._look_at_metrics(draft, verdict, job_name=name)

    async def _look_at_metrics(
        self, draft: StatusDraft, verdict: JobVerdict, *, job_name: str
    ) -> Result:
        """Collect, and end the trial when its job has succeeded or its rules have been met."""
        trial, has_succeeded = draft.stored, verdict.outcome == SUCCEEDED
        try:
            found = await self._collector.collect(trial, has_succeeded=has_succeeded)
        except InputError as error:
            found = Collection(is_final=True, fault=str(error))
        if found.stop:
            self._observe(draft)
            stop_early(draft, found.stop, job_name=job_name)
        elif not has_succeeded:
            run(draft, job_name=job_name)
            is_ruled = bool(trial["spec"].get("earlyStoppingRules"))
            return Result(
                requeue_after_seconds=_LOOK_WITH_RULES_SECONDS if is_ruled else _LOOK_SECONDS
            )
        elif found.fault:
            cause = JobVerdict(outcome=FAILED, reason="MetricsCollectorFailed", message=found.fault)
            fail(draft, cause, job_name=job_name)
        elif self._is_to_wait(trial, is_final=found.is_final):
            return Result(requeue_after_seconds=_METRICS_RETRY_SECONDS)
        else:
            self._observe(draft)
            succeed(draft, verdict, job_name=job_name)
        return Result()

    def _is_to_wait(self, trial: Manifest, *, is_final: bool) -> bool:
        """Whether reports may still come in after the job's end."""
        if is_final or collector_kind(trial) == PUSH:
            return False
        return not self._observations.read(trial["metadata"]["name"], limit=1)

    def _observe(self, draft: StatusDraft) -> None:
        objective = draft.stored["spec"]["objective"]
        strategies = objective.get("metricStrategies") or [
            {"name": objective["objectiveMetricName"]}
        ]
        logs = self._collector.finish(draft.stored)
        draft.status["observation"] = observe(logs, metrics=[s["name"] for s in strategies])

    async def _save(self, draft: StatusDraft) -> None:
        if draft.is_changed:
            await self._client.replace_status(draft.render())
        for announcement in draft.announcements:
            await self._record(
                draft.stored,
                announcement.reason,
                announcement.message,
                severity=announcement.severity,
            )

    async def _record(
        self, trial: Manifest, reason: str, message: str, *, severity: Severity = "Normal"
    ) -> None:
        await record_event(
            self._client,
            trial,
            type=severity,
            reason=reason,
            message=message,
            component=_COMPONENT,
            now=self._clock(),
        )

    async def _delete_job(self, trial: Manifest, job: Manifest) -> None:
        if is_being_deleted(job):
            return
        resource = find_by_kind(job["apiVersion"], job["kind"])
        assert resource is not None
        if await delete_this(self._client, resource, job, propagation=Propagation.FOREGROUND):
            message = f"Job {job['metadata']['name']} has been deleted"
            await self._record(trial, "JobDeleted", message)
