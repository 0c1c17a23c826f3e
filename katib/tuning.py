"""Tunes a training program: from its job and a search space to the best trial and its model.

What a pipeline's step and a notebook share: the experiment is built, run, watched, and its models
are looked after.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from kubeflow.katib import V1beta1Experiment

from kubeloop.errors import InputError, KubeloopError, PermanentError
from kubeloop.interruption import undo_when_interrupted
from kubeloop.katib.clients import Client, connect, list_pods
from kubeloop.katib.experiments import (
    ExperimentConfig,
    ObjectiveConfig,
    ObjectiveType,
    ResumePolicy,
    build_experiment,
)
from kubeloop.katib.metric_lines import check_metric_lines
from kubeloop.katib.models import KeepModels, TrialModels, find_winner
from kubeloop.katib.report import Curves, read_curves
from kubeloop.katib.results import ExperimentResult, TrialResult
from kubeloop.katib.runs import ExperimentProgress, WatchConfig, run_experiment
from kubeloop.katib.search_space import parse_search_space, render_search_space
from kubeloop.katib.suggestion import ALGORITHMS
from kubeloop.katib.suggestion.earlier import WARM_START
from kubeloop.katib.warm_start import WarmStart, build_labels, find_warm_start
from kubeloop.training.jobs import PyTorchJobBuilder, RestartPolicy, TrainingJobConfig
from kubeloop.training.sample_lines import SAMPLE_LINES

_SEED = "random_state"
_ENDED = ("Succeeded", "Failed")
_END_SECONDS = 5.0
_END_POLL_SECONDS = 0.1
_SEED_OF_TRIALS = "seed"
_BUDGET = ("epochs", _SEED_OF_TRIALS)
"""Hyperparameters that change how good a trial gets, and hardly which ones are good."""
_NO_SETTINGS: Mapping[str, str | int | float] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningConfig:
    """A training program, what to search, and how."""

    job: TrainingJobConfig
    """The job of a trial. Its name, namespace, labels and run are the experiment's, too; its
    hyperparameters are those that all trials share."""
    search_space: Mapping[str, Any]  # JSON
    """Parameter name to its space, as `parse_search_space` reads it."""
    objective_metric: str
    """Metric that the program prints, to be optimised."""
    objective_type: str = "maximize"
    """`maximize` or `minimize`."""
    algorithm: str = "tpe"
    """Katib algorithm."""
    algorithm_settings: Mapping[str, str | int | float] = field(
        default_factory=lambda: _NO_SETTINGS
    )
    """Settings of the algorithm."""
    seed: int | None = None
    """Seed of the search, for algorithms that take one."""
    early_stopping: str = ""
    """Katib early stopping algorithm, such as `medianstop`; empty: none."""
    early_stopping_settings: Mapping[str, str | int | float] = field(
        default_factory=lambda: _NO_SETTINGS
    )
    """Its settings."""
    resume_policy: ResumePolicy = ResumePolicy.NEVER
    """Whether the finished experiment may be given more trials."""
    max_trial_count: int = 12
    """Trials in all."""
    parallel_trial_count: int = 2
    """Trials at a time; no more than all."""
    max_failed_trial_count: int = 2
    """Failed trials at which the experiment fails; no more than all."""
    sample_line: str = ""
    """A line of metrics as the program prints it, to check the objective's name against; empty: of
    kubeloop's own programs it is known, of others nothing is checked."""
    dataset_version: str = ""
    """Version of the dataset, by which later searches find this one."""
    warm_start: bool = False
    """Whether to learn from earlier searches on the same dataset."""
    trial_models: str = ""
    """URI prefix for the models of trials."""
    model_store: str = ""
    """URI of the store in which the best one is published."""
    keep_models: KeepModels = KeepModels.BEST
    """Whose models stay."""
    timeout_seconds: float | None = None
    """Time after which the search is given up."""
    start_seconds: float = 300.0
    """Time within which a first trial must have started; else the search is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What a search has found."""

    result: ExperimentResult
    """The experiment and its trials."""
    best: TrialResult
    """The trial with the best objective."""
    winner: TrialResult | None
    """The trial that the model is of: the best that was not stopped early."""
    job: TrainingJobConfig | None
    """The winner's job."""
    model_uri: str
    """Its published model; empty: none was kept."""
    models: Mapping[str, str]
    """URIs of the models that were kept, by trial."""
    curves: Curves = field(compare=False)
    """What the trials reported on their way."""


