"""The arithmetic of a Deployment: which pods to make and which to end, and what its status says.

Pure functions of a Deployment and its pods. Pods are told apart by the hash of the template that
made them, so that no ReplicaSets are needed; an update first makes new pods and ends old ones only
as far as enough stay available.

Source: Kubernetes `pkg/controller/deployment/{rolling,recreate,progress,sync}.go`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from kubeloop.local.client import Manifest
from kubeloop.local.operators.conditions import (
    FALSE,
    TRUE,
    UNKNOWN,
    conditions_of,
    find_condition,
    format_time,
    parse_time,
)
from kubeloop.local.operators.pod_states import is_active, is_being_deleted, is_ready, is_terminal

HASH_LABEL = "pod-template-hash"

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # no vowels: hashes become no words
_MAX_FAILURE_WAIT_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pods:
    """The pods of a Deployment, sorted by what they mean to it."""

    new: tuple[Manifest, ...]
    """Of the present template, alive."""
    old: tuple[Manifest, ...]
    """Of another template, alive."""
    ending: tuple[Manifest, ...]
    """Being deleted."""
    ended: tuple[Manifest, ...]
    """Failed or Succeeded: no longer run by anyone."""

    @property
    def alive(self) -> tuple[Manifest, ...]:
        """New and old ones."""
        return self.new + self.old


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do now."""

    num_new: int
    doomed: tuple[Manifest, ...]
    wait_seconds: float | None = None
    """Look again after this, because a new pod has to wait."""


def hash_template(template: Manifest) -> str:
    """A short name of a pod template's content."""
    digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).digest()
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:10])


def sort_pods(pods: Iterable[Manifest], template_hash: str) -> Pods:
    """Tell a Deployment's pods apart."""
    pods = sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))
    alive = [pod for pod in pods if is_active(pod)]
    return Pods(
        new=tuple(pod for pod in alive if _hash_of(pod) == template_hash),
        old=tuple(pod for pod in alive if _hash_of(pod) != template_hash),
        ending=tuple(pod for pod in pods if is_being_deleted(pod)),
        ended=tuple(pod for pod in pods if is_terminal(pod) and not is_being_deleted(pod)),
    )


def _hash_of(pod: Manifest) -> str:
    return str((pod["metadata"].get("labels") or {}).get(HASH_LABEL, ""))


def is_available(pod: Manifest, *, min_ready_seconds: float, now: datetime) -> bool:
    """Whether a pod has been ready for long enough."""
    if not is_ready(pod):
        return False
    condition = find_condition(conditions_of(pod), "Ready") or {}
    since = condition.get("lastTransitionTime")
    if min_ready_seconds <= 0 or not since:
        return True
    return now - parse_time(since) >= timedelta(seconds=min_ready_seconds)


def plan_pods(deployment: Manifest, pods: Pods, *, now: datetime) -> Plan:
    """Choose the next pods to make and to end."""
    spec = deployment["spec"]
    replicas = spec["replicas"]
    if spec.get("paused"):
        return Plan(num_new=0, doomed=())
    wait = _wait_after_failures(pods, now)
    if spec["strategy"]["type"] == "Recreate":
        if pods.old or (pods.ending and not pods.new):
            return Plan(num_new=0, doomed=pods.old)
        room = replicas
    else:
        surge, _ = resolve_bounds(spec)
        room = replicas + surge - len(pods.old) if pods.old else replicas
    num_new = max(0, min(replicas, room) - len(pods.new))
    surplus = _choose_surplus(pods.new, len(pods.new) - replicas)
    doomed = (*surplus, *_choose_old(deployment, pods, now=now))
    if num_new and wait is not None:
        return Plan(num_new=0, doomed=doomed, wait_seconds=wait)
    return Plan(num_new=num_new, doomed=doomed)


