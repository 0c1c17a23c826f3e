from dataclasses import replace
from typing import Any

import pytest

from kubeloop.components.jobs import place_job, place_search
from kubeloop.components.steps import Step
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
