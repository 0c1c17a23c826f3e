"""A PyTorchJob trains the model on the whole budget."""

from typing import NamedTuple

from kfp import dsl

from kubeloop.components.steps import RUNTIME_IMAGE


@dsl.component(base_image=RUNTIME_IMAGE, install_kfp_package=False)
def train_model(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    learning_curves: dsl.Output[dsl.HTML],
    hyperparameters: dict = {},  # type: ignore[type-arg]  # noqa: B006  # KFP reads the default
    best_parameters: dict = {},  # type: ignore[type-arg]  # noqa: B006
    epochs: int = 15,
    program: str = "image",
    code: str = "",
    trial: str = "",
    variants: list = [],  # type: ignore[type-arg]  # noqa: B006
    serve_variant: str = "",
    variant_tolerance: float = 0.01,
    num_workers: int = 2,
    processes_per_worker: int = 1,
    cpu: str = "1",
    memory: str = "2Gi",
    num_gpus: int = 0,
    job_options: dict = {},  # type: ignore[type-arg]  # noqa: B006
    max_restarts: int = 3,
    seed: int = 0,
    timeout_seconds: float = 3600.0,
    store: str = "",
) -> NamedTuple("Outputs", [("job", str)]):  # type: ignore[valid-type]  # KFP reads the functional form
    """Train a model package and publish it under its digest.

    Re-attaches to its PyTorchJob when retried; deletes it when the run is cancelled.

    Args:
        dataset: The commit to train and validate on.
        model: The model package; its URI contains the content's hash.
        metrics: What the selected epoch scored, on the validation split.
        learning_curves: Losses, scores and speed by epoch.
        hyperparameters: Hyperparameters of the program.
        best_parameters: Hyperparameters that win over those, such as the best trial's.
        epochs: Epochs of the training.
        program: Training program of kubeloop: `image` or `text`.
        code: Archive of a program of your own (`kubeloop.training.code.publish_code`), run in place
            of `program`.
        trial: Katib trial that `best_parameters` come from, for lineage.
        variants: Other forms of the model that its package also holds: `onnx`, and `int8`, which is
            quantised. Each is checked against the original on the validation split.
        serve_variant: The one that will be served, as `deploy_model` is told; the package holds it
            whether or not `variants` names it. Empty: the original.
        variant_tolerance: Accuracy on that split that a variant may lose; beyond it the step fails.
        num_workers: Replicas of the PyTorchJob, the master included.
        processes_per_worker: Processes in each replica.
        cpu: CPU of a replica, as a Kubernetes quantity.
        memory: Memory of a replica, as a Kubernetes quantity.
        num_gpus: GPUs of a replica.
        job_options: What else the job is to have, by the names of `TrainingJobConfig`: `pod`
            (placement, gang, volumes, service account, …: `PodConfig`), `run_policy`, `elastic`,
            `restart_policy`, `env`, `env_secrets`, `image`, `annotations`. For example
            `{"pod": {"node_selector": {"gpu": "h200"}, "tolerations": [{"key": "nvidia.com/gpu"}],
            "gang": {"scheduler": "kueue", "queue": "team-a"}, "shared_memory": "8Gi", "volumes":
            [{"name": "cache", "kind": "claim", "source": "cache", "mount_path": "/cache"}]},
            "run_policy": {"active_deadline_seconds": 7200}, "env": {"NCCL_DEBUG": "INFO"}}`.
        max_restarts: Restarts of killed replicas before the step gives up.
        seed: Seed of the training.
        timeout_seconds: Time after which the step gives up.
        store: URI of the model store; empty: below the pipeline root.
    """
    from kubeloop.components import jobs
    from kubeloop.components.progress import print_line
    from kubeloop.components.steps import open_step
    from kubeloop.components.training import describe_training
    from kubeloop.training.job_options import parse_job_options
    from kubeloop.training.jobs import PyTorchJobBuilder
    from kubeloop.training.package import publish
    from kubeloop.training.runs import WatchConfig, run_training_job

    with open_step(model.uri) as step:
        settings = jobs.merge_hyperparameters(
            hyperparameters, best_parameters, epochs=epochs, seed=seed
        )
        job = jobs.describe_job(
            step, program=program, code_uri=code, dataset_uri=dataset.uri,
            hyperparameters=settings, variants=jobs.list_variants(variants, serve_variant),
            variant_tolerance=variant_tolerance, num_workers=num_workers,
            processes_per_worker=processes_per_worker, cpu=cpu, memory=memory, num_gpus=num_gpus,
            **parse_job_options(job_options),
        )  # fmt: skip
        config = jobs.place_job(step, job, store=store)
        watch = WatchConfig(
            poll_seconds=0.3, timeout_seconds=timeout_seconds, max_restarts=max_restarts
        )
        done = run_training_job(PyTorchJobBuilder().build(config), watch=watch, on_log=print_line)
        model.uri = publish(config.model_uri, step.store("models", store))
        jobs.drop_checkpoints(config)
    describe_training(
        done, dataset, config=config, trial=trial, model=model, metrics=metrics,
        learning_curves=learning_curves,
    )  # fmt: skip
    return (config.name,)
