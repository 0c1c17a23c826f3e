"""What a user who waits for a search is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kubeflow.katib import KatibClient

from kubeloop.errors import PermanentError
from kubeloop.katib import runs
from kubeloop.katib.experiments import ExperimentConfig, ObjectiveConfig, build_experiment
from kubeloop.katib.results import ExperimentResult, ExperimentStatus, TrialResult, TrialStatus
from kubeloop.katib.runs import ExperimentProgress, WatchConfig, run_experiment
from kubeloop.katib.search_space import Float
from kubeloop.testing.katib_client import play
from kubeloop.testing.katib_lab import hang
from kubeloop.training.jobs import PyTorchJobBuilder, TrainingJobConfig

START = datetime(2026, 1, 1, tzinfo=UTC)


def build_progress(
    *ended_after: int, num_running: int = 0, max_trial_count: int | None = 6
) -> ExperimentProgress:
    """Trials that ended so many seconds after the start, and some that run."""
    fields: dict[str, Any] = {"parameters": {}, "metrics": {}, "message": "", "started_at": START}
    ended = [
        TrialResult(
            name=f"digits-{seconds}",
            status=TrialStatus.SUCCEEDED,
            objective=seconds / 100,
            completed_at=START + timedelta(seconds=seconds),
            **fields,
        )
        for seconds in ended_after
    ]
    running = [
        TrialResult(name=f"r-{n}", status=TrialStatus.RUNNING, objective=None, **fields)
        for n in range(num_running)
    ]
    result = ExperimentResult(
        name="digits",
        namespace="default",
        status=ExperimentStatus.RUNNING,
        reason="",
        message="",
        objective_metric="accuracy",
        is_maximized=True,
        max_trial_count=max_trial_count,
        trials=(*ended, *running),
    )
    return ExperimentProgress(result=result, elapsed_seconds=0.0)


def test_the_time_left_follows_the_pace_of_the_trials() -> None:
    assert build_progress(10, 20, 30).seconds_left == pytest.approx(30)
    # Two that run are half done: four of six trials in thirty seconds.
    assert build_progress(10, 20, 30, num_running=2).seconds_left == pytest.approx(15)


@pytest.mark.parametrize(
    "progress", [build_progress(num_running=2), build_progress(10, max_trial_count=None)]
)
def test_no_time_is_told_where_there_is_no_pace(progress: ExperimentProgress) -> None:
    assert progress.seconds_left is None
    assert "left" not in progress.message


def test_the_message_has_what_is_done_runs_is_best_and_is_left() -> None:
    assert build_progress(60, 90, num_running=2).message == (
        "2 of 6 trials done, 2 running; best accuracy=0.9 (digits-90); about 1 min 30 s left"
    )


def test_what_keeps_trials_from_starting_is_told_while_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "explain", lambda *_: ["Pod digits-1 waits: 0 of 1 nodes fit"])
    monkeypatch.setattr(runs._Run, "_has_started", lambda *_: False)

    def test(client: KatibClient) -> None:
        told: list[ExperimentProgress] = []
        job = TrainingJobConfig(name="trial", hyperparameters={"learning_rate": 0.5})
        experiment = build_experiment(
            ExperimentConfig(
                name="digits",
                job=PyTorchJobBuilder().build(job),
                search_space={"learning_rate": Float(min=0.01, max=0.1)},
                objective=ObjectiveConfig(metric="accuracy"),
                algorithm="random",
            )
        )
        watch = WatchConfig(poll_seconds=0.02, explain_seconds=0.1, start_seconds=0.5)
        with pytest.raises(PermanentError, match="0 of 1 nodes fit"):
            run_experiment(experiment, client=client, watch=watch, on_progress=told.append)

        explained = [progress for progress in told if progress.findings]
        assert len(explained) == 1
        assert explained[0].message.endswith("\nPod digits-1 waits: 0 of 1 nodes fit")

    play(hang, test, tmp_path)
