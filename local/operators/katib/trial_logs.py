"""Reads what the pods of a trial have printed: metrics of a success, last words of a failure.

On a cluster a sidecar collects metrics while the pod runs. Here they are read from the log of the
primary container as soon as its pod has succeeded, before anybody may delete it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kubeloop.errors import NotFoundError
from kubeloop.local.api.resources import PODS
from kubeloop.local.client import Client, Manifest
from kubeloop.local.operators.katib.metrics import MetricLog, parse_text
from kubeloop.local.operators.katib.terms import TRIAL_LABEL
from kubeloop.local.operators.pod_states import is_terminal, phase_of

_NUM_LAST_LINES = 15
_MAX_CHARACTERS = 900  # an event's message holds 1024


def wanted_metrics(trial: Manifest) -> list[str]:
    """The metrics to look for, the objective first."""
    objective = trial["spec"]["objective"]
    return [objective["objectiveMetricName"], *(objective.get("additionalMetricNames") or [])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What could be read up to now; `is_final` when no primary pod runs any more."""

    logs: tuple[MetricLog, ...]
    is_final: bool


async def collect_metrics(client: Client, trial: Manifest) -> Collection:
    """Read the metrics of a trial from its primary pods that have succeeded."""
    pods = await _list_pods(client, trial, is_primary=True)
    finished = [pod for pod in pods if phase_of(pod) == "Succeeded"]
    is_final = all(map(is_terminal, pods))
    if not finished:
        return Collection(logs=(), is_final=is_final)
    texts = [await _read(client, trial, pod) for pod in finished]
    source = (trial["spec"].get("metricsCollector") or {}).get("source") or {}
    logs = parse_text(
        "\n".join(texts),
        metrics=wanted_metrics(trial),
        filters=(source.get("filter") or {}).get("metricsFormat") or (),
    )
    return Collection(logs=logs, is_final=is_final)


async def read_last_words(client: Client, trial: Manifest) -> str:
    """What the first failed pod of a trial said last; empty when there is none to ask."""
    pods = await _list_pods(client, trial, is_primary=False)
    failed = [pod for pod in pods if phase_of(pod) == "Failed"]
    if not failed:
        return ""
    pod = min(failed, key=_finish_time)
    lines = (await _read(client, trial, pod)).rstrip().splitlines()[-_NUM_LAST_LINES:]
    end = "\n".join(lines)[-_MAX_CHARACTERS:]
    code = _exit_code(pod)
    said = f"Pod {pod['metadata']['name']} failed"
    said = f"{said} with exit code {code}" if code is not None else said
    return f"{said}; its last words: {end}" if end else f"{said} without a word"


async def _list_pods(client: Client, trial: Manifest, *, is_primary: bool) -> list[Manifest]:
    metadata = trial["metadata"]
    labels = {TRIAL_LABEL: metadata["name"]}
    if is_primary:
        labels |= trial["spec"].get("primaryPodLabels") or {}
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    found = await client.list(PODS, namespace=metadata["namespace"], label_selector=selector)
    return sorted(found.items, key=_creation)


async def _read(client: Client, trial: Manifest, pod: Manifest) -> str:
    metadata = pod["metadata"]
    try:
        return await client.read_log(
            metadata["name"],
            namespace=metadata["namespace"],
            container=trial["spec"].get("primaryContainerName") or "",
        )
    except NotFoundError:  # deleted between the list and now
        return ""


def _creation(pod: Manifest) -> tuple[str, str]:
    return pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]


def _terminations(pod: Manifest) -> Sequence[Manifest]:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    states = ((status.get("state") or {}).get("terminated") for status in statuses)
    return [state for state in states if state]


def _finish_time(pod: Manifest) -> str:
    times = [state.get("finishedAt") or "" for state in _terminations(pod)]
    return max(times, default="")


def _exit_code(pod: Manifest) -> int | None:
    codes = (state.get("exitCode") for state in _terminations(pod))
    return next((code for code in codes if code), None)
