"""A PyTorchJob trains the model on the whole budget."""

from typing import NamedTuple

from kfp import dsl

from kubeloop.components.steps import RUNTIME_IMAGE


@dsl.component(base_image=RUNTIME_IMAGE, install_kfp_package=False)
def train_model(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    hyperparameters: dict,  # type: ignore[type-arg]  # KFP takes the bare class
    overrides: dict = {},  # type: ignore[type-arg]  # noqa: B006  # KFP reads the default
    program: str = "image",
    trial: str = "",
    num_workers: int = 2,
    processes_per_worker: int = 1,
    cpu: str = "1",
    memory: str = "2Gi",
    num_gpus: int = 0,
    max_restarts: int = 1,
    timeout_seconds: int = 3600,
    store: str = "",
) -> NamedTuple("Outputs", [("job", str)]):  # type: ignore[valid-type]  # noqa: UP014  # KFP reads the functional form
    """Train a model package and publish it under its digest.

    Re-attaches to its PyTorchJob when retried; deletes it when the run is cancelled.

    Args:
        dataset: The commit to train and validate on.
        model: The model package; its URI contains the content's hash.
        metrics: The package's own metrics, on the validation split.
        hyperparameters: Hyperparameters of the program, such as the best trial's.
        overrides: Hyperparameters that win over those, such as the full number of epochs.
        program: Training program of kubeloop.
        trial: Trial that the hyperparameters come from, for lineage.
        num_workers: Replicas of the PyTorchJob, the master included.
        processes_per_worker: Processes in each replica.
        cpu: CPU of a replica, as a Kubernetes quantity.
        memory: Memory of a replica, as a Kubernetes quantity.
        num_gpus: GPUs of a replica.
        max_restarts: Restarts of a failed replica before the job fails.
        timeout_seconds: Time after which the step gives up.
        store: URI of the model store; empty: below the pipeline root.
    """
    from kubeloop.components.provenance import ModelKey, digest_of
    from kubeloop.components.steps import open_step
    from kubeloop.training.jobs import TrainingJobConfig
    from kubeloop.training.package import opened_package, publish
    from kubeloop.training.runs import run_training_job

    settings = {**hyperparameters, **overrides}
    with open_step(model.uri) as step:
        name = step.object_name({"dataset": dataset.uri, "settings": settings, "program": program})
        draft = f"{step.store('jobs', store)}/{name}"
        config = TrainingJobConfig(
            name=name,
            program=program,
            dataset_uri=dataset.uri,
            model_uri=f"{draft}/model",
            checkpoint_uri=f"{draft}/checkpoints",
            hyperparameters=settings,
            num_workers=num_workers,
            processes_per_worker=processes_per_worker,
            cpu=cpu,
            memory=memory,
            num_gpus=num_gpus,
            labels=step.labels,
            run_id=step.run_id,
        )
        job = run_training_job(config, timeout_seconds=timeout_seconds, on_log=print)
        model.uri = publish(config.model_uri, step.store("models", store))
