"""A training job as the cluster has it: created once, found again, and asked about.

A job of that name that is running or has succeeded is taken as it is, and one that has failed is
replaced; one that was built otherwise, or for another pipeline run, is left alone.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kubeflow.training import KubeflowOrgV1PyTorchJob, TrainingClient
from kubeflow.training.constants import constants

from kubeloop.errors import InputError, KubeloopError, PermanentError
from kubeloop.sdk_errors import MissingObjectError, ObjectConflictError, translate_errors

_SPECIFICATION_ANNOTATION = "kubeloop.dev/specification"
"""Digest of what a job was created as; what it became since, such as resumed, changes nothing."""
NUM_TAIL_LINES = 20
"""How many lines of a log an error carries."""
_MAX_READ_LINES = 200
_RUN_LABEL = "pipeline/runid"


@dataclass(slots=True, kw_only=True)
class ClusterJob:
    """A job by its name."""

    job: KubeflowOrgV1PyTorchJob
    """What it is created as."""
    client: TrainingClient
    uid: str = ""
    """That of the job which `ensure` created or found."""

    @property
    def name(self) -> str:
        return str(self.job.metadata.name)

    @property
    def namespace(self) -> str:
        return str(self.job.metadata.namespace)

    @property
    def is_elastic(self) -> bool:
        return self.job.spec.elastic_policy is not None

    @property
    def where(self) -> str:
        return f"{self.job.kind} {self.namespace}/{self.name}"

    def ensure(self, *, on_log: Callable[[str], None], pause: Callable[[], None]) -> None:
        """Create the job, or take the one that is there.

        Args:
            on_log: Told where a job was there.
            pause: Waits until it is worth another look whether that one is gone.

        Raises:
            InputError: It is another pipeline run's, or was built otherwise.
        """
        found = self.find()
        if found is not None:
            self._check_run(found)
            if find_condition(found, constants.JOB_CONDITION_FAILED):
                on_log(f"{self.where} has failed before; it is started anew.")
                self.delete()
                while self.find() is not None:
                    pause()
                found = None
            else:
                on_log(f"{self.where} is there already; its log follows from the beginning.")
        if found is None:
            found = self._create()
        self._check_run(found)
        self._check_specification(found)
        self.uid = str(found.metadata.uid)

    def _check_run(self, found: KubeflowOrgV1PyTorchJob) -> None:
        ours, theirs = (_run_of(job) for job in (self.job, found))
        if ours != theirs:
            raise InputError(
                f"{self.where} belongs to pipeline run {theirs!r}, not {ours!r}; choose another"
                " name."
            )

    def _check_specification(self, found: KubeflowOrgV1PyTorchJob) -> None:
        """Refuse to take another job's result for this one's; jobs of others carry no digest."""
        digest = (found.metadata.annotations or {}).get(_SPECIFICATION_ANNOTATION)
        if digest not in (None, self._digest()):
            raise InputError(
                f"{self.where} is there already, and was built otherwise; delete it, or choose"
                " another name."
            )

    def _digest(self) -> str:
        from kubernetes.client import ApiClient

        spec = ApiClient().sanitize_for_serialization(self.job.spec)
        return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()

    def _create(self) -> KubeflowOrgV1PyTorchJob:
        job = copy.copy(self.job)
        job.metadata = copy.copy(job.metadata)
        annotations = job.metadata.annotations or {}
        job.metadata.annotations = {**annotations, _SPECIFICATION_ANNOTATION: self._digest()}
        with suppress(ObjectConflictError), translate_errors(f"create {self.where}"):
            self.client.create_job(job, namespace=self.namespace)
        found = self.find()
        if found is None:
            raise PermanentError(f"{self.where} was deleted as soon as it was created.")
        return found

    def find(self) -> KubeflowOrgV1PyTorchJob | None:
        """Return the job of that name as it is now."""
        try:
            with translate_errors(f"read {self.where}"):
                return self.client.get_job(self.name, namespace=self.namespace)
        except MissingObjectError:
            return None

    def delete(self) -> None:
        """Delete the job, where it is still there."""
        with suppress(MissingObjectError), translate_errors(f"delete {self.where}"):
            self.client.delete_job(self.name, namespace=self.namespace)

    def list_pods(self) -> Sequence[Any]:
        """Return its pods, the client's `V1Pod`."""
        with translate_errors(f"list the pods of {self.where}"):
            pods = self.client.get_job_pods(self.name, namespace=self.namespace)
        # NB: pods of a job that this one replaces may still be on their way out.
        return [pod for pod in pods if self._owns(pod)]

    def _owns(self, pod: Any) -> bool:  # Any: the client's V1Pod
        return any(owner.uid == self.uid for owner in pod.metadata.owner_references or ())

    def list_failed_mounts(self, pod: Any) -> list[str]:  # Any: the client's V1Pod
        """Say which volumes a pod lacks: its status holds nothing of that."""
        if pod.status.phase != "Pending":
            return []
        return [event.message for event in self.list_events(pod.metadata.uid, "FailedMount")]

    def list_events(self, uid: str, reason: str) -> Sequence[Any]:
        """Return events of an object, the client's `CoreV1Event`; none where it gives none."""
        selector = f"involvedObject.uid={uid},reason={reason}"
        with suppress(KubeloopError), translate_errors(f"list the events of {self.where}"):
            return list(
                self.client.core_api.list_namespaced_event(
                    self.namespace, field_selector=selector
                ).items
            )
        return ()

    def read_log_tail(self, pod: str, *, container: str, is_previous: bool) -> list[str]:
        """Return the last lines of a container's log that say something."""
        text = ""
        with suppress(KubeloopError), translate_errors(f"read the log of {pod}"):
            text = self.client.core_api.read_namespaced_pod_log(
                pod,
                self.namespace,
                container=container,
                previous=is_previous,
                tail_lines=_MAX_READ_LINES,
            )
        return [line for line in text.splitlines() if line.strip()][-NUM_TAIL_LINES:]


def find_condition(job: KubeflowOrgV1PyTorchJob, kind: str) -> Any:  # Any: the SDK's condition
    """Return the condition of that type where it holds, else None."""
    conditions = (job.status.conditions if job.status else None) or ()
    return next((c for c in conditions if c.type == kind and c.status == "True"), None)


def _run_of(job: KubeflowOrgV1PyTorchJob) -> str:
    return str((job.metadata.labels or {}).get(_RUN_LABEL, ""))
