"""Hyperparameters are tuned by a Katib experiment whose trials are PyTorchJobs."""

from typing import NamedTuple

from kfp import dsl

from kubeloop.components.steps import RUNTIME_IMAGE


@dsl.component(base_image=RUNTIME_IMAGE, install_kfp_package=False)
def tune_hyperparameters(
    dataset: dsl.Input[dsl.Dataset],
    trials: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    model: dsl.Output[dsl.Model],
    report: dsl.Output[dsl.HTML],
    search_space: dict,  # type: ignore[type-arg]  # KFP takes the bare class
    hyperparameters: dict = {},  # type: ignore[type-arg]  # noqa: B006  # KFP reads the default
    epochs: int = 5,
    program: str = "image",
    code: str = "",
    algorithm: str = "tpe",
    algorithm_settings: dict = {},  # type: ignore[type-arg]  # noqa: B006
    early_stopping: str = "",
    early_stopping_settings: dict = {},  # type: ignore[type-arg]  # noqa: B006
    warm_start: bool = False,  # noqa: FBT001, FBT002  # KFP passes by name
    objective_metric: str = "val_accuracy",
    objective_type: str = "maximize",
    max_trial_count: int = 6,
    parallel_trial_count: int = 2,
    max_failed_trial_count: int = 2,
    num_workers: int = 1,
    cpu: str = "1",
    memory: str = "2Gi",
    num_gpus: int = 0,
    job_options: dict = {},  # type: ignore[type-arg]  # noqa: B006
    seed: int = 0,
    timeout_seconds: float = 3600.0,
    start_seconds: float = 300.0,
    keep_models: str = "best",
    resume_policy: str = "Never",
    sample_line: str = "",
    store: str = "",
) -> NamedTuple(  # type: ignore[valid-type]  # KFP reads the functional form
    "Outputs",
    [("best_parameters", dict), ("best_objective", float), ("best_trial", str)],
):
    """Search for the hyperparameters with the best objective on the validation split.

    Re-attaches to its experiment when retried; deletes it when the run is cancelled.

    Args:
        dataset: The commit to train and validate on.
        trials: Table of the trials as JSON: name, status, parameters, objective.
        metrics: Objective of the best trial, number of trials by status.
        model: Model package of the best trial, published under its digest; nothing where
            `keep_models` is `none`.
        report: Picture of the search: its history, curves, parameters and trials.
        search_space: Parameter name to its space, for example
            `{"learning_rate": {"type": "float", "min": 0.001, "max": 0.1, "log": true},
            "batch_size": {"type": "categorical", "values": [32, 64]}}`.
        hyperparameters: Hyperparameters that all trials share.
        epochs: Epochs of a trial.
        program: Training program of kubeloop: `image` or `text`.
        code: Archive of a program of your own (`kubeloop.training.code.publish_code`), run in place
            of `program`.
        algorithm: Katib algorithm.
        algorithm_settings: Its settings; `random_state` is `seed` unless given.
        early_stopping: Katib early stopping algorithm, such as `medianstop`; empty: none.
        early_stopping_settings: Its settings.
        warm_start: Whether to learn from earlier searches for the same on the same dataset: only
            near what was good in them is searched, and most algorithms are told their trials.
        objective_metric: Metric that the program prints, to be optimised.
        objective_type: `maximize` or `minimize`.
        max_trial_count: Trials in all.
        parallel_trial_count: Trials at a time, at most.
        max_failed_trial_count: Failed trials at which the experiment fails; no more than all.
        num_workers: Replicas of a trial's PyTorchJob, the master included.
        cpu: CPU of a replica, as a Kubernetes quantity.
        memory: Memory of a replica, as a Kubernetes quantity.
        num_gpus: GPUs of a replica.
        job_options: What else the jobs are to have, as for `train_model`; their `restart_policy` is
            `Never` whatever it says.
        seed: Seed of the search and of every trial.
        timeout_seconds: Time after which the step gives up.
        start_seconds: Time within which a first trial must have started, or the step gives up;
            more where trials wait in a queue, or for a node.
        keep_models: `best`: the models of trials that have lost are deleted; `all`: they stay where
            the trials wrote them, as the table says; `none`: trials write no models.
        resume_policy: `LongRunning` where the finished experiment may be given more trials.
        sample_line: A line of metrics as your own program prints it, checked before the search.
        store: URI of the model store; empty: below the pipeline root.
    """
    from kubeloop.components.jobs import describe_job, merge_hyperparameters, place_search
    from kubeloop.components.progress import ProgressPrinter
    from kubeloop.components.provenance import DatasetKey
    from kubeloop.components.searching import describe_tuning
    from kubeloop.components.steps import open_step, restore_integers
    from kubeloop.katib.experiments import ResumePolicy
    from kubeloop.katib.models import KeepModels
    from kubeloop.katib.tuning import TuningConfig, tune
    from kubeloop.training.job_options import parse_job_options

    with open_step(trials.uri) as step:
        settings = merge_hyperparameters(hyperparameters, {}, epochs=epochs, seed=seed)
        job = describe_job(
            step, program=program, code_uri=code, dataset_uri=dataset.uri,
            hyperparameters=settings, cpu=cpu, memory=memory, num_workers=num_workers,
            num_gpus=num_gpus, **parse_job_options(job_options),
        )  # fmt: skip
        config = TuningConfig(
            job=job, search_space=search_space, algorithm=algorithm, seed=seed,
            algorithm_settings=restore_integers(algorithm_settings), early_stopping=early_stopping,
            early_stopping_settings=restore_integers(early_stopping_settings),
            objective_metric=objective_metric, objective_type=objective_type,
            max_trial_count=max_trial_count, parallel_trial_count=parallel_trial_count,
            max_failed_trial_count=max_failed_trial_count, timeout_seconds=timeout_seconds,
            start_seconds=start_seconds, keep_models=KeepModels(keep_models),
            resume_policy=ResumePolicy(resume_policy), warm_start=warm_start,
            sample_line=sample_line,
            dataset_version=str(dataset.metadata.get(DatasetKey.VERSION_HASH, "")),
        )  # fmt: skip
        found = place_search(step, config, store=store)
        tuned = tune(found, on_progress=ProgressPrinter().tune)
    describe_tuning(tuned, dataset, trials=trials, model=model, metrics=metrics, report=report)
    return (dict(tuned.best.parameters), tuned.best.objective, tuned.best.name)
