"""Runs an experiment to its end, through the official KatibClient.

Safe to repeat: an experiment of that name that runs is watched, one that has succeeded is taken as
it is, and one that has failed is replaced. A run that is cancelled (Ctrl-C, SIGTERM) or gives up
deletes its experiment with all trials; a process that is killed leaves it running, and its retry
finds it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kubeflow.katib import V1beta1Experiment

from kubeloop.errors import InputError, PermanentError, TransientError
from kubeloop.interruption import undo_when_interrupted
from kubeloop.katib.clients import (
    Client,
    connect,
    create_experiment,
    delete_experiment,
    find_experiment,
    list_pods,
)
from kubeloop.katib.diagnosis import explain, summarize
from kubeloop.katib.experiments import CONFIGURATION_ANNOTATION
from kubeloop.katib.results import ExperimentResult, ExperimentStatus, TrialStatus, read_trials
from kubeloop.sdk_errors import ApiFailureError
from kubeloop.training.pace import render_duration

_RUN_LABEL = "pipeline/runid"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchConfig:
    """How an experiment is waited for."""

    poll_seconds: float = 1.0
    """Time between two looks at the experiment."""
    timeout_seconds: float | None = None
    """Time after which the experiment is given up; unset: never."""
    start_seconds: float = 300.0
    """Time within which a first trial must have run; else the experiment is given up."""
    explain_seconds: float = 10.0
    """Time without a program at work after which the user is told what stands in the way."""
    unavailable_seconds: float = 60.0
    """How long the Kubernetes API may fail to answer."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        for name, value in (
            ("poll_seconds", self.poll_seconds),
            ("start_seconds", self.start_seconds),
            ("explain_seconds", self.explain_seconds),
            ("timeout_seconds", self.timeout_seconds),
        ):
            if value is not None and value <= 0:
                raise InputError(f"{name} must be positive, not {value!r}.")
        if self.unavailable_seconds < 0:
            raise InputError(
                f"unavailable_seconds must not be negative, not {self.unavailable_seconds!r}."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentProgress:
    """What a waiting user is told; sent when it changes."""

    result: ExperimentResult
    elapsed_seconds: float
    findings: tuple[str, ...] = ()
    """What stands in the way, while no trial's program has started."""

    @property
    def seconds_left(self) -> float | None:
        """Time until the budget is used, at the pace so far; None while there is no pace."""
        result = self.result
        started = [trial.started_at for trial in result.trials if trial.started_at]
        ended = [trial.completed_at for trial in result.trials if trial.completed_at]
        if not (started and ended and result.max_trial_count) or result.is_over:
            return None
        # Trials that run are taken to be half done.
        num_done = result.num_done + sum(trial.is_active for trial in result.trials) / 2
        seconds = (max(ended) - min(started)).total_seconds() / num_done
        left = (result.max_trial_count - num_done) * seconds
        return left if left > 0 else None

    @property
    def message(self) -> str:
        """Trials done, running, the best so far, the time left; below it what stands in the way."""
        result, best = self.result, self.result.best
        num_active = sum(trial.is_active for trial in result.trials)
        of = f" of {result.max_trial_count}" if result.max_trial_count else ""
        line = f"{result.num_done}{of} trials done, {num_active} running"
        if bad := sum(trial.is_bad for trial in result.trials):
            line += f", {bad} of them without a result"
        if best is not None:
            line += f"; best {result.objective_metric}={best.objective:g} ({best.name})"
        if (seconds := self.seconds_left) is not None:
            line += f"; about {render_duration(seconds)} left"
        return "\n".join([line, *self.findings])


OnProgress = Callable[[ExperimentProgress], None]


def run_experiment(
    experiment: V1beta1Experiment,
    *,
    client: Client | None = None,
    watch: WatchConfig | None = None,
    on_progress: OnProgress = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> ExperimentResult:
    """Create an experiment, or find it, and wait until it has found a best trial.

    Args:
        experiment: The custom resource, as `build_experiment` builds it.
        client: Reaches the cluster; by default that of the current kubeconfig context.
        watch: How to wait.
        on_progress: Called when a trial, the best one, or what stands in the way has changed.
        clock: Monotonic time in seconds.
        sleep: Waits.

    Raises:
        PermanentError: It failed, was deleted, found nothing, did not start or took too long; the
            message carries what trials and pods say.
        InputError: The API refuses the experiment, or its name is taken by a different one.
        TransientError: The Kubernetes API does not answer.
    """
    run = _Run(
        experiment=experiment,
        client=client or connect(namespace=experiment.metadata.namespace),
        watch=watch or WatchConfig(),
        on_progress=on_progress,
        clock=clock,
        sleep=sleep,
    )
    with undo_when_interrupted(run.delete, also_on=(_GivenUpError,)):
        run.ensure()
        return run.wait()


class _GivenUpError(PermanentError):
    """The experiment is still there, and of no use."""


@dataclass(slots=True, kw_only=True)
class _Run:
    experiment: V1beta1Experiment
    client: Client
    watch: WatchConfig
    on_progress: OnProgress
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    is_ours: bool = False
    told: object = field(default=None)
    has_started: bool = False
    explained: tuple[str, ...] = ()
    next_explanation: float = 0.0

    @property
    def name(self) -> str:
        return str(self.experiment.metadata.name)

    @property
    def namespace(self) -> str:
        return str(self.experiment.metadata.namespace)

    @property
    def where(self) -> str:
        return f"Experiment {self.namespace}/{self.name}"

    def ensure(self) -> None:
        """Create the experiment, or take the one that is there."""
        found = self._find()
        if found is not None and (found.metadata.deletion_timestamp or self._is_useless(found)):
            self._check_run(found)
            delete_experiment(self.client, self.name, namespace=self.namespace)
            self._wait_until_gone()
            found = None
        if found is None:
            self.is_ours = True  # from now on an interruption must delete it
            if create_experiment(self.client, self.experiment):
                return
            self.is_ours, found = False, self._find()
        if found is not None:
            self._check_identity(found)
        self.is_ours = True

    def delete(self) -> None:
        """Delete the experiment, if it is this run's."""
        if self.is_ours:
            delete_experiment(self.client, self.name, namespace=self.namespace)

    def wait(self) -> ExperimentResult:
        """Watch the experiment until it has succeeded."""
        started = answered = self.clock()
        while True:
            try:
                result = self._look(elapsed_seconds=self.clock() - started)
                if result.is_over:
                    return self._conclude(result)
                answered = self.clock()
                self._explain_delay(result, elapsed_seconds=answered - started)
                self._give_up_if_hopeless(result, elapsed_seconds=answered - started)
            except TransientError:
                if self.clock() - answered > self.watch.unavailable_seconds:
                    raise
            self.sleep(self.watch.poll_seconds)

    def _find(self) -> Any:  # V1beta1Experiment
        return find_experiment(self.client, self.name, namespace=self.namespace)

    def _is_useless(self, found: Any) -> bool:  # V1beta1Experiment
        """Whether it has ended without a result, so that only another one can help."""
        result = read_trials(found, client=self.client)
        return result.is_over and (result.status is ExperimentStatus.FAILED or result.best is None)

    def _check_identity(self, found: Any) -> None:  # V1beta1Experiment
        self._check_run(found)
        _, digest = _identity(self.experiment)
        _, other_digest = _identity(found)
        if digest and digest != other_digest:
            raise InputError(
                f"{self.where} exists with other settings; choose another name, or delete it."
            )

    def _check_run(self, found: Any) -> None:  # V1beta1Experiment
        run, _ = _identity(self.experiment)
        other_run, _ = _identity(found)
        if run != other_run:
            raise InputError(
                f"{self.where} belongs to pipeline run {other_run!r}, not {run!r}; choose another "
                "name."
            )

    def _wait_until_gone(self) -> None:
        started = self.clock()
        while self._find() is not None:
            if self.clock() - started > self.watch.unavailable_seconds:
                raise PermanentError(f"{self.where} failed before and cannot be deleted.")
            self.sleep(self.watch.poll_seconds)

    def _look(self, *, elapsed_seconds: float) -> ExperimentResult:
        found = self._find()
        if found is None:
            raise PermanentError(f"{self.where} was deleted while it ran.")
        result = read_trials(found, client=self.client)
        if result != self.told:
            self.told = result
            self.on_progress(ExperimentProgress(result=result, elapsed_seconds=elapsed_seconds))
        return result

    def _explain_delay(self, result: ExperimentResult, *, elapsed_seconds: float) -> None:
        """Tell what stands in the way of the first trial, now and then, when it has changed."""
        due = max(self.watch.explain_seconds, self.next_explanation)
        if elapsed_seconds < due or self.has_started:
            return
        self.next_explanation = elapsed_seconds + self.watch.explain_seconds
        self.has_started = self._has_started(result)
        findings = () if self.has_started else tuple(explain(self.client, result))
        if findings and findings != self.explained:
            self.explained = findings
            self.on_progress(
                ExperimentProgress(
                    result=result, elapsed_seconds=elapsed_seconds, findings=findings
                )
            )

    def _conclude(self, result: ExperimentResult) -> ExperimentResult:
        if result.status is ExperimentStatus.FAILED:
            raise PermanentError(self._describe(result, f"failed: {result.message}."))
        if result.best is None:
            raise PermanentError(
                self._describe(result, f"ended, and no trial reported {result.objective_metric}.")
            )
        return result

    def _give_up_if_hopeless(self, result: ExperimentResult, *, elapsed_seconds: float) -> None:
        limit = self.watch.timeout_seconds
        if limit is not None and elapsed_seconds > limit:
            cause = f"did not finish in {limit:g} seconds and was deleted."
            raise _GivenUpError(self._describe(result, cause))
        if elapsed_seconds > self.watch.start_seconds and not self._has_started(result):
            cause = (
                f"has started no trial within {self.watch.start_seconds:g} seconds and was deleted."
            )
            raise _GivenUpError(self._describe(result, cause))

    def _has_started(self, result: ExperimentResult) -> bool:
        """Whether a program runs or has run; a trial runs for Katib as soon as its job exists."""
        if result.num_done or self.has_started:
            return True
        try:
            pods = list_pods(self.client, self.name, namespace=self.namespace)
        except ApiFailureError:  # without permission to look, a running trial has to do
            return any(trial.status is TrialStatus.RUNNING for trial in result.trials)
        return any(pod.status.phase != "Pending" for pod in pods)

    def _describe(self, result: ExperimentResult, cause: str) -> str:
        findings = explain(self.client, result)
        sentence = f"{self.where} {cause} {summarize(findings)}".strip()
        return "\n".join([sentence, *findings])


def _identity(experiment: Any) -> tuple[str, str]:  # V1beta1Experiment
    metadata = experiment.metadata
    run = (metadata.labels or {}).get(_RUN_LABEL, "")
    return run, (metadata.annotations or {}).get(CONFIGURATION_ANNOTATION, "")
