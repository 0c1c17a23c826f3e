"""The example in docs/examples/nas: two architecture searches, through Katib's own API."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config

import kubeloop
from kubeloop.testing.command_line import CommandLine, wait_for

pytestmark = [pytest.mark.soak, pytest.mark.pinned]

SEARCH = Path(kubeloop.__file__).parent / "docs" / "examples" / "nas" / "search.py"
KATIB = ("kubeflow.org", "v1beta1", "default")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[client.CustomObjectsApi]:
    """The API of a control plane on which both searches, made small, have ended."""
    folder = tmp_path_factory.mktemp("nas")
    command = CommandLine(folder / "state")
    command.up()
    try:
        with config.new_client_from_config(str(command.state / "kubeconfig")) as api:
            objects = client.CustomObjectsApi(api)
            for algorithm, num_trials in (("enas", 2), ("darts", 1)):
                body = write_experiment(algorithm, folder, num_trials=num_trials)
                objects.create_namespaced_custom_object(*KATIB, "experiments", body)
            for algorithm in ("enas", "darts"):
                wait_for(partial(has_ended, objects, algorithm), timeout_seconds=120)
            yield objects
    finally:
        command.down()


def write_experiment(algorithm: str, folder: Path, *, num_trials: int) -> Any:  # Any: JSON
    arguments = [algorithm, str(folder / "code"), "--trials", str(num_trials), "--epochs", "1"]
    done = subprocess.run(
        [sys.executable, str(SEARCH), *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    return yaml.safe_load(done.stdout)


def read_experiment(objects: client.CustomObjectsApi, algorithm: str) -> dict[str, Any]:
    found: dict[str, Any] = objects.get_namespaced_custom_object(
        *KATIB, "experiments", f"{algorithm}-digits"
    )
    return found


def has_ended(objects: client.CustomObjectsApi, algorithm: str) -> bool:
    status = read_experiment(objects, algorithm).get("status") or {}
    return "completionTime" in status


def read_trials(objects: client.CustomObjectsApi, algorithm: str) -> list[dict[str, Any]]:
    selector = f"katib.kubeflow.org/experiment={algorithm}-digits"
    found = objects.list_namespaced_custom_object(*KATIB, "trials", label_selector=selector)
    return list(found["items"])


def read_assignments(trial: dict[str, Any]) -> dict[str, Any]:
    texts = {a["name"]: a["value"] for a in trial["spec"]["parameterAssignments"]}
    assert not any('"' in text for text in texts.values())
    return {name: json.loads(text.replace("'", '"')) for name, text in texts.items()}


def test_each_enas_trial_has_trained_the_network_that_it_was_given(
    objects: client.CustomObjectsApi,
) -> None:
    status = read_experiment(objects, "enas")["status"]
    assert status["trialsSucceeded"] == 2, status["conditions"]
    for trial in read_trials(objects, "enas"):
        given = read_assignments(trial)
        assert [len(layer) for layer in given["architecture"]] == [1, 2, 3, 4]
        assert given["nn_config"]["num_layers"] == 4
        used = {str(layer[0]) for layer in given["architecture"]}
        assert set(given["nn_config"]["embedding"]) == used
        accuracy, loss = trial["status"]["observation"]["metrics"]
        assert accuracy["name"] == "Validation-Accuracy"
        assert 0 <= float(accuracy["max"]) <= 1
        assert float(loss["latest"]) > 0


def test_the_darts_trial_names_the_cells_that_it_has_found(
    objects: client.CustomObjectsApi,
) -> None:
    status = read_experiment(objects, "darts")["status"]
    assert status["trialsSucceeded"] == 1, status["conditions"]
    (trial,) = read_trials(objects, "darts")
    given = read_assignments(trial)
    assert given["num-layers"] == 3
    assert "separable_convolution_5x5" in given["search-space"]
    assert given["algorithm-settings"]["num_nodes"] == "2"
    _, genotype = status["currentOptimalTrial"]["observation"]["metrics"]
    assert genotype["name"] == "Best-Genotype"
    assert genotype["latest"].startswith("Genotype(normal=[[('")
