"""What an InferenceService's status says, from its Deployment and pods.

Pure functions. Conditions are Knative's: sorted by type, a True one has no reason, and Ready
follows the ones that decide it.

Source: kserve pkg/apis/serving/v1beta1/inference_service_status.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from kubeloop.local.api.admission.serving import PREDICTOR_CONTAINER, RAW
from kubeloop.local.client import Manifest
from kubeloop.local.operators.conditions import (
    FALSE,
    TRUE,
    UNKNOWN,
    conditions_of,
    find_condition,
    format_time,
    is_condition_true,
)
from kubeloop.local.operators.serving_runtimes import PredictorProblemError
from kubeloop.local.operators.storage_injection import INITIALIZER

_DECIDING = ("PredictorReady", "IngressReady")
_NO_INGRESS = {"status": FALSE, "reason": "Predictor ingress not created"}


def build_status(
    service: Manifest,
    *,
    deployment: Manifest,
    pods: Sequence[Manifest],
    url: str,
    now: datetime,
) -> Manifest:
    """Status of an InferenceService whose objects are in place.

    Args:
        service: The InferenceService with its last status.
        deployment: The predictor's Deployment.
        pods: Its pods that are not being deleted, those of the present template first.
        url: Where the gateway serves it.
        now: The time of new transitions.
    """
    before = service.get("status") or {}
    predictor = find_condition(conditions_of(deployment), "Available") or {"status": UNKNOWN}
    is_ready = predictor["status"] == TRUE
    ingress = {"status": TRUE} if is_ready else _NO_INGRESS
    conditions = _write_conditions(
        before, {"PredictorReady": predictor, "IngressReady": ingress}, now=now
    )
    status = {
        **_carry_over(before),
        "conditions": conditions,
        "deploymentMode": RAW,
        "observedGeneration": service["metadata"].get("generation", 1),
        "modelStatus": _judge_model(
            before.get("modelStatus") or {}, pods, is_ready=is_condition_true(conditions, "Ready")
        ),
    }
    if is_ready:
        status["url"] = url
        status["address"] = {"url": url}
        status["components"] = {"predictor": {"url": url}}
    return status


def build_problem_status(
    service: Manifest, problem: PredictorProblemError, *, now: datetime
) -> Manifest:
    """Status of an InferenceService that cannot be run as it is."""
    before = service.get("status") or {}
    predictor = {"status": FALSE, "reason": problem.reason, "message": str(problem)}
    states = (before.get("modelStatus") or {}).get("states") or {}
    return {
        **_carry_over(before),
        "conditions": _write_conditions(
            before, {"PredictorReady": predictor, "IngressReady": _NO_INGRESS}, now=now
        ),
        "deploymentMode": RAW,
        "observedGeneration": service["metadata"].get("generation", 1),
        "modelStatus": {
            **(before.get("modelStatus") or {}),
            "transitionStatus": "InvalidSpec",
            "states": {
                "activeModelState": states.get("activeModelState", ""),
                "targetModelState": "FailedToLoad",
            },
            "lastFailureInfo": {"reason": problem.reason, "message": str(problem)},
        },
    }


def _carry_over(before: Manifest) -> Manifest:
    return {key: before[key] for key in ("url", "address", "components") if key in before}


def _write_conditions(
    before: Manifest, wanted: dict[str, Manifest], *, now: datetime
) -> list[Manifest]:
    deciding = [wanted[kind] for kind in _DECIDING]
    wanted = {**wanted, "Ready": _decide(deciding)}
    entries = before.get("conditions") or []
    return [_write_condition(entries, kind, wanted[kind], now=now) for kind in sorted(wanted)]


def _decide(deciding: list[Manifest]) -> Manifest:
    """False wins over Unknown, Unknown over True."""
    for status in (FALSE, UNKNOWN):
        for condition in deciding:
            if condition["status"] == status:
                return condition
    return {"status": TRUE}


def _write_condition(
    entries: list[Manifest], kind: str, wanted: Manifest, *, now: datetime
) -> Manifest:
    current = find_condition(entries, kind)
    kept = current is not None and current["status"] == wanted["status"]
    written = {
        "type": kind,
        "status": wanted["status"],
        "lastTransitionTime": current["lastTransitionTime"]
        if current is not None and kept
        else format_time(now),
    }
    if wanted["status"] != TRUE:
        written |= {key: wanted[key] for key in ("reason", "message") if wanted.get(key)}
    return written


def _judge_model(before: Manifest, pods: Sequence[Manifest], *, is_ready: bool) -> Manifest:
    if not pods:
        return _move(before, "Pending", "InProgress")
    newest = pods[0].get("status") or {}
    initializer = _find_container(newest.get("initContainerStatuses"), INITIALIZER)
    state = initializer.get("state") or {}
    if "running" in state and (initializer.get("lastState") or {}).get("terminated"):
        return before  # it failed before; whether it does again is not known yet
    if "running" in state:
        return _move(before, "Loading", "InProgress")
    if failure := _find_failure(initializer):
        return {**_move(before, "FailedToLoad", "BlockedByFailedLoad"), "lastFailureInfo": failure}
    if is_ready:
        loaded = _move(before, "Loaded", "UpToDate")
        loaded["states"]["activeModelState"] = "Loaded"
        return {**loaded, "copies": {"totalCopies": len(pods)}}
    server = _find_container(newest.get("containerStatuses"), PREDICTOR_CONTAINER)
    if failure := _find_failure(server):
        return {**_move(before, "FailedToLoad", "BlockedByFailedLoad"), "lastFailureInfo": failure}
    if "running" in (server.get("state") or {}) and _has_failed(server):
        return before  # between two crashes
    is_placed = bool(server) or bool(initializer)
    return _move(before, "Loading" if is_placed else "Pending", "InProgress")


def _move(before: Manifest, target: str, transition: str) -> Manifest:
    active = (before.get("states") or {}).get("activeModelState", "")
    return {
        **before,
        "transitionStatus": transition,
        "states": {"activeModelState": active, "targetModelState": target},
    }


def _find_container(statuses: list[Manifest] | None, name: str) -> Manifest:
    return next((status for status in statuses or [] if status["name"] == name), {})


def _has_failed(container: Manifest) -> bool:
    ended = (container.get("lastState") or {}).get("terminated") or {}
    return bool(ended.get("exitCode"))


def _find_failure(container: Manifest) -> Manifest | None:
    state = container.get("state") or {}
    ended = state.get("terminated") or {}
    if (state.get("waiting") or {}).get("reason") == "CrashLoopBackOff":
        ended = (container.get("lastState") or {}).get("terminated") or {"reason": "Error"}
    elif not ended or (ended.get("reason") != "Error" and not ended.get("exitCode")):
        return None
    return {
        "reason": "ModelLoadFailed",
        "message": ended.get("message", ""),
        "exitCode": ended.get("exitCode", 0),
    }
