"""What `tune_hyperparameters` writes about a search: its artifacts and their metadata."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubeloop.components.descriptions import describe_model
from kubeloop.components.provenance import ModelKey, TrialsKey, digest_of
from kubeloop.katib.report import render_report
from kubeloop.katib.results import ExperimentResult
from kubeloop.katib.tuning import Tuned
from kubeloop.katib.warm_start import read_warm_start

if TYPE_CHECKING:
    from kfp import dsl


def describe_tuning(
    tuned: Tuned,
    dataset: dsl.Dataset,
    *,
    trials: dsl.Artifact,
    model: dsl.Model,
    metrics: dsl.Metrics,
    report: dsl.HTML,
) -> None:
    """Write the artifacts of a search, with the metadata of where they come from."""
    result, best = tuned.result, tuned.best
    Path(trials.path).write_text(json.dumps(render_trials(tuned), indent=2), encoding="utf-8")
    trials.metadata.update(describe_search(result))
    Path(report.path).write_text(render_report(result, tuned.curves), encoding="utf-8")
    if tuned.model_uri and tuned.job is not None:
        model.uri = tuned.model_uri
        model.metadata.update(
            describe_model(tuned.model_uri, config=tuned.job, dataset=dataset, trial=tuned.job.name)
        )
    else:
        model.metadata[ModelKey.ABSENT] = "the search keeps no model"
    metrics.log_metric(result.objective_metric, best.objective)
    metrics.log_metric("num_trials", len(result.trials))
    for status, count in Counter(trial.status for trial in result.trials).items():
        metrics.log_metric(f"num_trials/{status}", count)


def describe_search(result: ExperimentResult) -> dict[str, Any]:
    """Metadata of a trials table."""
    best, start = result.require_best(), read_warm_start(result.annotations)
    return {
        TrialsKey.EXPERIMENT: f"{result.namespace}/{result.name}",
        TrialsKey.TRIAL: best.name,
        TrialsKey.TRIAL_DIGEST: digest_of([best.name, dict(best.parameters), best.objective]),
        TrialsKey.PARAMETERS: dict(best.parameters),
        "num_trials": len(result.trials),
        **({"warm_start": list(start.experiments)} if start else {}),
    }


def render_trials(tuned: Tuned) -> list[dict[str, Any]]:
    """The trials as JSON, in the order in which they were suggested; `model` is where one lies."""
    return [
        {
            "name": trial.name,
            "status": trial.status,
            "parameters": dict(trial.parameters),
            "objective": trial.objective,
            "metrics": dict(trial.metrics),
            "model": tuned.models.get(trial.name, ""),
        }
        for trial in tuned.result.trials
    ]
