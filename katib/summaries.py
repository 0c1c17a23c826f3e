"""Experiments at a glance: what their own status says, without a look at their trials."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kubeloop.errors import InputError
from kubeloop.katib.clients import Client, list_experiments
from kubeloop.katib.results import ExperimentStatus, parse_status


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentSummary:
    """One experiment."""

    name: str
    namespace: str
    status: ExperimentStatus
    algorithm: str
    objective_metric: str
    max_trial_count: int | None
    num_trials: int
    num_running: int
    num_succeeded: int
    num_early_stopped: int
    num_failed: int
    """Those without metrics included."""
    best_trial: str
    best_objective: str
    """As Katib has it, a text; empty: none yet."""
    run_id: str
    """Pipeline run that it belongs to."""
    created_at: datetime | None


def summarize_experiments(client: Client, *, namespace: str) -> list[ExperimentSummary]:
    """The experiments of a namespace, the newest first."""
    found = [_summarize(item) for item in list_experiments(client, namespace=namespace)]
    found.sort(key=lambda summary: summary.name)
    return sorted(
        found, key=lambda summary: summary.created_at.timestamp() if summary.created_at else 0.0,
        reverse=True,
    )  # fmt: skip


def find_name(client: Client, text: str, *, namespace: str) -> str:
    """The name of the experiment that `text` is, or is a part of.

    Raises:
        InputError: There is none, or several; the message lists them.
    """
    known = [summary.name for summary in summarize_experiments(client, namespace=namespace)]
    if text in known:
        return text
    found = [name for name in known if text and text in name]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(found or known) or "none"
    problem = f"is a part of several experiments of namespace {namespace}"
    if not found:
        problem = f"is no experiment of namespace {namespace}; there are"
    raise InputError(f"{text!r} {problem}: {listed}.")


def _summarize(experiment: Any) -> ExperimentSummary:  # V1beta1Experiment
    metadata, spec, status = experiment.metadata, experiment.spec, experiment.status
    optimal = status.current_optimal_trial if status else None
    return ExperimentSummary(
        name=metadata.name,
        namespace=metadata.namespace,
        status=parse_status(experiment),
        algorithm=spec.algorithm.algorithm_name if spec.algorithm else "",
        objective_metric=spec.objective.objective_metric_name,
        max_trial_count=spec.max_trial_count,
        num_trials=_count(status, "trials"),
        num_running=_count(status, "trials_running") + _count(status, "trials_pending"),
        num_succeeded=_count(status, "trials_succeeded"),
        num_early_stopped=_count(status, "trials_early_stopped"),
        num_failed=_count(status, "trials_failed") + _count(status, "trial_metrics_unavailable"),
        best_trial=(optimal.best_trial_name if optimal else None) or "",
        best_objective=_find_objective(optimal, experiment),
        run_id=(metadata.labels or {}).get("pipeline/runid", ""),
        created_at=metadata.creation_timestamp,
    )


def _count(status: Any, name: str) -> int:  # V1beta1ExperimentStatus
    return int(getattr(status, name, None) or 0)


def _find_objective(optimal: Any, experiment: Any) -> str:  # V1beta1OptimalTrial
    objective = experiment.spec.objective
    strategies = {s.name: s.value for s in objective.metric_strategies or ()}
    observation = optimal.observation if optimal else None
    for metric in (observation.metrics if observation else None) or ():
        if metric.name == objective.objective_metric_name:
            chosen = getattr(metric, strategies.get(metric.name, "latest"))
            return str(metric.latest if chosen in (None, "unavailable") else chosen)
    return ""
