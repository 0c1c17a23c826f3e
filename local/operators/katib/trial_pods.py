"""The pods of a trial, and what a failed one said last."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from kubeloop.errors import ConflictError, NotFoundError
from kubeloop.local.api.resources import PODS
from kubeloop.local.client import Client, Manifest
from kubeloop.local.kubelet.pod_files import COMPLETE_ANNOTATION
from kubeloop.local.operators.katib.terms import TRIAL_LABEL
from kubeloop.local.operators.pod_states import is_terminal, phase_of

_NUM_LAST_LINES = 15
_MAX_CHARACTERS = 900  # an event's message holds 1024


async def list_primary_pods(client: Client, trial: Manifest) -> list[Manifest]:
    """The pods whose metrics count, oldest first."""
    return await _list_pods(client, trial, is_primary=True)


async def complete_pods(client: Client, trial: Manifest) -> None:
    """End the primary pods of a trial that is stopped early, but whose job stays."""
    for pod in await list_primary_pods(client, trial):
        metadata = pod["metadata"]
        if is_terminal(pod) or COMPLETE_ANNOTATION in (metadata.get("annotations") or {}):
            continue
        body = {"metadata": {"uid": metadata["uid"], "annotations": {COMPLETE_ANNOTATION: "true"}}}
        with contextlib.suppress(NotFoundError, ConflictError):  # it has gone since
            await client.patch(PODS, metadata["name"], namespace=metadata["namespace"], body=body)


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
