"""Says why an endpoint does not become ready, in what a person would look up by hand.

It reads the InferenceService's model status, the newest pods' containers, their events and the end
of the failing container's log. Whatever may not be read is left out: an explanation never fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kubeloop.errors import KubeloopError
from kubeloop.kserve.endpoints import Endpoint, TransitionStatus
from kubeloop.kserve.inference_services import CONFIGURATION_ANNOTATION
from kubeloop.sdk_errors import translate_errors

Client = Any  # kserve.KServeClient, which has no types

_NUM_LOG_LINES = 20
_NUM_EVENTS = 5
_BAD_WAITING = (
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFailure:
    """A container that ended, or that cannot start."""

    pod: str
    container: str
    reason: str
    message: str
    exit_code: int | None
    num_failures: int
    """Failed starts so far."""

    def __str__(self) -> str:
        code = "" if self.exit_code is None else f" with exit code {self.exit_code}"
        lines = self.message.strip().splitlines()
        said = f" ({lines[-1]})" if lines else ""
        return (
            f"container {self.container} of pod {self.pod} failed{code}"
            f" {self.num_failures} time(s), {self.reason}{said}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What is known about an endpoint that is not ready."""

    statements: tuple[str, ...]
    events: tuple[str, ...]
    log_lines: tuple[str, ...]
    next_step: str

    @property
    def summary(self) -> str:
        """The most telling line: the last of the failing container's log, else a statement."""
        if self.log_lines:
            return self.log_lines[-1].removeprefix("error: ")
        return self.statements[-1] if self.statements else "nothing is known about it"

    def render(self) -> str:
        """Several lines of text, the log last."""
        lines = [f"  {statement}" for statement in self.statements]
        if self.events:
            lines += ["  events:", *(f"    {event}" for event in self.events)]
        if self.log_lines:
            lines += ["  last log lines:", *(f"    {line}" for line in self.log_lines)]
        return "\n".join([*lines, f"  {self.next_step}"])


def find_pod_failure(client: Client, endpoint: Endpoint, digest: str) -> PodFailure | None:
    """The first failing container among the pods of a configuration, if any."""
    for pod in _list_pods(client, endpoint, digest):
        for failure in _list_failures(pod):
            return failure
    return None


def diagnose(client: Client, endpoint: Endpoint, digest: str) -> Diagnosis:
    """Collect why `endpoint` is not ready.

    Args:
        client: KServe's client.
        endpoint: The endpoint as last read.
        digest: Configuration whose pods are looked at.
    """
    pods = _list_pods(client, endpoint, digest)
    failure = next((found for pod in pods for found in _list_failures(pod)), None)
    statements = [f"endpoint: {endpoint.message}"] if endpoint.message else []
    is_model_blamed = endpoint.transition is not TransitionStatus.UP_TO_DATE
    if endpoint.failure and is_model_blamed and failure is None:
        statements.append(f"model: {endpoint.failure}")
    statements += [f"pod {pod.metadata.name}: {said}" for pod in pods if (said := _blocker(pod))]
    if failure is not None:
        statements.append(str(failure))
    if not pods:
        statements.append("no pod was created")
    names = [endpoint.name, f"{endpoint.name}-predictor", *(pod.metadata.name for pod in pods)]
    return Diagnosis(
        statements=tuple(statements),
        events=tuple(_read_events(client, endpoint.namespace, names)),
        log_lines=tuple(_read_log(client, endpoint.namespace, failure)) if failure else (),
        next_step=(
            f"look: kubectl -n {endpoint.namespace} describe inferenceservice,pods"
            f" -l serving.kserve.io/inferenceservice={endpoint.name}; remove:"
            f" kubectl -n {endpoint.namespace} delete inferenceservice {endpoint.name}"
        ),
    )


def _list_pods(client: Client, endpoint: Endpoint, digest: str) -> list[Any]:
    selector = f"serving.kserve.io/inferenceservice={endpoint.name}"
    try:
        with translate_errors("list pods"):
            pods = client.core_api.list_namespaced_pod(endpoint.namespace, label_selector=selector)
    except KubeloopError:
        return []
    return [
        pod
        for pod in pods.items
        if (pod.metadata.annotations or {}).get(CONFIGURATION_ANNOTATION) == digest
        and pod.metadata.deletion_timestamp is None
    ]


def _list_failures(pod: Any) -> Iterator[PodFailure]:  # pod: V1Pod
    if pod.status is None:
        return
    statuses = [
        *(pod.status.init_container_statuses or []),
        *(pod.status.container_statuses or []),
    ]
    for status in statuses:
        if (failure := _parse_failure(pod.metadata.name, status)) is not None:
            yield failure


def _parse_failure(pod: str, status: Any) -> PodFailure | None:  # status: V1ContainerStatus
    if status.ready:
        return None
    now, before = status.state, status.last_state
    ended = (now and now.terminated) or (before and before.terminated)
    waiting = now.waiting if now else None
    cannot_start = waiting is not None and waiting.reason in _BAD_WAITING
    ended_badly = ended is not None and ended.exit_code != 0
    if not cannot_start and not ended_badly:
        return None
    is_up = now is not None and now.running is not None
    return PodFailure(
        pod=pod,
        container=status.name,
        reason=getattr(waiting if cannot_start else ended, "reason", None) or "Error",
        message=getattr(ended if ended_badly else waiting, "message", None) or "",
        exit_code=getattr(ended, "exit_code", None) if ended_badly else None,
        num_failures=(status.restart_count or 0) + (0 if is_up else 1),
    )


def _blocker(pod: Any) -> str:  # pod: V1Pod
    for condition in (pod.status and pod.status.conditions) or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return f"{condition.reason}: {condition.message}"
    return ""


def _read_events(client: Client, namespace: str, names: list[str]) -> list[str]:
    said: list[str] = []
    for name in names:
        try:
            with translate_errors("list events"):
                events = client.core_api.list_namespaced_event(
                    namespace, field_selector=f"involvedObject.name={name},type=Warning"
                )
        except KubeloopError:
            continue
        said += [
            f"{event.involved_object.kind} {name}: {event.reason}: {event.message}"
            for event in events.items
        ]
    return said[-_NUM_EVENTS:]


def _read_log(client: Client, namespace: str, failure: PodFailure) -> list[str]:
    for previous in (False, True):
        try:
            with translate_errors("read a log"):
                text = client.core_api.read_namespaced_pod_log(
                    failure.pod,
                    namespace,
                    container=failure.container,
                    previous=previous,
                    tail_lines=_NUM_LOG_LINES,
                )
        except KubeloopError:
            continue
        if text and text.strip():
            return [line for line in str(text).splitlines() if line.strip()]
    return []