def tune(
    config: TuningConfig,
    *,
    client: Client | None = None,
    db_manager_address: str = "",
    on_progress: Callable[[ExperimentProgress], None] = lambda _: None,
    poll_seconds: float = 0.3,
) -> Tuned:
    """Run the experiment, or go on watching it, and publish the best trial's model.

    Args:
        config: What to search, and how.
        client: Reaches the cluster; by default that of the current kubeconfig context.
        db_manager_address: HOST:PORT of Katib's DB manager; empty: the one that its SDK knows.
        on_progress: Called when a trial, the best one, or what stands in the way has changed.
        poll_seconds: Time between two looks at the experiment.

    Raises:
        InputError: A setting is wrong; nothing was submitted.
        PermanentError: The search failed, found nothing or took too long.
        TransientError: The Kubernetes API or a store does not answer.
    """
    models = TrialModels(uri=config.trial_models, keep=config.keep_models)
    if config.keep_models is not KeepModels.NONE and not (models.uri and config.model_store):
        raise InputError("trial_models and model_store must be URIs unless keep_models is 'none'.")
    check_program(config)
    client = client or connect(namespace=config.job.namespace)
    asked = _configure(config, models, client=client)

    def tell(progress: ExperimentProgress) -> None:
        on_progress(progress)
        models.clean(progress.result)

    watch = WatchConfig(
        poll_seconds=poll_seconds,
        timeout_seconds=config.timeout_seconds,
        start_seconds=config.start_seconds,
    )

    def discard() -> None:
        _wait_for_pods(config, client)  # a trial that ends may write its model meanwhile
        models.clear()

    run = functools.partial(run_experiment, client=client, watch=watch, on_progress=tell)
    with undo_when_interrupted(discard, also_on=(PermanentError,)):
        result = _run_with_earlier(asked, run)
    winner = find_winner(result)
    models.clean(result)
    kept: dict[str, str] = {}
    if config.keep_models is not KeepModels.NONE and winner is not None:
        kept = models.list_kept(result) | {
            winner.name: models.publish(winner.name, store=config.model_store)
        }
    return Tuned(
        result=result,
        best=result.require_best(),
        winner=winner,
        job=_describe_winner(config, models, winner),
        model_uri=kept.get(winner.name, "") if winner else "",
        models=kept,
        curves=read_curves(result, client=client, address=db_manager_address),
    )


def _run_with_earlier(
    asked: ExperimentConfig, run: Callable[[V1beta1Experiment], ExperimentResult]
) -> ExperimentResult:
    """Run an experiment, without earlier trials where an image of Katib's own refuses them."""
    try:
        return run(build_experiment(asked))
    except PermanentError as error:
        settings = {k: v for k, v in asked.algorithm_settings.items() if k != WARM_START.name}
        if settings == asked.algorithm_settings or WARM_START.name not in str(error):
            raise
    return run(build_experiment(replace(asked, algorithm_settings=settings)))


def check_program(config: TuningConfig) -> None:
    """Check that the program prints the objective, where it is one of ours.

    Raises:
        InputError: It prints other metrics; the message has them.
    """
    program = config.job.program
    is_ours = not config.job.command and not config.job.code_uri and program in SAMPLE_LINES
    sample = config.sample_line or (SAMPLE_LINES[program] if is_ours else "")
    if sample:
        what = f"{program} program" if is_ours else "program"
        check_metric_lines(sample, metrics=[config.objective_metric], program=what)


