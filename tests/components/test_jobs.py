from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubeloop.components.jobs import (
    drop_checkpoints,
    list_variants,
    merge_hyperparameters,
    place_job,
    place_search,
)
from kubeloop.components.steps import Step
from kubeloop.errors import InputError
from kubeloop.katib.tuning import TuningConfig
from kubeloop.training.jobs import TrainingJobConfig
from kubeloop.training.placement import PodConfig

STEP = Step(
    pipeline_root="/root",
    pipeline="p",
    run_id="0f3c9a54-2b1e-4c57-9a53-0d9e3c2f7b11",
    task="train-model",
)
JOB = TrainingJobConfig(name="unnamed", dataset_uri="/data/1", hyperparameters={"epochs": 3})
SEARCH = TuningConfig(
    job=JOB,
    search_space={"learning_rate": {"type": "float", "min": 0.001, "max": 0.1}},
    objective_metric="val_accuracy",
)


def test_a_repeated_step_finds_its_job_and_its_drafts() -> None:
    placed = place_job(STEP, JOB, store="/store")

    assert placed == place_job(STEP, replace(JOB), store="/store")
    assert placed.name.startswith("train-model-")
    assert placed.model_uri == f"/store/{placed.name}/model"
    assert placed.checkpoint_uri == f"/store/{placed.name}/checkpoints"
    assert place_job(STEP, JOB, store="").model_uri == f"/root/kubeloop/jobs/{placed.name}/model"


@pytest.mark.parametrize(
    "change",
    [
        {"num_workers": 2},
        {"processes_per_worker": 2},
        {"cpu": "2"},
        {"memory": "4Gi"},
        {"num_gpus": 1},
        {"variants": ("onnx",)},
        {"program": "text"},
        {"pod": PodConfig(node_selector={"gpu": "h200"})},
    ],
)
def test_iterations_that_differ_have_jobs_of_their_own(change: dict[str, Any]) -> None:
    assert place_job(STEP, replace(JOB, **change), store="").name != (
        place_job(STEP, JOB, store="").name
    )


def test_hyperparameters_that_were_tuned_win_over_those_given() -> None:
    merged = merge_hyperparameters(
        {"batch_size": 32.0, "learning_rate": 0.1}, {"learning_rate": 0.2}, epochs=3, seed=1
    )

    assert merged == {"batch_size": 32, "learning_rate": 0.2, "epochs": 3, "seed": 1}


def test_epochs_among_hyperparameters_are_not_silently_overruled() -> None:
    with pytest.raises(InputError, match="hyperparameters has 'epochs', 3, which is a parameter"):
        merge_hyperparameters({"epochs": 3}, {}, epochs=15, seed=0)

    assert merge_hyperparameters({"epochs": 15}, {"epochs": 5}, epochs=15, seed=0)["epochs"] == 15


def test_the_variant_that_will_be_served_is_made_whether_or_not_it_is_named() -> None:
    assert list_variants([], "") == ()
    assert list_variants(["onnx"], "int8") == ("onnx", "int8")
    assert list_variants(["onnx"], "onnx") == ("onnx",)


def test_checkpoints_of_a_finished_training_do_not_stay(tmp_path: Path) -> None:
    job = place_job(STEP, JOB, store=str(tmp_path))
    for uri in (job.checkpoint_uri, job.model_uri):
        Path(uri).mkdir(parents=True)
        (Path(uri) / "file").touch()

    drop_checkpoints(job)

    assert not list(Path(job.checkpoint_uri).iterdir())
    assert (Path(job.model_uri) / "file").exists()


def test_a_repeated_step_finds_its_search_and_its_models() -> None:
    placed = place_search(STEP, SEARCH, store="")

    assert placed == place_search(STEP, replace(SEARCH), store="")
    assert placed.trial_models == f"/root/kubeloop/jobs/{placed.job.name}"
    assert placed.model_store == "/root/kubeloop/models"


@pytest.mark.parametrize(
    "change",
    [
        {"objective_type": "minimize"},
        {"warm_start": True},
        {"parallel_trial_count": 1},
        {"job": replace(JOB, num_workers=2)},
    ],
)
def test_iterations_that_differ_have_searches_of_their_own(change: dict[str, Any]) -> None:
    assert place_search(STEP, replace(SEARCH, **change), store="").job.name != (
        place_search(STEP, SEARCH, store="").job.name
    )
