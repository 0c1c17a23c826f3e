"""How the replicas of a training job ended, for the sentence that a person reads when it fails.

A failed pod says so itself as long as it is there. One that was deleted, because it is started
again or because the job cleans up, is remembered by the operator's events alone, and its log by
whoever followed it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kubeflow.training.constants import constants

EXIT_EVENT = "ExitedWithCode"
_EXIT = re.compile(r"exited with code (\d+)")
_RETRYABLE = frozenset({138, 143})
_ERROR = "error: "
_TORCHRUN = re.compile(r"^[A-Z]\d{4} \S+ \d+ torch/distributed/|^error: processes ended with ")
_LOST_PEER = "error: Lost another process of the job"
_OOM_KILLED = "OOMKilled"
_UNSAID = ("", "Error", "Completed")
_TRANSIENT_WAITS = ("ContainerCreating", "PodInitializing")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaEnd:
    """A replica that ended badly."""

    pod: str
    rank: int
    exit_code: int
    reason: str = ""
    """Kubernetes' word for it, such as `OOMKilled`."""
    container: str = constants.PYTORCHJOB_CONTAINER
    is_previous: bool = False
    """Whether the container has been started again since."""
    is_lost: bool = False
    """Whether the pod is gone."""

    @property
    def is_consequence(self) -> bool:
        """Whether it says less than another: it lost its peer, or was asked to stop."""
        return self.exit_code in _RETRYABLE

    def render(self, log: Sequence[str]) -> str:
        """Say it as the rest of a sentence, and below it the end of the log."""
        reason = "" if self.reason in _UNSAID else f" ({self.reason})"
        program = constants.PYTORCHJOB_CONTAINER
        where = "" if self.container == program else f", init container {self.container}"
        tail = "\n".join(["", "The last lines of its log:", *log]) if log else ""
        return (
            f": rank {self.rank}, pod {self.pod}{where}, exited with code"
            f" {self.exit_code}{reason}: {self._find_cause(log)}{tail}"
        )

    def _find_cause(self, log: Sequence[str]) -> str:
        if self.reason == _OOM_KILLED:
            return "it took more memory than its limit; raise memory, or lower batch_size"
        silent = "its log is gone with it" if self.is_lost else "it printed nothing"
        return find_cause(log) if log else silent


def find_cause(log: Sequence[str]) -> str:
    """Return the line that says why a replica ended: the last one, unless torchrun wrote it.

    Where torchrun looked after several processes, the last to speak may be one that lost its peer.
    """
    said = [line for line in log if not _TORCHRUN.search(line)]
    errors = [line for line in said if line.startswith(_ERROR)] if len(said) < len(log) else []
    own = [line for line in errors if not line.startswith(_LOST_PEER)]
    return (own or errors or said or log)[-1].removeprefix(_ERROR)


def find_ends(pods: Iterable[Any], *, is_elastic: bool) -> list[ReplicaEnd]:
    """Read the ends of replicas off their pods, the clients' `V1Pod`."""
    return [end for pod in pods if (end := _read_end(pod, is_elastic=is_elastic)) is not None]


def find_lost_ends(events: Iterable[Any], job_name: str, *, is_elastic: bool) -> list[ReplicaEnd]:
    """Read the ends of replicas off the job's events, the client's `CoreV1Event`; newest first."""
    name = re.compile(rf"\.({re.escape(job_name)}-(master|worker)-(\d+)) ")
    ends = []
    for event in sorted(events, key=_time_of, reverse=True):
        exit_, pod = _EXIT.search(event.message), name.search(event.message)
        if exit_ and pod and int(exit_[1]):
            rank = _rank_of(pod[2], int(pod[3]), is_elastic=is_elastic)
            ends.append(ReplicaEnd(pod=pod[1], rank=rank, exit_code=int(exit_[1]), is_lost=True))
    return ends


def choose_end(ends: Iterable[ReplicaEnd]) -> ReplicaEnd | None:
    """Return the end that explains the others: the first that is no consequence of one."""
    return min(ends, key=lambda end: end.is_consequence, default=None)


def find_obstacles(pod: Any) -> Iterator[str]:
    """Say why a pod does not run: it has no place, or lacks an image, a Secret, a volume."""
    for condition in pod.status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            yield condition.message
    for status in _statuses_of(pod):
        waiting = status.state.waiting if status.state else None
        if waiting and waiting.message and waiting.reason not in _TRANSIENT_WAITS:
            yield f"{waiting.reason}: {waiting.message}"


def count_restarts(pod: Any) -> int:
    """Return how often the containers of a pod were started again in place."""
    return sum(status.restart_count or 0 for status in _statuses_of(pod))


def _statuses_of(pod: Any) -> list[Any]:  # Any: the client's V1ContainerStatus
    return [*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ())]


def _read_end(pod: Any, *, is_elastic: bool) -> ReplicaEnd | None:
    labels = pod.metadata.labels
    kind, index = labels[constants.REPLICA_TYPE_LABEL], int(labels[constants.REPLICA_INDEX_LABEL])
    for status in _statuses_of(pod):
        for state in (status.state, status.last_state):
            if state and state.terminated and state.terminated.exit_code:
                return ReplicaEnd(
                    pod=pod.metadata.name,
                    rank=_rank_of(kind, index, is_elastic=is_elastic),
                    exit_code=state.terminated.exit_code,
                    reason=state.terminated.reason or "",
                    container=status.name,
                    is_previous=state is status.last_state,
                )
    return None


def _rank_of(kind: str, index: int, *, is_elastic: bool) -> int:
    """Return the rank of a replica; workers come after the master, where there is one."""
    is_after_master = kind == constants.REPLICA_TYPE_WORKER.lower() and not is_elastic
    return index + 1 if is_after_master else index


def _time_of(event: Any) -> str:
    return str(event.last_timestamp or event.event_time or event.metadata.creation_timestamp)