def resolve_bounds(spec: Manifest) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in pods; percentages round up and down."""
    rolling, replicas = spec["strategy"].get("rollingUpdate") or {}, spec["replicas"]
    surge = _resolve(rolling.get("maxSurge", "25%"), replicas, round_up=True)
    unavailable = _resolve(rolling.get("maxUnavailable", "25%"), replicas, round_up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, min(unavailable, replicas)


def _resolve(bound: int | str, replicas: int, *, round_up: bool) -> int:
    if isinstance(bound, int):
        return bound
    share = int(bound.removesuffix("%")) * replicas
    return -(-share // 100) if round_up else share // 100


def _choose_surplus(pods: tuple[Manifest, ...], count: int) -> tuple[Manifest, ...]:
    """The pods that are missed least: not ready ones first, then the youngest."""
    if count <= 0:
        return ()
    youngest_first = pods[::-1]
    return tuple(sorted(youngest_first, key=is_ready)[:count])


def _choose_old(deployment: Manifest, pods: Pods, *, now: datetime) -> tuple[Manifest, ...]:
    spec = deployment["spec"]
    if spec["strategy"]["type"] == "Recreate":
        return ()
    _, unavailable = resolve_bounds(spec)
    least = spec["replicas"] - unavailable
    seconds = spec.get("minReadySeconds") or 0
    serving = [pod for pod in pods.alive if is_available(pod, min_ready_seconds=seconds, now=now)]
    idle = [pod for pod in pods.old if pod not in serving]
    spare = max(0, len(serving) - least)
    useful = [pod for pod in pods.old if pod in serving]
    # An old pod that does not serve is missed by nobody.
    return (*idle, *useful[:spare])


def _wait_after_failures(pods: Pods, now: datetime) -> float | None:
    """Seconds to hold back a replacement when pods keep failing as a whole."""
    if not pods.ended or pods.new:
        return None
    newest = max(parse_time(pod["metadata"]["creationTimestamp"]) for pod in pods.ended)
    wait = min(2.0 ** (len(pods.ended) - 1), _MAX_FAILURE_WAIT_SECONDS)
    left = wait - (now - newest).total_seconds()
    return left if left > 0 else None


def build_status(deployment: Manifest, pods: Pods, *, now: datetime) -> Manifest:
    """The status of a Deployment whose pods are `pods`."""
    spec, before = deployment["spec"], deployment.get("status") or {}
    seconds = spec.get("minReadySeconds") or 0
    available = sum(is_available(pod, min_ready_seconds=seconds, now=now) for pod in pods.alive)
    counts = {
        "replicas": len(pods.alive),
        "updatedReplicas": len(pods.new),
        "readyReplicas": sum(map(is_ready, pods.alive)),
        "availableReplicas": available,
        "unavailableReplicas": max(0, spec["replicas"] - available),
    }
    status: Manifest = {
        "observedGeneration": deployment["metadata"].get("generation", 1),
        **{key: count for key, count in counts.items() if count},
    }
    conditions = conditions_of(deployment)
    conditions = _write(conditions, _judge_availability(spec, available), now=now)
    progress = _judge_progress(deployment, before, status, now=now)
    if progress is not None:
        made_progress = progress["reason"] == "ReplicaSetUpdated" and _advanced(before, status)
        conditions = _write(conditions, progress, now=now, touch=made_progress)
    status["conditions"] = conditions
    return status


def seconds_to_deadline(deployment: Manifest, *, now: datetime) -> float | None:
    """When an unfinished rollout will have taken too long; None when it is not running."""
    progress = find_condition(conditions_of(deployment), "Progressing")
    deadline = deployment["spec"].get("progressDeadlineSeconds")
    if not deadline or progress is None or progress["status"] != TRUE:
        return None
    if progress["reason"] == "NewReplicaSetAvailable":
        return None
    since = now - parse_time(progress["lastUpdateTime"])
    return max(0.0, float(deadline) - since.total_seconds()) + 0.05


def is_complete(deployment: Manifest, status: Manifest) -> bool:
    """Whether all pods are of the present template, and available."""
    replicas = deployment["spec"]["replicas"]
    return all(
        status.get(key, 0) == replicas
        for key in ("updatedReplicas", "replicas", "availableReplicas")
    )


def _judge_availability(spec: Manifest, available: int) -> Manifest:
    _, unavailable = resolve_bounds(spec)
    is_enough = available >= spec["replicas"] - unavailable
    return {
        "type": "Available",
        "status": TRUE if is_enough else FALSE,
        "reason": f"MinimumReplicas{'Available' if is_enough else 'Unavailable'}",
        "message": f"Deployment {'has' if is_enough else 'does not have'} minimum availability.",
    }


def _judge_progress(
    deployment: Manifest, before: Manifest, status: Manifest, *, now: datetime
) -> Manifest | None:
    name = f"{deployment['metadata']['name']}-{hash_template(deployment['spec']['template'])}"
    current = find_condition(conditions_of(deployment), "Progressing")
    is_done = current is not None and current["reason"] == "NewReplicaSetAvailable"
    if deployment["spec"].get("paused"):
        return _progress(UNKNOWN, "DeploymentPaused", "Deployment is paused")
    if is_complete(deployment, status):
        message = f'ReplicaSet "{name}" has successfully progressed.'
        return _progress(TRUE, "NewReplicaSetAvailable", message)
    generation = deployment["metadata"].get("generation", 1)
    is_new = before.get("observedGeneration") != generation
    has_begun = status.get("updatedReplicas", 0) > 0
    if (current is None or is_new) and not has_begun:
        return _progress(TRUE, "NewReplicaSetCreated", f'Created new replica set "{name}"')
    if current is None or is_new or _advanced(before, status):
        return _progress(TRUE, "ReplicaSetUpdated", f'ReplicaSet "{name}" is progressing.')
    if is_done:  # a pod that fails after the rollout is no rollout
        return None
    deadline = deployment["spec"].get("progressDeadlineSeconds")
    since = now - parse_time(current["lastUpdateTime"])
    if deadline and since >= timedelta(seconds=deadline):
        message = f'ReplicaSet "{name}" has timed out progressing.'
        return _progress(FALSE, "ProgressDeadlineExceeded", message)
    return None


def _progress(status: str, reason: str, message: str) -> Manifest:
    return {"type": "Progressing", "status": status, "reason": reason, "message": message}


def _advanced(before: Manifest, after: Manifest) -> bool:
    """Whether more new pods, fewer old ones, or more ready ones are there than before."""

    def count_old(status: Manifest) -> int:
        return int(status.get("replicas", 0)) - int(status.get("updatedReplicas", 0))

    return (
        after.get("updatedReplicas", 0) > before.get("updatedReplicas", 0)
        or count_old(after) < count_old(before)
        or after.get("readyReplicas", 0) > before.get("readyReplicas", 0)
        or after.get("availableReplicas", 0) > before.get("availableReplicas", 0)
    )


def _write(
    conditions: list[Manifest], wanted: Manifest, *, now: datetime, touch: bool = False
) -> list[Manifest]:
    """Set one condition in place; times change as Kubernetes' Deployment controller has them."""
    stamp = format_time(now)
    current = find_condition(conditions, wanted["type"])
    is_same = current is not None and all(current.get(key) == wanted[key] for key in wanted)
    if current is not None and is_same and not touch:
        return conditions
    kept = current is not None and current["status"] == wanted["status"]
    written = {
        **wanted,
        "lastUpdateTime": stamp,
        "lastTransitionTime": (current or {}).get("lastTransitionTime") if kept else stamp,
    }
    if current is None:
        return [*conditions, written]
    return [written if entry is current else entry for entry in conditions]
