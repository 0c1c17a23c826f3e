"""Says of a pod's containers what Kubernetes says in `Pod.status`.

The records are what the pod runner keeps in memory; they are rendered into the status, and read
back from it after a restart. Times are seconds since the epoch until they are rendered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from kubeloop.local.client import Manifest
from kubeloop.local.kubelet.references import NODE_ADDRESS
from kubeloop.local.operators.conditions import format_time, parse_time

CONTAINER_ID_SCHEME = "kubeloop://"
_LOST_EXIT_CODE = 137


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A container that does not run yet, or again."""

    reason: str = "ContainerCreating"
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A container whose process runs."""

    started_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminated:
    """A container whose process has ended, or could not be started."""

    exit_code: int
    reason: str
    message: str = ""
    signal: int = 0
    started_at: float = 0
    finished_at: float
    container_id: str = ""


State = Waiting | Running | Terminated


@dataclass(slots=True, kw_only=True)
class ContainerRecord:
    """What is known of one container."""

    name: str
    image: str
    state: State
    last: Terminated | None = None
    restart_count: int = 0
    ready: bool = False
    started: bool = False
    container_id: str = ""

    @property
    def has_run(self) -> bool:
        """Whether it runs or has run at least once."""
        return not isinstance(self.state, Waiting) or self.last is not None

    @property
    def has_succeeded(self) -> bool:
        """Whether it ended with exit code 0."""
        return isinstance(self.state, Terminated) and self.state.exit_code == 0

    @property
    def has_failed(self) -> bool:
        """Whether it ended with another exit code."""
        return isinstance(self.state, Terminated) and self.state.exit_code != 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFailure:
    """Why a pod as a whole failed, whatever its containers did."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRecords:
    """All that a pod's status is made of."""

    init: Sequence[ContainerRecord]
    containers: Sequence[ContainerRecord]
    started_at: float
    over: bool = False
    """No container will be started any more."""
    failure: PodFailure | None = None

    @property
    def initialised(self) -> bool:
        """Whether all init containers are done."""
        return all(record.has_succeeded for record in self.init)

    @property
    def phase(self) -> str:
        """Pending, Running, Succeeded or Failed."""
        if self.over:
            records = [*self.init, *self.containers]
            succeeded = all(record.has_succeeded for record in records)
            return "Succeeded" if succeeded and self.failure is None else "Failed"
        if not self.initialised or not all(record.has_run for record in self.containers):
            return "Pending"
        return "Running"


def build_records(pod: Manifest, *, field: str) -> list[ContainerRecord]:
    """Records of `initContainers` or `containers`, with what the status tells of their past.

    A container that was running when the status was written has no process any more.
    """
    status = pod.get("status") or {}
    reported = "initContainerStatuses" if field == "initContainers" else "containerStatuses"
    by_name = {entry["name"]: entry for entry in status.get(reported) or ()}
    return [
        _read_record(container, by_name.get(container["name"], {}))
        for container in pod["spec"].get(field) or ()
    ]


def render_status(records: PodRecords, *, pod: Manifest, now: datetime) -> Manifest:
    """The fields of `status` that the pod runner owns."""
    status: Manifest = {
        "phase": records.phase,
        "conditions": _render_conditions(records, pod=pod, now=now),
        "startTime": _stamp(records.started_at),
        "hostIP": NODE_ADDRESS,
        "hostIPs": [{"ip": NODE_ADDRESS}],
        "podIP": NODE_ADDRESS,
        "podIPs": [{"ip": NODE_ADDRESS}],
        "containerStatuses": [_render_container(record) for record in records.containers],
    }
    if records.init:
        status["initContainerStatuses"] = [_render_container(record) for record in records.init]
    if records.failure is not None:
        status |= {"reason": records.failure.reason, "message": records.failure.message}
    return status


def render_unschedulable(pod: Manifest, *, message: str, now: datetime) -> Manifest:
    """The status of a pod that fits nowhere."""
    condition = ("PodScheduled", False, "Unschedulable", message)
    return {"phase": "Pending", "conditions": _keep_times([condition], pod=pod, now=now)}


_Condition = tuple[str, bool, str, str]


