"""Says why an experiment does not get on, in what a person would look up by hand.

It reads the suggestion's refusal, what bad trials ended with, pods that wait, and warnings about
any of them. Whatever may not be read is left out: an explanation never fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from kubeloop.errors import KubeloopError
from kubeloop.katib.clients import Client, find_suggestion, list_pods
from kubeloop.katib.results import ExperimentResult, TrialResult, TrialStatus
from kubeloop.sdk_errors import translate_errors

_NUM_TRIALS = 3
_NUM_WARNINGS = 5
_LAST_WORDS = "TrialPodFailed"

T = TypeVar("T")


def explain(client: Client, result: ExperimentResult) -> list[str]:
    """What stands in the way, the most telling first; a finding may have several lines."""
    findings = [
        *_explain_suggestion(client, result),
        *_explain_trials(client, result),
        *_explain_pods(client, result),
        *_explain_warnings(client, result),
    ]
    return list(dict.fromkeys(findings))


def summarize(findings: Sequence[str]) -> str:
    """The first finding in one line: what it is about, and the last that is said of it."""
    if not findings:
        return ""
    first, *more = findings[0].strip().splitlines()
    return f"{first.partition(':')[0]}: {more[-1].strip()}" if more else first


def _explain_suggestion(client: Client, result: ExperimentResult) -> Iterator[str]:
    suggestion = _attempt(lambda: find_suggestion(client, result.name, namespace=result.namespace))
    conditions = (suggestion.status.conditions if suggestion and suggestion.status else None) or ()
    if result.is_over:  # its service is ended then
        conditions = [condition for condition in conditions if condition.type == "Failed"]
    for condition in conditions:
        if condition.type == "Failed" and condition.status == "True":
            yield f"The algorithm refused: {condition.message}"
        elif condition.type == "DeploymentReady" and condition.status == "False":
            yield f"The algorithm's service is not up: {condition.message or condition.reason}"
    if suggestion is None and not result.trials:
        yield (
            f"Katib has not looked at the experiment yet: it is {result.status}"
            f"{f', {result.message}' if result.message else ''}, and has no Suggestion."
        )


def _explain_trials(client: Client, result: ExperimentResult) -> Iterator[str]:
    bad = [trial for trial in result.trials if trial.is_bad]
    for trial in bad[:_NUM_TRIALS]:
        events = _list_events(client, result.namespace, name=trial.name)
        words = [str(event.message) for event in events if event.reason == _LAST_WORDS]
        yield "\n".join([f"Trial {trial.name}: {_describe(trial, result)}", *words])
    if len(bad) > _NUM_TRIALS:
        yield f"{len(bad) - _NUM_TRIALS} more trials ended badly."


def _describe(trial: TrialResult, result: ExperimentResult) -> str:
    if trial.status is TrialStatus.METRICS_UNAVAILABLE:
        return f"its program ended well but printed no line such as {result.objective_metric}=0.97."
    return trial.message


def _explain_pods(client: Client, result: ExperimentResult) -> Iterator[str]:
    pods = _attempt(lambda: list_pods(client, result.name, namespace=result.namespace))
    for pod in pods or ():
        if pod.status.phase != "Pending":
            continue
        for condition in pod.status.conditions or ():
            if condition.type == "PodScheduled" and condition.status == "False":
                yield f"Pod {pod.metadata.name} waits: {condition.message or condition.reason}"
        for status in (*(pod.status.init_container_statuses or ()), *_statuses(pod)):
            waiting = status.state.waiting if status.state else None
            if waiting and (waiting.message or waiting.reason):
                cause = waiting.message or waiting.reason
                yield f"Container {status.name} of pod {pod.metadata.name} waits: {cause}"


def _explain_warnings(client: Client, result: ExperimentResult) -> Iterator[str]:
    names = [result.name, *(trial.name for trial in result.trials if trial.is_active)]
    warnings = [
        f"{event.involved_object.kind} {name}: {event.message}"
        for name in names[: _NUM_TRIALS + 1]
        for event in _list_events(client, result.namespace, name=name)
        if event.type == "Warning" and event.reason != _LAST_WORDS
    ]
    yield from warnings[-_NUM_WARNINGS:]


def _list_events(client: Client, namespace: str, *, name: str) -> Sequence[Any]:
    events = _attempt(
        lambda: (
            client.core_api.list_namespaced_event(
                namespace, field_selector=f"involvedObject.name={name}"
            ).items
        )
    )
    return events or ()


def _statuses(pod: Any) -> Sequence[Any]:  # V1Pod → V1ContainerStatus
    return pod.status.container_statuses or ()


def _attempt(read: Callable[[], T]) -> T | None:
    try:
        with translate_errors("explain"):
            return read()
    except (KubeloopError, ValueError):  # the SDKs' models refuse what lacks a field
        return None