def _wait_for_pods(config: TuningConfig, client: Client) -> None:
    """Wait a little for the programs of trials to end."""
    deadline = time.monotonic() + _END_SECONDS
    while time.monotonic() < deadline:
        try:
            pods = list_pods(client, config.job.name, namespace=config.job.namespace)
        except KubeloopError:
            return
        if all(pod.status.phase in _ENDED for pod in pods):
            return
        time.sleep(_END_POLL_SECONDS)


def _configure(config: TuningConfig, models: TrialModels, *, client: Client) -> ExperimentConfig:
    space = parse_search_space(config.search_space)
    labels = build_labels(
        config.dataset_version, _describe_question(config), budget=_describe_budget(config)
    )
    start = WarmStart(search_space=space)
    if config.warm_start:
        start = find_warm_start(
            client,
            name=config.job.name,
            namespace=config.job.namespace,
            labels=labels,
            search_space=space,
            algorithm=config.algorithm,
            # A grid is tried as a whole.
            fixed=list(space)
            if config.algorithm == "grid"
            else [str(config.algorithm_settings.get("resource_name", ""))],
        )
    job = replace(
        config.job,
        model_uri=models.template_uri,
        hyperparameters={**config.job.hyperparameters, **dict.fromkeys(space, 0)},
        restart_policy=RestartPolicy.NEVER,
    )
    return ExperimentConfig(
        name=config.job.name,
        namespace=config.job.namespace,
        job=PyTorchJobBuilder().build(job),
        search_space=start.search_space,
        algorithm=config.algorithm,
        algorithm_settings=_complete_settings(config, start),
        objective=ObjectiveConfig(
            metric=config.objective_metric, type=ObjectiveType(config.objective_type)
        ),
        max_trial_count=config.max_trial_count,
        parallel_trial_count=min(config.parallel_trial_count, config.max_trial_count),
        max_failed_trial_count=min(config.max_failed_trial_count, config.max_trial_count),
        early_stopping=config.early_stopping,
        early_stopping_settings=config.early_stopping_settings,
        resume_policy=config.resume_policy,
        labels={**config.job.labels, **labels},
        annotations=start.annotations,
    )


def _describe_question(config: TuningConfig) -> dict[str, Any]:
    """What two searches must have in common for one to learn from the other."""
    hyperparameters = config.job.hyperparameters
    return {
        "program": config.job.command or config.job.code_uri or config.job.program,
        "hyperparameters": {k: v for k, v in hyperparameters.items() if k not in _BUDGET},
        "search_space": render_search_space(parse_search_space(config.search_space)),
        "objective": [config.objective_metric, config.objective_type],
    }


def _describe_budget(config: TuningConfig) -> dict[str, Any]:
    """What two searches must have in common besides for their objectives to be compared."""
    hyperparameters = config.job.hyperparameters
    return {k: hyperparameters[k] for k in _BUDGET if k != _SEED_OF_TRIALS and k in hyperparameters}


def _complete_settings(config: TuningConfig, start: WarmStart) -> dict[str, str | int | float]:
    settings = dict(config.algorithm_settings)
    if start.earlier:
        settings[WARM_START.name] = start.earlier
    if config.seed is not None and config.algorithm in ALGORITHMS:
        known = getattr(ALGORITHMS[config.algorithm](), "known_settings", ())
        if any(setting.name == _SEED for setting in known):
            settings.setdefault(_SEED, config.seed)
    return settings


def _describe_winner(
    config: TuningConfig, models: TrialModels, winner: TrialResult | None
) -> TrainingJobConfig | None:
    if winner is None:
        return None
    return replace(
        config.job,
        name=winner.name,
        model_uri="" if config.keep_models is KeepModels.NONE else models.uri_of(winner.name),
        hyperparameters={**config.job.hyperparameters, **winner.parameters},
        restart_policy=RestartPolicy.NEVER,
    )
