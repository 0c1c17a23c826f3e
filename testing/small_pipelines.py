"""Pipelines of one or two steps, made of kubeloop's components, that end within seconds.

`run_program` takes any program, so that tests can have one that fails.
"""

import warnings
from pathlib import Path
from typing import Any

from kfp import dsl

from kubeloop.components.deploy import deploy_model
from kubeloop.components.ingest import ingest_dataset
from kubeloop.components.steps import RUNTIME_IMAGE
from kubeloop.components.train import train_model
from kubeloop.components.tune import tune_hyperparameters

_SPACE = {"learning_rate": {"type": "float", "min": 0.001, "max": 0.1, "log": True}}


@dsl.component(base_image=RUNTIME_IMAGE, install_kfp_package=False)
def run_program(code: str, job: dsl.Output[dsl.Artifact], max_restarts: int = 0) -> None:
    """Run Python code as a PyTorchJob of one replica."""
    from kubeloop.components.steps import find_namespace, open_step
    from kubeloop.training.jobs import PyTorchJobBuilder, TrainingJobConfig
    from kubeloop.training.runs import WatchConfig, run_training_job

    with open_step(job.uri) as step:
        config = TrainingJobConfig(
            name=step.object_name({"code": code}),
            namespace=find_namespace(),
            command=("python", "-u", "-c", code),
            labels=step.labels,
            run_id=step.run_id,
        )
        watch = WatchConfig(poll_seconds=0.1, max_restarts=max_restarts)
        run_training_job(PyTorchJobBuilder().build(config), watch=watch, on_log=print)


@dsl.pipeline(name="ingest")
def ingest(source: str, max_corrupt_fraction: float = 0.0) -> None:
    """Ingest a folder."""
    step = ingest_dataset(source=source, name="small", max_corrupt_fraction=max_corrupt_fraction)
    step.set_caching_options(False)


@dsl.pipeline(name="program")
def program(code: str, max_restarts: int = 0) -> None:
    """Run Python code as a PyTorchJob."""
    run_program(code=code, max_restarts=max_restarts).set_caching_options(False)


def build_train(*, num_retries: int) -> Any:
    """Ingest a folder and train on it."""

    @dsl.pipeline(name="train")
    def train(source: str, epochs: int = 1) -> None:
        data = ingest_dataset(source=source, name="small")
        data.set_caching_options(False)
        step = train_model(dataset=data.outputs["dataset"], epochs=epochs, num_workers=1)
        step.set_caching_options(False).set_retry(num_retries, backoff_duration="0s")

    return train


def build_tune(*, num_retries: int) -> Any:
    """Ingest a folder and tune on it: two trials one after the other, none may fail."""

    @dsl.pipeline(name="tune")
    def tune(
        source: str,
        epochs: int = 1,
        objective_metric: str = "val_accuracy",
        hyperparameters: dict = {},  # type: ignore[type-arg]  # noqa: B006  # KFP reads the default
    ) -> None:
        data = ingest_dataset(source=source, name="small")
        data.set_caching_options(False)
        step = tune_hyperparameters(
            dataset=data.outputs["dataset"],
            search_space=_SPACE,
            hyperparameters=hyperparameters,
            epochs=epochs,
            max_trial_count=2,
            max_failed_trial_count=1,
            parallel_trial_count=1,
            objective_metric=objective_metric,
        )
        step.set_caching_options(False).set_retry(num_retries, backoff_duration="0s")

    return tune


@dsl.pipeline(name="tune-deploy")
def tune_deploy(source: str, name: str) -> None:
    """Ingest a folder, tune on it, and serve the best trial's model."""
    data = ingest_dataset(source=source, name="small")
    data.set_caching_options(False)
    tuned = tune_hyperparameters(
        dataset=data.outputs["dataset"],
        search_space=_SPACE,
        epochs=1,
        max_trial_count=3,
        parallel_trial_count=2,
    )
    tuned.set_caching_options(False)
    deploy_model(model=tuned.outputs["model"], name=name).set_caching_options(False)


def build_deploy(*, num_retries: int) -> Any:
    """Deploy a model package."""

    @dsl.pipeline(name="deploy")
    def deploy(
        model_uri: str,
        name: str,
        memory: str = "1Gi",
        min_replicas: int = 1,
        timeout_seconds: float = 60.0,
    ) -> None:
        model = dsl.importer(artifact_uri=model_uri, artifact_class=dsl.Model)
        step = deploy_model(
            model=model.output,
            name=name,
            memory=memory,
            min_replicas=min_replicas,
            timeout_seconds=timeout_seconds,
        )
        step.set_caching_options(False).set_retry(num_retries, backoff_duration="0s")

    return deploy


def compile_into(folder: Path) -> None:
    """Write `<name>.yaml` of every pipeline, and `<name>_retried.yaml` with one retry a step."""
    pipelines: dict[str, Any] = {"ingest": ingest, "program": program, "tune_deploy": tune_deploy}
    for name, build in (("train", build_train), ("tune", build_tune), ("deploy", build_deploy)):
        pipelines |= {name: build(num_retries=0), f"{name}_retried": build(num_retries=1)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # kfp on its next release
        from kfp import compiler

        for name, pipeline in pipelines.items():
            compiler.Compiler().compile(pipeline, str(folder / f"{name}.yaml"))
