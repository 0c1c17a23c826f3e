"""Run a training job to its end, through the official TrainingClient.

Safe to repeat: a job of that name that is running is watched, one that has succeeded is taken as it
is, and one that has failed is replaced; one that was built otherwise, or for another pipeline run,
is left alone. A run that is cancelled (SIGTERM, Ctrl-C) or gives up deletes its job; a process that
is killed leaves the job running, and its retry finds it.
"""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

from kubeflow.training import KubeflowOrgV1PyTorchJob, TrainingClient
from kubeflow.training.constants import constants

from kubeloop.errors import InputError, KubeloopError, PermanentError, TransientError
from kubeloop.interruption import undo_when_interrupted
from kubeloop.sdk_errors import MissingObjectError, ObjectConflictError, translate_errors
from kubeloop.training.job_logs import JobLogs, Life, LogLine
from kubeloop.training.metric_lines import parse_metrics
from kubeloop.training.replica_ends import (
    EXIT_EVENT,
    ReplicaEnd,
    choose_end,
    count_restarts,
    find_ends,
    find_lost_ends,
    find_obstacles,
)

SPECIFICATION_ANNOTATION = "kubeloop.dev/specification"
"""Digest of what a job was created as; what it became since, such as resumed, changes nothing."""
_RUN_LABEL = "pipeline/runid"
_SUSPENDED = "Suspended"
_NUM_TAIL_LINES = 20
_MAX_READ_LINES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchConfig:
    """How a job is waited for."""

    poll_seconds: float = 1.0
    """Time between two looks at the job."""
    timeout_seconds: float | None = None
    """Time after which the job is given up; unset: never."""
    max_restarts: int = 3
    """How often replicas may be started again before the job is given up."""
    unavailable_seconds: float = 60.0
    """How long the Kubernetes API may fail to answer."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.poll_seconds <= 0 or self.unavailable_seconds < 0 or self.max_restarts < 0:
            raise InputError("poll_seconds must be positive, the other limits not negative.")
        if self.timeout_seconds is not None and self.timeout_seconds <= 0:
            raise InputError(f"timeout_seconds must be positive, not {self.timeout_seconds!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """A job that succeeded."""

    name: str
    namespace: str
    metrics: tuple[Mapping[str, float], ...]
    """What each metric line of rank 0 said, in order."""
    num_restarts: int
    """How often replicas were started again."""

    @property
    def final_metrics(self) -> Mapping[str, float]:
        """Return the last metric line, or nothing."""
        return self.metrics[-1] if self.metrics else {}


def run_training_job(
    job: KubeflowOrgV1PyTorchJob,
    *,
    client: TrainingClient | None = None,
    watch: WatchConfig | None = None,
    on_log: Callable[[str], None] = lambda _: None,
    on_metrics: Callable[[Mapping[str, float]], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> TrainingRun:
    """Create a job, or find it, and wait until it has succeeded.

    Args:
        job: The custom resource, as `PyTorchJobBuilder` builds it.
        client: Reaches the cluster; by default that of the current kubeconfig context.
        watch: How to wait.
        on_log: Called with each line that rank 0 prints, and with what the job waits for.
        on_metrics: Called with the metrics of each line that has some.
        clock: Monotonic time in seconds.
        sleep: Waits.

    Raises:
        PermanentError: The job failed, was deleted, restarted too often, or took too long; the
            message carries the failing replica and the last lines of its log.
        TransientError: The Kubernetes API does not answer.
        InputError: The job's name is taken by another pipeline run, or by a job built otherwise.
    """
    client = client or TrainingClient()
    run = _Run(
        job=job,
        client=client,
        watch=watch or WatchConfig(),
        on_log=on_log,
        on_metrics=on_metrics,
        clock=clock,
        sleep=sleep,
        logs=JobLogs(client.core_api, namespace=str(job.metadata.namespace)),
    )
    with closing(run.logs), undo_when_interrupted(run.delete, also_on=(_GivenUpError,)):
        run.ensure()
        return run.wait()


class _GivenUpError(PermanentError):
    """The job is still there, and of no use."""


@dataclass(slots=True, kw_only=True)
class _Run:
    job: KubeflowOrgV1PyTorchJob
    client: TrainingClient
    watch: WatchConfig
    on_log: Callable[[str], None]
    on_metrics: Callable[[Mapping[str, float]], None]
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    logs: JobLogs
    metrics: list[Mapping[str, float]] = field(default_factory=list)
    uid: str = ""
    tails: dict[str, tuple[Life, deque[str]]] = field(default_factory=dict)
    """Pod to the life of it that was followed last, and the end of what it printed."""
    uids: dict[str, set[str]] = field(default_factory=dict)
    restart_counts: dict[str, int] = field(default_factory=dict)
    notices: set[str] = field(default_factory=set)

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

    def ensure(self) -> None:
        """Create the job, or take the one that is there."""
        found = self._find()
        if found is not None:
            self._check_run(found)
            if _condition(found, constants.JOB_CONDITION_FAILED):
                self.on_log(f"{self.where} has failed before; it is started anew.")
                self.delete()
                self._wait_until_gone()
                found = None
            else:
                self.on_log(f"{self.where} is there already; its log follows from the beginning.")
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
        digest = (found.metadata.annotations or {}).get(SPECIFICATION_ANNOTATION)
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
        job.metadata.annotations = {**annotations, SPECIFICATION_ANNOTATION: self._digest()}
        with suppress(ObjectConflictError), translate_errors(f"create {self.where}"):
            self.client.create_job(job, namespace=self.namespace)
        found = self._find()
        if found is None:
            raise PermanentError(f"{self.where} was deleted as soon as it was created.")
        return found

    def _find(self) -> KubeflowOrgV1PyTorchJob | None:
        try:
            with translate_errors(f"read {self.where}"):
                return self.client.get_job(self.name, namespace=self.namespace)
        except MissingObjectError:
            return None

    def _wait_until_gone(self) -> None:
        while self._find() is not None:
            self.sleep(self.watch.poll_seconds)

    def delete(self) -> None:
        """Delete the job, where it is still there."""
        with suppress(MissingObjectError), translate_errors(f"delete {self.where}"):
            self.client.delete_job(self.name, namespace=self.namespace)

    def wait(self) -> TrainingRun:
        """Watch the job until it has succeeded."""
        started = answered = self.clock()
        while True:
            try:
                if self._look():
                    return self._finish()
                answered = self.clock()
            except TransientError:
                if self.clock() - answered > self.watch.unavailable_seconds:
                    raise
            limit = self.watch.timeout_seconds
            if limit is not None and self.clock() - started > limit:
                raise _GivenUpError(
                    f"{self.where} did not finish in {limit:g} seconds and was deleted."
                    f"{self._describe_pods()}{self._describe_log()}"
                )
            self.sleep(self.watch.poll_seconds)

    def _look(self) -> bool:
        """Look once; True when the job has succeeded."""
        job = self._find()
        if job is None or job.metadata.uid != self.uid:
            raise PermanentError(f"{self.where} was deleted while it ran.")
        pods = self._list_pods()
        succeeded = _condition(job, constants.JOB_CONDITION_SUCCEEDED) is not None
        failed = _condition(job, constants.JOB_CONDITION_FAILED)
        self._follow_logs(pods, is_final=bool(succeeded or failed))
        self._count_restarts(pods)
        if failed:
            raise PermanentError(f"{self.where} failed{self._describe_failure(pods, failed)}")
        if _condition(job, _SUSPENDED):
            self._notice(f"{self.where} is suspended: it waits to be resumed, as by Kueue.")
        for pod in pods:
            for obstacle in (*find_obstacles(pod), *self._list_failed_mounts(pod)):
                self._notice(f"Pod {pod.metadata.name} waits: {obstacle.rstrip('.')}.")
        return succeeded

    def _finish(self) -> TrainingRun:
        return TrainingRun(
            name=self.name,
            namespace=self.namespace,
            metrics=tuple(self.metrics),
            num_restarts=self._num_restarts(),
        )

    def _list_pods(self) -> Sequence[Any]:
        with translate_errors(f"list the pods of {self.where}"):
            pods = self.client.get_job_pods(self.name, namespace=self.namespace)
        # NB: pods of a job that this one replaces may still be on their way out.
        return [pod for pod in pods if self._owns(pod)]

    def _owns(self, pod: Any) -> bool:  # Any: the client's V1Pod
        return any(owner.uid == self.uid for owner in pod.metadata.owner_references or ())

    def _follow_logs(self, pods: Sequence[Any], *, is_final: bool) -> None:
        # NB: any worker of an elastic job may be rank 0, and only that one prints metrics.
        followed = [pod for pod in pods if self.is_elastic or _is_master(pod)]
        if is_final:
            limit = self.watch.unavailable_seconds
            self._pass_on(self.logs.follow_to_end(followed, timeout_seconds=limit))
        else:
            self._pass_on(self.logs.follow(followed))

    def _pass_on(self, lines: Iterable[LogLine]) -> None:
        for line in lines:
            self.on_log(line.text)
            self._keep_tail(line)
            if found := parse_metrics(line.text):
                self.metrics.append(found)
                self.on_metrics(found)

    def _keep_tail(self, line: LogLine) -> None:
        pod = line.life.pod
        if pod not in self.tails or self.tails[pod][0] != line.life:
            self.tails[pod] = (line.life, deque(maxlen=_NUM_TAIL_LINES))
        if line.text.strip():
            self.tails[pod][1].append(line.text)

    def _count_restarts(self, pods: Sequence[Any]) -> None:
        for pod in pods:
            self.uids.setdefault(pod.metadata.name, set()).add(pod.metadata.uid)
            self.restart_counts[pod.metadata.uid] = count_restarts(pod)
        if self._num_restarts() > self.watch.max_restarts:
            raise _GivenUpError(
                f"{self.where} was restarted more than {self.watch.max_restarts} times and was"
                " deleted; its program is killed again and again, for want of memory perhaps"
                f"{self._describe_end(pods) or '.'}"
            )

    def _num_restarts(self) -> int:
        recreated = sum(len(uids) - 1 for uids in self.uids.values())
        return recreated + sum(self.restart_counts.values())

    def _notice(self, notice: str) -> None:
        if notice not in self.notices:
            self.notices.add(notice)
            self.on_log(notice)

    def _describe_pods(self) -> str:
        phases = [f"{pod.metadata.name} is {pod.status.phase}" for pod in self._list_pods()]
        return " ".join(["", f"Its pods: {'; '.join(phases) or 'none'}.", *sorted(self.notices)])

    def _describe_log(self) -> str:
        """Return the end of what was followed, below a sentence."""
        lines = [line for _, tail in self.tails.values() for line in tail][-_NUM_TAIL_LINES:]
        return "\n".join(["", "The last lines of its log:", *lines]) if lines else ""

    def _describe_failure(self, pods: Sequence[Any], failed: Any) -> str:
        """Say why the job failed, in the rest of a sentence."""
        if any(not end.is_consequence for end in find_ends(pods, is_elastic=self.is_elastic)):
            return self._describe_end(pods)
        said = str(failed.message).rstrip(".")
        end = self._describe_end(pods) or f".{self._describe_pods()}{self._describe_log()}"
        return f": {said}{end}"

    def _describe_end(self, pods: Sequence[Any]) -> str:
        """Say which replica ended how, in the rest of a sentence, and the end of its log."""
        ends = find_ends(pods, is_elastic=self.is_elastic)
        if all(end.is_consequence for end in ends):
            events = self._list_events(self.uid, EXIT_EVENT)
            ends += find_lost_ends(events, self.name, is_elastic=self.is_elastic)
        end = choose_end(ends)
        return "" if end is None else end.render(self._read_tail(end))

    def _list_failed_mounts(self, pod: Any) -> list[str]:  # Any: the client's V1Pod
        """Say which volumes a pod lacks: its status holds nothing of that."""
        if pod.status.phase != "Pending":
            return []
        return [event.message for event in self._list_events(pod.metadata.uid, "FailedMount")]

    def _list_events(self, uid: str, reason: str) -> Sequence[Any]:
        selector = f"involvedObject.uid={uid},reason={reason}"
        with suppress(KubeloopError), translate_errors(f"list the events of {self.where}"):
            return list(
                self.client.core_api.list_namespaced_event(
                    self.namespace, field_selector=selector
                ).items
            )
        return ()

    def _read_tail(self, end: ReplicaEnd) -> list[str]:
        """Return the last lines of a replica's log; of one that is gone, those that were seen."""
        if end.is_lost:
            return list(self.tails.get(end.pod, ("", ()))[1])
        text = ""
        with suppress(KubeloopError), translate_errors(f"read the log of {end.pod}"):
            text = self.client.core_api.read_namespaced_pod_log(
                end.pod,
                self.namespace,
                container=end.container,
                previous=end.is_previous,
                tail_lines=_MAX_READ_LINES,
            )
        return [line for line in text.splitlines() if line.strip()][-_NUM_TAIL_LINES:]


def _condition(job: KubeflowOrgV1PyTorchJob, kind: str) -> Any:  # Any: the SDK's condition or None
    conditions = (job.status.conditions if job.status else None) or ()
    return next((c for c in conditions if c.type == kind and c.status == "True"), None)


def _is_master(pod: Any) -> bool:  # Any: the client's V1Pod
    return bool(pod.metadata.labels.get(constants.JOB_ROLE_LABEL) == constants.JOB_ROLE_MASTER)


def _run_of(job: KubeflowOrgV1PyTorchJob) -> str:
    return str((job.metadata.labels or {}).get(_RUN_LABEL, ""))
