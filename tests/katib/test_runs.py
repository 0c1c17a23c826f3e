"""Experiments run through the official KatibClient, over HTTPS, with everything at work."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from kubeflow.katib import KatibClient, V1beta1Experiment

from kubeloop.errors import InputError, PermanentError, TransientError
from kubeloop.katib.clients import delete_experiment
from kubeloop.katib.experiments import (
    ExperimentConfig,
    ObjectiveConfig,
    ObjectiveType,
    ResumePolicy,
    build_experiment,
)
from kubeloop.katib.results import ExperimentStatus, TrialStatus, read_results
from kubeloop.katib.runs import ExperimentProgress, WatchConfig, run_experiment
from kubeloop.katib.search_space import Categorical, Discrete, Float, Int
from kubeloop.local.api.logs import PodLogs
from kubeloop.local.api.memory import MemoryClient
from kubeloop.local.api.resources import NAMESPACES
from kubeloop.local.client import Manifest
from kubeloop.local.operators.katib.observations import ObservationStore
from kubeloop.sdk_errors import RefusedError
from kubeloop.testing.katib_client import play, run_connected
from kubeloop.testing.katib_lab import Exit, at_work, hang, print_accuracy
from kubeloop.testing.official_clients import close_connections
from kubeloop.testing.servers import running_api
from kubeloop.testing.waiting import wait_until
from kubeloop.training.jobs import PyTorchJobBuilder, TrainingJobConfig

FAST = WatchConfig(poll_seconds=0.02)


def build(**changes: Any) -> V1beta1Experiment:  # any field of the configuration
    job = PyTorchJobBuilder().build(
        TrainingJobConfig(name="trial", hyperparameters={"learning_rate": 0.5, "epochs": 2})
    )
    settings: dict[str, Any] = {
        "name": "digits",
        "job": job,
        "search_space": {"learning_rate": Float(min=0.01, max=0.1)},
        "objective": ObjectiveConfig(metric="accuracy"),
        "algorithm": "random",
        "algorithm_settings": {"random_state": 3},
        "max_trial_count": 4,
        **changes,
    }
    return build_experiment(ExperimentConfig(**settings))


def wait_for(condition: Callable[[], bool]) -> None:
    asyncio.run(wait_until(condition, timeout_seconds=20))


def test_a_run_returns_the_trials_and_the_best_one(tmp_path: Path) -> None:
    def test(client: KatibClient) -> None:
        result = run_experiment(build(), client=client, watch=FAST)

        best = result.require_best()
        assert result.status is ExperimentStatus.SUCCEEDED
        assert [trial.status for trial in result.trials] == [TrialStatus.SUCCEEDED] * 4
        assert best.objective == max(trial.objective or 0 for trial in result.trials)
        assert best.objective == pytest.approx(best.parameters["learning_rate"] * 10, abs=1e-5)
        assert all(trial.started_at and trial.completed_at for trial in result.trials)

    play(print_accuracy, test, tmp_path)


def test_katibs_client_reads_the_same(tmp_path: Path) -> None:
    def test(client: KatibClient) -> None:
        best = run_experiment(build(retain_trials=True), client=client, watch=FAST).require_best()

        optimal = client.get_optimal_hyperparameters("digits", namespace="default")
        details = client.get_success_trial_details("digits", namespace="default")
        assert client.is_experiment_succeeded("digits", namespace="default")
        assert optimal.best_trial_name == best.name
        assert float(optimal.observation.metrics[0].latest) == best.objective
        assert len(details) == 4
        lines = list(client.get_job_logs("digits", best.name, namespace="default"))
        assert f"accuracy={best.objective:.6f}" in lines

    play(print_accuracy, test, tmp_path)


def test_values_come_back_in_their_types(tmp_path: Path) -> None:
    def test(client: KatibClient) -> None:
        job = PyTorchJobBuilder().build(
            TrainingJobConfig(
                name="trial",
                hyperparameters={"learning_rate": 1, "layers": 1, "optimizer": "x", "batch": 1},
            )
        )
        space = {
            "learning_rate": Discrete(values=(0.01, 0.05)),
            "layers": Int(min=1, max=3),
            "optimizer": Categorical(values=("sgd", "adam")),
            "batch": Discrete(values=(16, 32)),
        }
        experiment = build(job=job, search_space=space, max_trial_count=2)

        for trial in run_experiment(experiment, client=client, watch=FAST).trials:
            assert trial.parameters["learning_rate"] in (0.01, 0.05)
            assert trial.parameters["layers"] in (1, 2, 3)
            assert isinstance(trial.parameters["layers"], int)
            assert trial.parameters["optimizer"] in ("sgd", "adam")
            assert isinstance(trial.parameters["batch"], int)

    play(print_accuracy, test, tmp_path)


def test_progress_tells_every_change_and_ends_with_the_result(tmp_path: Path) -> None:
    def test(client: KatibClient) -> None:
        told: list[ExperimentProgress] = []

        result = run_experiment(build(), client=client, watch=FAST, on_progress=told.append)

        assert told[-1].result == result
        assert told[-1].message.startswith("4 of 4 trials done, 0 running; best accuracy=0.")
        assert all(a.result != b.result for a, b in pairwise(told))

    play(print_accuracy, test, tmp_path)


def test_a_repeated_run_takes_the_finished_experiment(tmp_path: Path) -> None:
    def test(client: KatibClient) -> None:
        first = run_experiment(build(), client=client, watch=FAST)
        uid = client.get_experiment("digits").metadata.uid

        assert run_experiment(build(), client=client, watch=FAST) == first
        assert client.get_experiment("digits").metadata.uid == uid

    play(print_accuracy, test, tmp_path)


def test_a_repeated_run_joins_the_running_experiment(tmp_path: Path) -> None:
    released = threading.Event()

    def program(pod: Manifest) -> Exit | None:
        return print_accuracy(pod)

    def test(client: KatibClient) -> None:
        client.create_experiment(build(), namespace="default")
        uid = client.get_experiment("digits").metadata.uid
        released.set()

        result = run_experiment(build(), client=client, watch=FAST)

        assert len(result.trials) == 4
        assert client.get_experiment("digits").metadata.uid == uid

    play(program, test, tmp_path)


def test_a_failed_experiment_is_replaced(tmp_path: Path) -> None:
    is_fixed = threading.Event()

    def program(pod: Manifest) -> Exit:
        return print_accuracy(pod) if is_fixed.is_set() else Exit(log="no data\n", code=2)

    def test(client: KatibClient) -> None:
        with pytest.raises(PermanentError, match="failed"):
            run_experiment(build(), client=client, watch=FAST)
        is_fixed.set()

        assert run_experiment(build(), client=client, watch=FAST).best is not None

    play(program, test, tmp_path)


def test_a_failure_is_told_with_the_trials_last_words(tmp_path: Path) -> None:
    def test(client: KatibClient) -> None:
        with pytest.raises(PermanentError) as caught:
            run_experiment(build(max_failed_trial_count=1), client=client, watch=FAST)

        message = str(caught.value)
        assert message.startswith(
            "Experiment default/digits failed: Experiment has failed because max failed count has"
        )
        assert message.splitlines()[0].endswith(": ValueError: no data")
        assert ": Trial has failed. Job message: job" in message
        assert "failed with exit code 2; its last words: epoch 1\nValueError: no data" in message

    play(lambda _: Exit(log="epoch 1\nValueError: no data\n", code=2), test, tmp_path)


def test_trials_without_the_metric_are_explained_by_what_to_print(tmp_path: Path) -> None:
    def test(client: KatibClient) -> None:
        with pytest.raises(PermanentError, match=r"printed no line such as accuracy=0\.97"):
            run_experiment(build(), client=client, watch=FAST)

    play(lambda _: Exit(log="val_loss=0.2\n"), test, tmp_path)


def test_an_experiment_without_a_best_trial_is_an_error(tmp_path: Path) -> None:
    def test(client: KatibClient) -> None:
        experiment = build(max_trial_count=2, max_failed_trial_count=2)
        experiment.spec.max_failed_trial_count = None

        with pytest.raises(PermanentError, match="ended, and no trial reported accuracy"):
            run_experiment(experiment, client=client, watch=FAST)

    play(lambda _: Exit(log="nothing\n"), test, tmp_path)


def test_trials_that_cannot_be_scheduled_are_explained_and_given_up(tmp_path: Path) -> None:
    def test(client: KatibClient) -> None:
        watch = WatchConfig(poll_seconds=0.02, start_seconds=0.3)
        with pytest.raises(PermanentError, match=r"has started no trial within 0\.3 seconds"):
            run_experiment(build(), client=client, watch=watch)

        wait_for(lambda: read_results("digits", namespace="default", client=client) is None)

    async def main() -> None:  # no kubelet: every pod stays Pending
        async with asyncio.timeout(60), running_api(tmp_path) as running:
            client = MemoryClient(running.api, logs=PodLogs(running.pods_dir))
            with ObservationStore() as observations:
                async with at_work(client, observations, folder=tmp_path):
                    await asyncio.to_thread(run_connected, test, running)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asyncio.run(main())


def test_a_run_that_takes_too_long_is_given_up_and_deleted(tmp_path: Path) -> None:
    def test(client: KatibClient) -> None:
        watch = WatchConfig(poll_seconds=0.02, timeout_seconds=0.3)
        with pytest.raises(PermanentError, match=r"did not finish in 0\.3 seconds and was"):
            run_experiment(build(), client=client, watch=watch)

        wait_for(lambda: read_results("digits", namespace="default", client=client) is None)

    play(hang, test, tmp_path)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_a_cancelled_run_deletes_its_experiment(
    interruption: type[BaseException], tmp_path: Path
) -> None:
    def test(client: KatibClient) -> None:
        def interrupt(progress: ExperimentProgress) -> None:
            if progress.result.trials:
                raise interruption

        with pytest.raises(interruption):
            run_experiment(build(), client=client, watch=FAST, on_progress=interrupt)

        wait_for(lambda: read_results("digits", namespace="default", client=client) is None)
        wait_for(lambda: client.list_trials("digits", namespace="default") == [])

    play(hang, test, tmp_path)


def test_an_experiment_of_other_settings_is_not_taken_for_ours(tmp_path: Path) -> None:
    def test(client: KatibClient) -> None:
        run_experiment(build(), client=client, watch=FAST)

        with pytest.raises(InputError, match="exists with other settings"):
            run_experiment(build(max_trial_count=5), client=client, watch=FAST)
        with pytest.raises(InputError, match="belongs to pipeline run ''"):
            run_experiment(build(labels={"pipeline/runid": "r-2"}), client=client, watch=FAST)
        assert client.is_experiment_succeeded("digits", namespace="default")

    play(print_accuracy, test, tmp_path)


def test_a_refusal_of_the_api_is_an_input_error_that_names_the_field(tmp_path: Path) -> None:
    def test(client: KatibClient) -> None:
        with pytest.raises(RefusedError, match="Failed to create Experiment default/digits") as e:
            run_experiment(build(algorithm="simulated-annealing"), client=client, watch=FAST)

        assert "spec.algorithm.algorithmName" in str(e.value)
        assert e.value.status == 400

    play(print_accuracy, test, tmp_path)


def test_a_namespace_without_the_label_is_refused_by_name(tmp_path: Path) -> None:
    def test(client: KatibClient) -> None:
        with pytest.raises(InputError, match=r'the namespace lacks label "katib\.kubeflow\.org'):
            run_experiment(build(namespace="kubeflow"), client=client, watch=FAST)

    assert NAMESPACES.kind == "Namespace"
    play(print_accuracy, test, tmp_path)


def test_raising_the_budget_through_katibs_client_resumes(tmp_path: Path) -> None:
    def test(client: KatibClient) -> None:
        run_experiment(build(resume_policy=ResumePolicy.LONG_RUNNING), client=client, watch=FAST)

        client.edit_experiment_budget("digits", namespace="default", max_trial_count=6)
        wait_for(lambda: len(client.list_trials("digits", namespace="default")) == 6)
        client.wait_for_experiment_condition(
            "digits", namespace="default", polling_interval=1, timeout=20
        )

        result = read_results("digits", namespace="default", client=client)
        assert result is not None
        assert result.num_done == 6

    play(print_accuracy, test, tmp_path)


def test_a_minimised_objective_has_the_least_as_its_best(tmp_path: Path) -> None:
    def test(client: KatibClient) -> None:
        objective = ObjectiveConfig(metric="accuracy", type=ObjectiveType.MINIMIZE)
        result = run_experiment(build(objective=objective), client=client, watch=FAST)

        assert result.require_best().objective == min(t.objective or 9 for t in result.trials)

    play(print_accuracy, test, tmp_path)


def test_an_api_that_does_not_answer_is_a_transient_error(tmp_path: Path) -> None:
    clients: list[KatibClient] = []

    play(hang, clients.append, tmp_path)

    with pytest.raises(TransientError, match="does not answer"):
        delete_experiment(clients[0], "digits", namespace="default")
    close_connections(clients[0].custom_api)
