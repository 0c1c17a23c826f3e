"""Artifact metadata of what the components made, in the words of `provenance`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kubeloop.components.provenance import DatasetKey, ModelKey, digest_of
from kubeloop.datasets import Commit
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