def _render_conditions(records: PodRecords, *, pod: Manifest, now: datetime) -> list[Manifest]:
    unready = [record.name for record in records.containers if not record.ready]
    incomplete = [record.name for record in records.init if not record.has_succeeded]
    if records.over:
        reason, message = ("PodCompleted" if records.phase == "Succeeded" else "PodFailed"), ""
    else:
        reason = "ContainersNotReady" if unready else ""
        message = f"containers with unready status: [{' '.join(unready)}]" if unready else ""
    ready = not unready and not records.over
    conditions: list[_Condition] = [
        (
            "Initialized",
            records.initialised,
            "ContainersNotInitialized" if incomplete else "",
            f"containers with incomplete status: [{' '.join(incomplete)}]" if incomplete else "",
        ),
        ("Ready", ready, reason, message),
        ("ContainersReady", ready, reason, message),
        ("PodScheduled", True, "", ""),
    ]
    return _keep_times(conditions, pod=pod, now=now)


def _keep_times(
    conditions: Sequence[_Condition], *, pod: Manifest, now: datetime
) -> list[Manifest]:
    """Conditions whose transition times move only when their status does."""
    old = {entry["type"]: entry for entry in (pod.get("status") or {}).get("conditions") or ()}
    rendered = []
    for kind, value, reason, message in conditions:
        status = "True" if value else "False"
        before = old.get(kind) or {}
        same = before.get("status") == status
        condition = {
            "type": kind,
            "status": status,
            "lastProbeTime": None,
            "lastTransitionTime": before["lastTransitionTime"] if same else format_time(now),
            "reason": reason,
            "message": message,
        }
        rendered.append({key: value for key, value in condition.items() if value not in ("", None)})
    return rendered


def _render_container(record: ContainerRecord) -> Manifest:
    rendered: Manifest = {
        "name": record.name,
        "image": record.image,
        "imageID": record.image,
        "ready": record.ready,
        "started": record.started,
        "restartCount": record.restart_count,
        "state": _render_state(record.state),
        "lastState": {} if record.last is None else _render_state(record.last),
    }
    if record.container_id:
        rendered["containerID"] = record.container_id
    return rendered


def _render_state(state: State) -> Manifest:
    if isinstance(state, Waiting):
        waiting = {"reason": state.reason, "message": state.message}
        return {"waiting": {key: value for key, value in waiting.items() if value}}
    if isinstance(state, Running):
        return {"running": {"startedAt": _stamp(state.started_at)}}
    terminated: Manifest = {
        "exitCode": state.exit_code,
        "reason": state.reason,
        "startedAt": _stamp(state.started_at or state.finished_at),
        "finishedAt": _stamp(state.finished_at),
    }
    extras = {
        "message": state.message,
        "signal": state.signal,
        "containerID": state.container_id,
    }
    return {"terminated": terminated | {key: value for key, value in extras.items() if value}}


def _read_record(container: Manifest, reported: Manifest) -> ContainerRecord:
    record = ContainerRecord(
        name=container["name"],
        image=container.get("image", ""),
        state=Waiting(),
        restart_count=int(reported.get("restartCount", 0)),
        container_id=reported.get("containerID", ""),
        last=_read_terminated(reported.get("lastState") or {}),
    )
    state = reported.get("state") or {}
    if terminated := _read_terminated(state):
        record.state = terminated
    elif running := state.get("running"):
        record.state = Terminated(
            exit_code=_LOST_EXIT_CODE,
            reason="ContainerStatusUnknown",
            message="The container could not be located when the pod runner started again",
            started_at=_seconds(running.get("startedAt")),
            finished_at=datetime.now(UTC).timestamp(),
            container_id=record.container_id,
        )
    return record


def _read_terminated(state: Manifest) -> Terminated | None:
    terminated = state.get("terminated")
    if not terminated:
        return None
    return Terminated(
        exit_code=int(terminated.get("exitCode", 0)),
        reason=terminated.get("reason", ""),
        message=terminated.get("message", ""),
        signal=int(terminated.get("signal", 0)),
        started_at=_seconds(terminated.get("startedAt")),
        finished_at=_seconds(terminated.get("finishedAt")),
        container_id=terminated.get("containerID", ""),
    )


def _seconds(stamp: str | None) -> float:
    return parse_time(stamp).timestamp() if stamp else 0.0


def _stamp(seconds: float) -> str:
    return format_time(datetime.fromtimestamp(seconds, UTC))


def expect_restart(record: ContainerRecord, *, policy: str) -> bool:
    """Whether a container that has ended is to be started again."""
    if not isinstance(record.state, Terminated):
        return True
    return policy == "Always" or (policy == "OnFailure" and record.state.exit_code != 0)
