"""Artifact metadata of what the components made, in the words of `provenance`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubeloop.components.provenance import DatasetKey, ModelKey, TrialsKey, digest_of
from kubeloop.datasets import Commit
from kubeloop.katib.report import render_report
from kubeloop.katib.results import ExperimentResult
from kubeloop.katib.tuning import Tuned
from kubeloop.katib.warm_start import read_warm_start
from kubeloop.training.jobs import PyTorchJobBuilder, TrainingJobConfig
from kubeloop.training.package import opened_package

if TYPE_CHECKING:
    from kfp import dsl


def describe_commit(commit: Commit) -> dict[str, Any]:
    """Metadata of a Dataset artifact."""
    return {
        DatasetKey.NAME: commit.name,
        DatasetKey.VERSION_HASH: commit.version_hash,
        DatasetKey.SOURCE_URI: commit.source_uri,
        DatasetKey.SOURCE_DIGEST: commit.source_digest,
        DatasetKey.SCHEMA: dict(commit.manifest.schema),
        "num_examples": commit.num_examples,
        "num_rejected": commit.num_rejected,
        "labels": list(commit.labels),
    }


def describe_model(
    uri: str, *, config: TrainingJobConfig, dataset: dsl.Dataset, trial: str
) -> dict[str, Any]:
    """Metadata of a Model artifact: what is at `uri`, and what it was made from."""
    with opened_package(uri) as package:
        digest, labels = package.digest, package.manifest.labels
    return {
        ModelKey.DIGEST: f"sha256:{digest}",
        ModelKey.JOB: f"{config.namespace}/{config.name}",
        ModelKey.JOB_DIGEST: digest_of(PyTorchJobBuilder().render(config)["spec"]),
        ModelKey.TRIAL: trial,
        ModelKey.DATASET_URI: dataset.uri,
        ModelKey.VERSION_HASH: dataset.metadata.get(DatasetKey.VERSION_HASH, ""),
        ModelKey.HYPERPARAMETERS: dict(config.hyperparameters),
        ModelKey.RUN_ID: config.run_id,
        ModelKey.PROGRAM: "" if config.code_uri else config.program,
        ModelKey.CODE_URI: config.code_uri,
        "labels": list(labels),
    }


def summarize_model(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a Model artifact as people read it, in short."""
    settings = metadata[ModelKey.HYPERPARAMETERS]
    facts = {
        "job": metadata[ModelKey.JOB],
        "program": metadata[ModelKey.PROGRAM] or metadata[ModelKey.CODE_URI],
        "hyperparameters": ", ".join(f"{name} {value}" for name, value in settings.items()),
        "best trial": metadata[ModelKey.TRIAL],
        "dataset": metadata[ModelKey.DATASET_URI],
        "model": metadata[ModelKey.DIGEST],
        "run": metadata[ModelKey.RUN_ID],
    }
    return {name: fact for name, fact in facts.items() if fact}


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
