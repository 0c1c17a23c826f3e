"""What `train_model` writes about a training: its artifacts and their metadata."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kubeloop.components.descriptions import describe_model, summarize_model
from kubeloop.training.jobs import TrainingJobConfig
from kubeloop.training.learning_curves import render_learning_curves
from kubeloop.training.runs import TrainingRun

if TYPE_CHECKING:
    from kfp import dsl


def describe_training(
    run: TrainingRun,
    dataset: dsl.Dataset,
    *,
    config: TrainingJobConfig,
    trial: str,
    model: dsl.Model,
    metrics: dsl.Metrics,
    learning_curves: dsl.HTML,
) -> None:
    """Write the artifacts of a training, with the metadata of where they come from."""
    model.metadata.update(describe_model(model.uri, config=config, dataset=dataset, trial=trial))
    facts = summarize_model(model.metadata)
    curves = render_learning_curves(config.name, run.metrics, facts=facts)
    Path(learning_curves.path).write_text(curves, encoding="utf-8")
    for metric, value in run.final_metrics.items():
        metrics.log_metric(metric, value)
