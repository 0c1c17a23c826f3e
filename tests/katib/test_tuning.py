"""A search from a training job to its best trial's model, through the official KatibClient."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kubeflow.katib import KatibClient

from kubeloop.errors import InputError, PermanentError
from kubeloop.katib.clients import list_pods
from kubeloop.katib.experiments import ResumePolicy
from kubeloop.katib.models import KeepModels
from kubeloop.katib.results import TrialStatus
from kubeloop.katib.runs import ExperimentProgress
from kubeloop.katib.tuning import Tuned, TuningConfig
from kubeloop.katib.tuning import tune as tune_with
from kubeloop.katib.warm_start import read_warm_start
from kubeloop.local.client import Manifest
from kubeloop.testing.katib_client import play
from kubeloop.testing.katib_lab import Exit, learning_rate_of
from kubeloop.training.jobs import TrainingJobConfig
from kubeloop.training.package import PROGRAM_FILE, PackageManifest, opened_package, write_package

NOBODY = "127.0.0.1:1"
SPACE = {"learning_rate": {"type": "float", "min": 0.01, "max": 0.1}}


def train(pod: Manifest) -> Exit:
    """A program that writes a model, whose accuracy is ten times its learning rate."""
    arguments = pod["spec"]["containers"][0]["args"]
    rate = learning_rate_of(pod)
    if "--model" in arguments:
        uri = arguments[arguments.index("--model") + 1]
        program = Path(uri).parent / "program"
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(str(rate))
        manifest = PackageManifest(name="digits", inputs=(), outputs=())
        write_package(uri, manifest, files={PROGRAM_FILE: program})
    return Exit(log=f"val_accuracy={rate * 10:.6f}\n")


def configure(folder: Path, **changes: Any) -> TuningConfig:  # any field of the configuration
    settings: dict[str, Any] = {
        "job": TrainingJobConfig(name="digits", hyperparameters={"epochs": 2}, run_id="r-1"),
        "search_space": SPACE,
        "objective_metric": "val_accuracy",
        "algorithm": "random",
        "seed": 3,
        "max_trial_count": 4,
        "trial_models": str(folder / "trials"),
        "model_store": str(folder / "models"),
        **changes,
    }
    return TuningConfig(**settings)


def tune(config: TuningConfig, **options: Any) -> Tuned:  # any option of tune
    return tune_with(config, poll_seconds=0.02, db_manager_address=NOBODY, **options)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def test_the_best_trials_model_is_published_and_those_of_losers_are_gone(tmp_path: Path) -> None:
    def test(client: KatibClient) -> None:
        told: list[ExperimentProgress] = []
        tuned = tune(configure(tmp_path), client=client, on_progress=told.append)

        assert tuned.winner == tuned.best == tuned.result.best
        assert names(tmp_path / "trials") == {tuned.best.name}
        with opened_package(tuned.model_uri) as package:
            text = (package.folder / PROGRAM_FILE).read_text()
            assert tuned.model_uri == str(tmp_path / "models" / "digits" / package.digest)
        assert float(text) == tuned.best.parameters["learning_rate"]
        assert tuned.job is not None
        assert tuned.job.name == tuned.best.name
        assert tuned.job.hyperparameters == {"epochs": 2, **tuned.best.parameters}
        assert tuned.models == {tuned.best.name: tuned.model_uri}
        assert "4 of 4 trials done" in told[-1].message

    play(train, test, tmp_path)


def test_a_repeated_search_finds_the_model_again(tmp_path: Path) -> None:
    def test(client: KatibClient) -> None:
        first = tune(configure(tmp_path), client=client)
        assert tune(configure(tmp_path), client=client) == first

    play(train, test, tmp_path)


def test_all_models_are_kept_where_asked(tmp_path: Path) -> None:
    def test(client: KatibClient) -> None:
        config = configure(tmp_path, keep_models=KeepModels.ALL)
        tuned = tune(config, client=client)

        assert names(tmp_path / "trials") == {trial.name for trial in tuned.result.trials}
        for trial in tuned.result.trials:
            with opened_package(tuned.models[trial.name]) as package:
                rate = float((package.folder / PROGRAM_FILE).read_text())
            assert rate == trial.parameters["learning_rate"]

    play(train, test, tmp_path)


def test_no_trial_writes_a_model_where_none_is_kept(tmp_path: Path) -> None:
    def test(client: KatibClient) -> None:
        config = configure(tmp_path, keep_models=KeepModels.NONE)
        tuned = tune(config, client=client)

        assert (tuned.model_uri, tuned.models) == ("", {})
        assert tuned.best.objective is not None
        assert names(tmp_path / "trials") == names(tmp_path / "models") == set()

    play(train, test, tmp_path)


def test_a_failed_search_leaves_no_models(tmp_path: Path) -> None:
    def program(pod: Manifest) -> Exit:
        return train(pod) if learning_rate_of(pod) < 0.05 else Exit(log="no data\n", code=2)

    def test(client: KatibClient) -> None:
        with pytest.raises(PermanentError, match="no data"):
            tune(
                configure(tmp_path, max_trial_count=8, max_failed_trial_count=1),
                client=client,
            )
        assert names(tmp_path / "trials") == set()

    play(program, test, tmp_path)


def test_a_cancelled_search_leaves_no_models(tmp_path: Path) -> None:
    def test(client: KatibClient) -> None:
        def interrupt(progress: ExperimentProgress) -> None:
            if progress.result.num_done:
                raise KeyboardInterrupt

        config = configure(tmp_path, max_trial_count=30, keep_models=KeepModels.ALL)
        with pytest.raises(KeyboardInterrupt):
            tune(config, client=client, on_progress=interrupt)
        assert names(tmp_path / "trials") == set()
        assert list_pods(client, "digits", namespace="default") == []

    play(train, test, tmp_path)


def test_a_trial_without_a_model_is_told(tmp_path: Path) -> None:
    def test(client: KatibClient) -> None:
        with pytest.raises(InputError, match="holds no model package"):
            tune(configure(tmp_path), client=client)

    play(lambda pod: Exit(log=f"val_accuracy={learning_rate_of(pod)}\n"), test, tmp_path)


def test_a_metric_that_the_program_does_not_print_is_refused_before_submission(
    tmp_path: Path,
) -> None:
    def test(client: KatibClient) -> None:
        with pytest.raises(InputError, match="'val_f1' is not among what the image program prints"):
            tune(configure(tmp_path, objective_metric="val_f1"), client=client)
        assert client.list_experiments(namespace="default") == []

    play(train, test, tmp_path)


@pytest.mark.parametrize("kind", [KeepModels, ResumePolicy])
def test_an_unknown_choice_is_refused_with_those_there_are(kind: type[KeepModels]) -> None:
    with pytest.raises(InputError, match=r"must be one of .*, not 'some'"):
        kind("some")


def test_the_time_for_a_first_trial_is_that_of_the_configuration(tmp_path: Path) -> None:
    def test(client: KatibClient) -> None:
        with pytest.raises(InputError, match="start_seconds must be positive, not 0"):
            tune(configure(tmp_path, start_seconds=0), client=client)

    play(train, test, tmp_path)


def test_the_seed_is_left_out_for_an_algorithm_that_takes_none(tmp_path: Path) -> None:
    def test(client: KatibClient) -> None:
        config = configure(tmp_path, algorithm="sobol", keep_models=KeepModels.NONE)
        statuses = [trial.status for trial in tune(config, client=client).result.trials]
        assert statuses == [TrialStatus.SUCCEEDED] * 4

    play(train, test, tmp_path)


def test_a_warm_start_searches_near_what_was_good_before(tmp_path: Path) -> None:
    def test(client: KatibClient) -> None:
        job = TrainingJobConfig(name="first", hyperparameters={"epochs": 2}, run_id="r-1")
        known = {"dataset_version": "v1", "keep_models": KeepModels.NONE, "max_trial_count": 8}
        first = tune(configure(tmp_path, job=job, **known), client=client)
        good = sorted(float(t.parameters["learning_rate"]) for t in first.result.trials)[-2:]

        again = configure(
            tmp_path,
            job=replace(job, name="second", hyperparameters={"epochs": 9}),
            warm_start=True,
            **{**known, "max_trial_count": 4},
        )
        second = tune(again, client=client)

        # Two good trials are too few.
        assert second.result.search_space == first.result.search_space
        third = configure(
            tmp_path,
            job=replace(job, name="third"),
            warm_start=True,
            **{**known, "max_trial_count": 12},
        )
        assert tune(third, client=client).result.search_space == first.result.search_space
        fourth = replace(third, job=replace(job, name="fourth"))
        found = tune(fourth, client=client)

        space = found.result.search_space["learning_rate"]
        assert space.min is not None
        assert 0.01 < space.min <= good[0]
        start = read_warm_start(found.result.annotations)
        assert start is not None
        assert set(start.experiments) == {"first", "third"}
        assert tune(fourth, client=client) == found

        other = replace(fourth, job=replace(job, name="other"), dataset_version="v2")
        result = tune(other, client=client).result
        assert result.search_space == first.result.search_space

    play(train, test, tmp_path)


def seek(folder: Path, name: str, **changes: Any) -> TuningConfig:  # any field
    """A search on a known dataset that begins warm."""
    job = TrainingJobConfig(name=name, hyperparameters={"epochs": 2}, run_id="r-1")
    known = {"dataset_version": "v1", "keep_models": KeepModels.NONE, "warm_start": True}
    return configure(folder, **{"job": job, "max_trial_count": 12, **known, **changes})


def test_a_warm_start_is_told_the_trials_of_searches_with_the_same_budget(tmp_path: Path) -> None:
    def test(client: KatibClient) -> None:
        first = tune(seek(tmp_path, "first"), client=client)
        assert first.best.objective is not None
        second = tune(seek(tmp_path, "second", algorithm="tpe", max_trial_count=3), client=client)

        told = read_told(client, "second")
        assert [row[-1] for row in told["trials"]] == [t.objective for t in first.result.trials]
        assert second.result.trials[0].parameters == first.best.parameters
        assert second.best.objective is not None
        assert second.best.objective >= first.best.objective
        assert (
            tune(seek(tmp_path, "second", algorithm="tpe", max_trial_count=3), client=client)
            == second
        )

        job = TrainingJobConfig(name="longer", hyperparameters={"epochs": 9}, run_id="r-1")
        longer = seek(tmp_path, "longer", job=job, algorithm="tpe", max_trial_count=3)
        assert tune(longer, client=client).result.search_space != first.result.search_space
        assert read_told(client, "longer") == {}

    play(train, test, tmp_path)


def read_told(client: KatibClient, name: str) -> dict[str, Any]:  # any JSON
    spec = client.get_experiment(name, namespace="default").spec
    settings = {s.name: s.value for s in spec.algorithm.algorithm_settings or ()}
    content: dict[str, Any] = json.loads(settings.get("warm_start", "{}"))
    return content


def test_an_algorithm_that_refuses_earlier_trials_gets_the_narrowed_space_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a cluster whose algorithm is not ours: its refusal comes after submission.
    monkeypatch.setattr("kubeloop.katib.warm_start.learns", lambda _: True)
    monkeypatch.setattr("kubeloop.katib.experiments.ALGORITHMS", {})

    def test(client: KatibClient) -> None:
        first = tune(seek(tmp_path, "first"), client=client)
        second = tune(seek(tmp_path, "second"), client=client)

        assert read_told(client, "second") == {}
        assert len(second.result.trials) == 12
        assert second.result.search_space != first.result.search_space
        assert tune(seek(tmp_path, "second"), client=client) == second

    play(train, test, tmp_path)
