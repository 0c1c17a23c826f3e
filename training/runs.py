"""Run a training job to its end, through the official TrainingClient.

Safe to repeat: a job of that name that is running is watched, one that has succeeded is taken as it
is, and one that has failed is replaced; one that was built otherwise, or for another pipeline run,
is left alone. A run that is cancelled (SIGTERM, Ctrl-C) or gives up deletes its job; a process that
is killed leaves the job running, and its retry finds it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from kubeflow.training import KubeflowOrgV1PyTorchJob, TrainingClient
from kubeflow.training.constants import constants

from kubeloop.errors import InputError, PermanentError, TransientError
from kubeloop.interruption import undo_when_interrupted
from kubeloop.training.cluster_jobs import NUM_TAIL_LINES, ClusterJob, find_condition
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

_SUSPENDED = "Suspended"


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
    cluster_job = ClusterJob(job=job, client=client)
    run = _Run(
        job=cluster_job,
        watch=watch or WatchConfig(),
        on_log=on_log,
        on_metrics=on_metrics,
        clock=clock,
        sleep=sleep,
        logs=JobLogs(client.core_api, namespace=cluster_job.namespace),
    )
    with closing(run.logs), undo_when_interrupted(cluster_job.delete, also_on=(_GivenUpError,)):
        cluster_job.ensure(on_log=on_log, pause=run.pause)
        return run.wait()


class _GivenUpError(PermanentError):
    """The job is still there, and of no use."""


@dataclass(slots=True, kw_only=True)
class _Run:
    job: ClusterJob
    watch: WatchConfig
    on_log: Callable[[str], None]
    on_metrics: Callable[[Mapping[str, float]], None]
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    logs: JobLogs
    metrics: list[Mapping[str, float]] = field(default_factory=list)
    tails: dict[str, tuple[Life, deque[str]]] = field(default_factory=dict)
    """Pod to the life of it that was followed last, and the end of what it printed."""
    uids: dict[str, str] = field(default_factory=dict)
    """Pod to the uid that it had last; of a job that is suspended no pod is missed."""
    num_recreated: int = 0
    restart_counts: dict[str, int] = field(default_factory=dict)
    notices: set[str] = field(default_factory=set)

    def pause(self) -> None:
        """Wait until the job is worth another look."""
        self.sleep(self.watch.poll_seconds)

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
                    f"{self.job.where} did not finish in {limit:g} seconds and was deleted."
                    f"{self._describe_pods()}{self._describe_log()}"
                )
            self.pause()

    def _look(self) -> bool:
        """Look once; True when the job has succeeded."""
        found = self.job.find()
        if found is None or found.metadata.uid != self.job.uid:
            raise PermanentError(f"{self.job.where} was deleted while it ran.")
        pods = self.job.list_pods()
        succeeded = find_condition(found, constants.JOB_CONDITION_SUCCEEDED) is not None
        failed = find_condition(found, constants.JOB_CONDITION_FAILED)
        self._follow_logs(pods, is_final=bool(succeeded or failed))
        self._count_restarts(pods)
        if failed:
            raise PermanentError(f"{self.job.where} failed{self._describe_failure(pods, failed)}")
        if find_condition(found, _SUSPENDED):
            self._notice(f"{self.job.where} is suspended: it waits to be resumed, as by Kueue.")
            self.uids.clear()
        for pod in pods:
            for obstacle in (*find_obstacles(pod), *self.job.list_failed_mounts(pod)):
                self._notice(f"Pod {pod.metadata.name} waits: {obstacle.rstrip('.')}.")
        return succeeded

    def _finish(self) -> TrainingRun:
        return TrainingRun(
            name=self.job.name,
            namespace=self.job.namespace,
            metrics=tuple(self.metrics),
            num_restarts=self._num_restarts(),
        )

    def _follow_logs(self, pods: Sequence[Any], *, is_final: bool) -> None:
        # NB: any worker of an elastic job may be rank 0, and only that one prints metrics.
        followed = [pod for pod in pods if self.job.is_elastic or _is_master(pod)]
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
            self.tails[pod] = (line.life, deque(maxlen=NUM_TAIL_LINES))
        if line.text.strip():
            self.tails[pod][1].append(line.text)

    def _count_restarts(self, pods: Sequence[Any]) -> None:
        for pod in pods:
            name, uid = pod.metadata.name, pod.metadata.uid
            self.num_recreated += self.uids.get(name, uid) != uid
            self.uids[name] = uid
            self.restart_counts[uid] = count_restarts(pod)
        if self._num_restarts() > self.watch.max_restarts:
            raise _GivenUpError(
                f"{self.job.where} was restarted more than {self.watch.max_restarts} times and was"
                " deleted; its program is killed again and again, for want of memory perhaps"
                f"{self._describe_end(pods) or '.'}"
            )

    def _num_restarts(self) -> int:
        return self.num_recreated + sum(self.restart_counts.values())

    def _notice(self, notice: str) -> None:
        if notice not in self.notices:
            self.notices.add(notice)
            self.on_log(notice)

    def _describe_pods(self) -> str:
        phases = [f"{pod.metadata.name} is {pod.status.phase}" for pod in self.job.list_pods()]
        return " ".join(["", f"Its pods: {'; '.join(phases) or 'none'}.", *sorted(self.notices)])

    def _describe_log(self) -> str:
        """Return the end of what was followed, below a sentence."""
        lines = [line for _, tail in self.tails.values() for line in tail][-NUM_TAIL_LINES:]
        return "\n".join(["", "The last lines of its log:", *lines]) if lines else ""

    def _describe_failure(self, pods: Sequence[Any], failed: Any) -> str:
        """Say why the job failed, in the rest of a sentence."""
        if any(not end.is_consequence for end in find_ends(pods, is_elastic=self.job.is_elastic)):
            return self._describe_end(pods)
        said = str(failed.message).rstrip(".")
        end = self._describe_end(pods) or f".{self._describe_pods()}{self._describe_log()}"
        return f": {said}{end}"

    def _describe_end(self, pods: Sequence[Any]) -> str:
        """Say which replica ended how, in the rest of a sentence, and the end of its log."""
        ends = find_ends(pods, is_elastic=self.job.is_elastic)
        if all(end.is_consequence for end in ends):
            events = self.job.list_events(self.job.uid, EXIT_EVENT)
            ends += find_lost_ends(events, self.job.name, is_elastic=self.job.is_elastic)
        end = choose_end(ends)
        return "" if end is None else end.render(self._read_tail(end))

    def _read_tail(self, end: ReplicaEnd) -> list[str]:
        """Return the last lines of a replica's log; of one that is gone, those that were seen."""
        if end.is_lost:
            return list(self.tails.get(end.pod, ("", ()))[1])
        return self.job.read_log_tail(end.pod, container=end.container, is_previous=end.is_previous)


def _is_master(pod: Any) -> bool:  # Any: the client's V1Pod
    return bool(pod.metadata.labels.get(constants.JOB_ROLE_LABEL) == constants.JOB_ROLE_MASTER)
