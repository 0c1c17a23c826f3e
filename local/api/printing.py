"""The computed columns of the built-in kinds, as `kubectl get` shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from kubeloop.local.api.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    EVENTS,
    HORIZONTAL_POD_AUTOSCALERS,
    JOBS,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Resource,
)
from kubeloop.local.client import Manifest

Cell = str | int | float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """When the objects are looked at."""

    age: str
    age_of: Callable[[str | None], str]
    now: datetime


Row = Callable[[Manifest, Seen], Sequence[Cell]]


def _nothing(_: Manifest, __: Seen) -> Sequence[Cell]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPrinter:
    """The columns after the name; the wide ones are shown by `-o wide`."""

    columns: tuple[str, ...]
    row: Row
    wide_columns: tuple[str, ...] = ()
    wide: Row = _nothing


def human_duration(duration: timedelta) -> str:
    """A duration in the two or three digits people want to read: `45s`, `3m20s`, `5d1h`."""
    seconds = int(duration.total_seconds())
    if seconds < 0:
        return "0s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 2:
        return f"{seconds}s"
    if minutes < 10:
        return _pair(minutes, "m", seconds % 60, "s")
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return _pair(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _pair(days, "d", hours % 24, "h")
    if days < 2 * 365:
        return f"{days}d"
    if days < 8 * 365:
        return _pair(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _pair(first: int, first_unit: str, second: int, second_unit: str) -> str:
    return f"{first}{first_unit}{second}{second_unit}" if second else f"{first}{first_unit}"


def _print_pod(pod: Manifest, seen: Seen) -> Sequence[Cell]:
    spec, status = pod.get("spec", {}), pod.get("status") or {}
    statuses = status.get("containerStatuses") or []
    num_ready = sum(bool(entry.get("ready")) for entry in statuses)
    restarts = sum(int(entry.get("restartCount", 0)) for entry in statuses)
    return f"{num_ready}/{len(spec.get('containers', ()))}", pod_state(pod), restarts, seen.age


def pod_state(pod: Manifest) -> str:
    """The one word that says how a pod is: `Running`, `CrashLoopBackOff`, `Init:0/1`."""
    status = pod.get("status") or {}
    state = status.get("reason") or status.get("phase") or "Unknown"
    init_state = _init_state(pod)
    if init_state:
        state = init_state
    else:
        entries = status.get("containerStatuses") or []
        for entry in reversed(entries):
            state = _container_state(entry) or state
        if state == "Completed" and any("running" in (e.get("state") or {}) for e in entries):
            state = "Running"
    if "deletionTimestamp" in pod["metadata"]:
        state = "Terminating"
    return str(state)


def _init_state(pod: Manifest) -> str:
    entries = (pod.get("status") or {}).get("initContainerStatuses") or []
    num_containers = len(pod.get("spec", {}).get("initContainers") or ())
    for index, entry in enumerate(entries):
        state = entry.get("state") or {}
        if (state.get("terminated") or {}).get("exitCode") == 0:
            continue
        word = _container_state(entry)
        waits = word in ("", "PodInitializing")
        return f"Init:{index}/{num_containers}" if waits else f"Init:{word}"
    return ""


def _container_state(entry: Manifest) -> str:
    state = entry.get("state") or {}
    if reason := (state.get("waiting") or {}).get("reason"):
        return str(reason)
    if terminated := state.get("terminated"):
        if reason := terminated.get("reason"):
            return str(reason)
        if signal := terminated.get("signal"):
            return f"Signal:{signal}"
        return f"ExitCode:{terminated.get('exitCode')}"
    return ""


def _print_pod_wide(pod: Manifest, _: Seen) -> Sequence[Cell]:
    status = pod.get("status") or {}
    node = pod.get("spec", {}).get("nodeName") or "<none>"
    return status.get("podIP") or "<none>", node, "<none>", "<none>"


def _print_service(service: Manifest, seen: Seen) -> Sequence[Cell]:
    spec = service.get("spec", {})
    ports = [
        f"{port['port']}{':' + str(port['nodePort']) if port.get('nodePort') else ''}"
        f"/{port.get('protocol', 'TCP')}"
        for port in spec.get("ports") or ()
    ]
    return (
        spec.get("type"),
        spec.get("clusterIP") or "<none>",
        spec.get("externalName") or "<none>",
        ",".join(ports) or "<none>",
        seen.age,
    )


def _print_deployment(deployment: Manifest, seen: Seen) -> Sequence[Cell]:
    status = deployment.get("status") or {}
    wanted = deployment.get("spec", {}).get("replicas", 1)
    return (
        f"{status.get('readyReplicas', 0)}/{wanted}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        seen.age,
    )


def _print_autoscaler(autoscaler: Manifest, seen: Seen) -> Sequence[Cell]:
    spec, status = autoscaler.get("spec", {}), autoscaler.get("status") or {}
    target = spec.get("scaleTargetRef") or {}
    return (
        f"{target.get('kind')}/{target.get('name')}",
        spec.get("minReplicas", 1),
        spec.get("maxReplicas"),
        status.get("currentReplicas", 0),
        seen.age,
    )


def _print_job(job: Manifest, seen: Seen) -> Sequence[Cell]:
    spec, status = job.get("spec", {}), job.get("status") or {}
    true_types = {c["type"] for c in status.get("conditions") or () if c.get("status") == "True"}
    state = "Running"
    for type_, word in (("Suspended", "Suspended"), ("Failed", "Failed"), ("Complete", "Complete")):
        if type_ in true_types:
            state = word
    if "deletionTimestamp" in job["metadata"]:
        state = "Terminating"
    wanted = spec.get("completions") or spec.get("parallelism") or 1
    start, end = status.get("startTime"), status.get("completionTime")
    duration = "" if not start else _between(seen, start, end)
    return state, f"{status.get('succeeded', 0)}/{wanted}", duration, seen.age


def _between(seen: Seen, start: str, end: str | None) -> str:
    finish = seen.now if end is None else datetime.fromisoformat(end)
    return human_duration(finish - datetime.fromisoformat(start))


def _print_event(event: Manifest, seen: Seen) -> Sequence[Cell]:
    involved = event.get("involvedObject") or {}
    last = event.get("lastTimestamp") or event.get("eventTime") or event.get("firstTimestamp")
    return (
        seen.age_of(last),
        event.get("type"),
        event.get("reason"),
        f"{str(involved.get('kind', '')).lower()}/{involved.get('name', '')}",
        str(event.get("message", "")).strip(),
    )


def _print_event_wide(event: Manifest, seen: Seen) -> Sequence[Cell]:
    source = event.get("source") or {}
    return (
        (event.get("involvedObject") or {}).get("fieldPath", ""),
        source.get("component") or event.get("reportingComponent") or "",
        seen.age_of(event.get("firstTimestamp") or event.get("eventTime")),
        event.get("count", 1),
        event["metadata"]["name"],
    )


def _print_claim(claim: Manifest, seen: Seen) -> Sequence[Cell]:
    spec, status = claim.get("spec", {}), claim.get("status") or {}
    short = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX"}
    modes = [short.get(mode, mode) for mode in status.get("accessModes") or ()]
    return (
        status.get("phase"),
        spec.get("volumeName", ""),
        (status.get("capacity") or {}).get("storage", ""),
        ",".join(modes),
        spec.get("storageClassName", ""),
        seen.age,
    )


def _print_node(node: Manifest, seen: Seen) -> Sequence[Cell]:
    status = node.get("status") or {}
    ready = any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in status.get("conditions") or ()
    )
    version = (status.get("nodeInfo") or {}).get("kubeletVersion", "")
    return "Ready" if ready else "NotReady", "<none>", seen.age, version


ROWS: Mapping[Resource, RowPrinter] = {
    PODS: RowPrinter(
        columns=("Ready", "Status", "Restarts", "Age"),
        row=_print_pod,
        wide_columns=("IP", "Node", "Nominated Node", "Readiness Gates"),
        wide=_print_pod_wide,
    ),
    SERVICES: RowPrinter(
        columns=("Type", "Cluster-IP", "External-IP", "Port(s)", "Age"), row=_print_service
    ),
    DEPLOYMENTS: RowPrinter(
        columns=("Ready", "Up-to-date", "Available", "Age"), row=_print_deployment
    ),
    HORIZONTAL_POD_AUTOSCALERS: RowPrinter(
        columns=("Reference", "MinPods", "MaxPods", "Replicas", "Age"), row=_print_autoscaler
    ),
    JOBS: RowPrinter(columns=("Status", "Completions", "Duration", "Age"), row=_print_job),
    EVENTS: RowPrinter(
        columns=("Last Seen", "Type", "Reason", "Object", "Message"),
        row=_print_event,
        wide_columns=("Subobject", "Source", "First Seen", "Count", "Name"),
        wide=_print_event_wide,
    ),
    CONFIG_MAPS: RowPrinter(
        columns=("Data", "Age"),
        row=lambda m, seen: (len(m.get("data") or ()) + len(m.get("binaryData") or ()), seen.age),
    ),
    SECRETS: RowPrinter(
        columns=("Type", "Data", "Age"),
        row=lambda m, seen: (m.get("type"), len(m.get("data") or ()), seen.age),
    ),
    SERVICE_ACCOUNTS: RowPrinter(
        columns=("Secrets", "Age"), row=lambda m, seen: (len(m.get("secrets") or ()), seen.age)
    ),
    NAMESPACES: RowPrinter(
        columns=("Status", "Age"),
        row=lambda m, seen: ((m.get("status") or {}).get("phase"), seen.age),
    ),
    NODES: RowPrinter(columns=("Status", "Roles", "Age", "Version"), row=_print_node),
    PERSISTENT_VOLUME_CLAIMS: RowPrinter(
        columns=("Status", "Volume", "Capacity", "Access Modes", "StorageClass", "Age"),
        row=_print_claim,
    ),
}
