"""Write the Experiment of an architecture search, for `kubectl apply`.

The trials' program travels with their jobs, as an archive in a store that their pods can read.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import yaml
from kubernetes.client import ApiClient

from kubeloop.katib.architectures import ASSIGNED_NAMES, ArchitectureSpace
from kubeloop.katib.collectors import StdOut
from kubeloop.katib.experiments import (
    ExperimentConfig,
    MetricStrategy,
    ObjectiveConfig,
    build_experiment,
)
from kubeloop.katib.search_space import Categorical, Int
from kubeloop.katib.templates import placeholder
from kubeloop.training.code import publish_code
from kubeloop.training.jobs import PyTorchJobBuilder, TrainingJobConfig

HERE = Path(__file__).parent
ACCURACY, LOSS, GENOTYPE = "Validation-Accuracy", "Training-Loss", "Best-Genotype"
SIZES = Categorical(values=("3", "5"))
FILTERS = Categorical(values=("8", "16", "32"))


def configure_enas(code_store: str, *, num_trials: int, num_epochs: int) -> ExperimentConfig:
    """Each trial trains one network of the controller's choice."""
    return ExperimentConfig(
        name="enas-digits",
        algorithm="enas",
        # Katib's own rate learns nothing from dozens of trials; with its 50 steps a trial this one
        # would settle on what was good first. A `random_state` Katib's own service would refuse.
        algorithm_settings={
            "controller_learning_rate": 0.01,
            "controller_train_steps": 2,
            "controller_baseline_decay": 0.9,
        },
        architectures=ArchitectureSpace(
            num_layers=4,
            input_sizes=(8, 8, 1),
            output_sizes=(10,),
            operations={
                "convolution": {"filter_size": SIZES, "num_filter": FILTERS},
                "separable_convolution": {"filter_size": SIZES, "num_filter": FILTERS},
                "reduction": {
                    "reduction_type": Categorical(values=("max_pooling", "avg_pooling")),
                    "pool_size": Int(min=2, max=3),
                },
            },
        ),
        objective=ObjectiveConfig(
            metric=ACCURACY,
            additional_metrics=(LOSS,),
            strategies=dict.fromkeys((ACCURACY, LOSS), MetricStrategy.LATEST),
        ),
        job=build_job("enas", code_store, num_epochs=num_epochs),
        max_trial_count=num_trials,
        parallel_trial_count=min(2, num_trials),
    )


def configure_darts(code_store: str, *, num_trials: int, num_epochs: int) -> ExperimentConfig:
    """One trial searches by gradient, and prints the cells that it has found."""
    return ExperimentConfig(
        name="darts-digits",
        algorithm="darts",
        algorithm_settings={
            "num_epochs": num_epochs,
            "num_nodes": 2,
            "init_channels": 8,
            "batch_size": 64,
            "alpha_lr": 0.01,
        },
        architectures=ArchitectureSpace(
            num_layers=3,
            operations={
                "separable_convolution": {"filter_size": SIZES},
                "dilated_convolution": {"filter_size": Categorical(values=("3",))},
                "max_pooling": {"filter_size": Categorical(values=("3",))},
                "avg_pooling": {"filter_size": Categorical(values=("3",))},
                "skip_connection": {"filter_size": Categorical(values=("1",))},
            },
        ),
        objective=ObjectiveConfig(
            metric=ACCURACY,
            additional_metrics=(GENOTYPE,),
            strategies={GENOTYPE: MetricStrategy.LATEST},
        ),
        collector=StdOut(metrics_format=(r"([\w-]+)=(Genotype.*|[0-9.]+)",)),
        job=build_job("darts", code_store),
        max_trial_count=num_trials,
        parallel_trial_count=1,
    )


def build_job(algorithm: str, code_store: str, **hyperparameters: int) -> object:
    """The job of a trial, which gets what the algorithm assigns."""
    assigned = {name: placeholder(name) for name in ASSIGNED_NAMES[algorithm]}
    return PyTorchJobBuilder().build(
        TrainingJobConfig(
            name="trial",
            code_uri=publish_code(HERE / f"{algorithm}_trial.py", code_store),
            hyperparameters={**assigned, **hyperparameters},
        )
    )


CONFIGURATIONS = {"enas": (configure_enas, 24, 5), "darts": (configure_darts, 1, 10)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("algorithm", choices=CONFIGURATIONS)
    parser.add_argument("code_store", help="a folder, on a cluster s3://BUCKET/PREFIX")
    parser.add_argument("--trials", type=int, help="default: 24 of enas, one of darts")
    parser.add_argument("--epochs", type=int, help="default: 5 of enas, 10 of darts")
    parser.add_argument("--namespace", default="default")
    arguments = parser.parse_args()

    configure, num_trials, num_epochs = CONFIGURATIONS[arguments.algorithm]
    store = arguments.code_store
    config = configure(
        store if "://" in store else str(Path(store).resolve()),
        num_trials=arguments.trials or num_trials,
        num_epochs=arguments.epochs or num_epochs,
    )
    experiment = build_experiment(replace(config, namespace=arguments.namespace))
    print(yaml.safe_dump(ApiClient().sanitize_for_serialization(experiment), sort_keys=False))


if __name__ == "__main__":
    main()
