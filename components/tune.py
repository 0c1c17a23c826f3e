"""Hyperparameters are tuned by a Katib experiment whose trials are PyTorchJobs."""

from typing import NamedTuple

from kfp import dsl

from kubeloop.components.steps import RUNTIME_IMAGE


@dsl.component(base_image=RUNTIME_IMAGE, install_kfp_package=False)
def tune_hyperparameters(
    dataset: dsl.Input[dsl.Dataset],
    trials: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    search_space: dict,  # type: ignore[type-arg]  # KFP takes the bare class
    hyperparameters: dict = {},  # type: ignore[type-arg]  # noqa: B006  # KFP reads the default
    epochs: int = 5,
    program: str = "image",
    algorithm: str = "tpe",
    objective_metric: str = "val_accuracy",
    objective_type: str = "maximize",
    max_trial_count: int = 6,
    parallel_trial_count: int = 2,
    max_failed_trial_count: int = 2,
    num_workers: int = 1,
    cpu: str = "1",
    memory: str = "2Gi",
    seed: int = 0,
    timeout_seconds: float = 3600.0,
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
        search_space: Parameter name to its space, for example
            `{"learning_rate": {"type": "float", "min": 0.001, "max": 0.1, "log": true},
            "batch_size": {"type": "categorical", "values": [32, 64]}}`.
        hyperparameters: Hyperparameters that all trials share.
        epochs: Epochs of a trial.
        program: Training program of kubeloop.
        algorithm: Katib algorithm.
        objective_metric: Metric that the program prints, to be optimised.
        objective_type: `maximize` or `minimize`.
        max_trial_count: Trials in all.
        parallel_trial_count: Trials at a time, at most.
        max_failed_trial_count: Failed trials at which the experiment fails; no more than all.
        num_workers: Replicas of a trial's PyTorchJob, the master included.
        cpu: CPU of a replica, as a Kubernetes quantity.
        memory: Memory of a replica, as a Kubernetes quantity.
        seed: Seed of the search and of every trial.
        timeout_seconds: Time after which the step gives up.
    """
    import json
    from pathlib import Path

    from kubeloop.components.descriptions import describe_search, render_trials
    from kubeloop.components.steps import find_namespace, open_step, restore_integers
    from kubeloop.katib.experiments import (
        ExperimentConfig,
        ObjectiveConfig,
        ObjectiveType,
        build_experiment,
    )
    from kubeloop.katib.runs import WatchConfig, run_experiment
    from kubeloop.katib.search_space import parse_search_space
    from kubeloop.training.jobs import PyTorchJobBuilder, RestartPolicy, TrainingJobConfig

    settings = restore_integers({**hyperparameters, "epochs": epochs, "seed": seed})
    with open_step(trials.uri) as step:
        asked = {"dataset": dataset.uri, "settings": settings, "space": search_space}
        name = step.object_name({**asked, "algorithm": algorithm, "count": max_trial_count})
        space = parse_search_space(search_space)
        job = TrainingJobConfig(
            name=name, program=program, dataset_uri=dataset.uri,
            hyperparameters={**settings, **dict.fromkeys(space, 0)}, num_workers=num_workers,
            cpu=cpu, memory=memory, restart_policy=RestartPolicy.NEVER, labels=step.labels,
            run_id=step.run_id,
        )  # fmt: skip
        experiment = ExperimentConfig(
            name=name, namespace=find_namespace(), job=PyTorchJobBuilder().build(job),
            search_space=space, algorithm=algorithm, algorithm_settings={"random_state": seed},
            objective=ObjectiveConfig(metric=objective_metric, type=ObjectiveType(objective_type)),
            max_trial_count=max_trial_count, labels=step.labels,
            parallel_trial_count=min(parallel_trial_count, max_trial_count),
            max_failed_trial_count=min(max_failed_trial_count, max_trial_count),
        )  # fmt: skip
        watch = WatchConfig(poll_seconds=0.3, timeout_seconds=timeout_seconds)
        result = run_experiment(
            build_experiment(experiment), watch=watch, on_progress=lambda p: print(p.message)
        )
    best = result.require_best()
    Path(trials.path).write_text(json.dumps(render_trials(result), indent=2))
    trials.metadata.update(describe_search(result))
    metrics.log_metric(objective_metric, best.objective)
    metrics.log_metric("num_trials", len(result.trials))
    return (dict(best.parameters), best.objective, best.name)
