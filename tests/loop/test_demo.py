"""The whole loop once, as a user runs it, and what is there to see afterwards."""

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubeloop.testing.command_line import CommandLine
from kubeloop.testing.waiting import wait_until

pytestmark = [pytest.mark.loop, pytest.mark.pinned]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    command = CommandLine(tmp_path_factory.mktemp("loop") / "state")
    yield command
    command.down()


@pytest.fixture(scope="module")
def report(command: CommandLine) -> dict[str, Any]:
    file = command.state.parent / "report.json"
    done = command.run("demo", "--report", str(file), timeout_seconds=300)
    assert done.code == 0, done
    result: dict[str, Any] = json.loads(file.read_text())
    return result


@pytest.fixture(scope="module")
def plane(command: CommandLine, report: dict[str, Any]) -> dict[str, Any]:
    """A control plane started again on what the demo left."""
    return command.up()


def test_demo_reaches_its_accuracy_on_scans_nobody_trained_on(report: dict[str, Any]) -> None:
    assert report["test_accuracy"] >= 0.97
    assert len(report["per_class"]) == 10


def test_demo_tunes_with_six_trials_and_takes_the_best(report: dict[str, Any]) -> None:
    succeeded = [trial for trial in report["trials"] if trial["status"] == "Succeeded"]
    assert len(succeeded) >= 6
    best = max(succeeded, key=lambda trial: trial["objective"])
    assert best["parameters"] == report["best_parameters"]


def test_endpoint_answers_for_ten_scans(report: dict[str, Any]) -> None:
    assert len(report["predictions"]) == 10
    right = [answer["expected"] == answer["predicted"] for answer in report["predictions"]]
    assert sum(right) >= 9


def test_lineage_runs_from_endpoint_to_source_with_digests(report: dict[str, Any]) -> None:
    nodes = {node["kind"]: node for node in report["lineage"]}
    chain = ["endpoint", "model", "training_job", "trial", "dataset", "source"]
    assert {*chain, "experiment", "run", "task"} == nodes.keys()
    assert all(nodes[kind]["digest"].startswith("sha256:") for kind in chain)


def test_nothing_runs_after_the_demo(report: dict[str, Any], command: CommandLine) -> None:
    assert command.processes() == []


def test_kubectl_shows_what_happened(plane: dict[str, Any]) -> None:
    environment = {**os.environ, "KUBECONFIG": plane["kubeconfig"]}
    shown = subprocess.run(
        ["kubectl", "get", "pytorchjobs,experiments,trials,inferenceservices,pods"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    for word in (
        "pytorchjob.kubeflow.org/train-model-",
        "experiment.kubeflow.org/tune-hyperparameters-",
        "inferenceservice.serving.kserve.io/digits",
        "pod/",
    ):
        assert word in shown


def test_kubectl_prints_the_training_log(plane: dict[str, Any]) -> None:
    environment = {**os.environ, "KUBECONFIG": plane["kubeconfig"]}
    log = subprocess.run(
        ["kubectl", "logs", "--tail=-1", "-l", "kubeloop.dev/task=train-model", "-c", "pytorch"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert "val_accuracy=" in log


def test_endpoint_serves_again_after_a_restart(plane: dict[str, Any], command: CommandLine) -> None:
    from kubeloop.kserve.client import PredictionClient

    url = f"{plane['gateway_url']}/serving/default/digits"
    with PredictionClient(url, "digits") as client:
        asyncio.run(wait_until(client.is_ready, timeout_seconds=60))
    scan = next((command.state / "demo" / "digits" / "7").iterdir())
    done = command.call("predict", "digits", str(scan), "-o", "json")
    assert done.code == 0, done.err
    (prediction,) = done.json["predictions"]
    assert prediction["label"] == "7"


def test_lineage_is_printed_by_the_command(plane: dict[str, Any], command: CommandLine) -> None:
    done = command.call("lineage", "digits")
    assert done.code == 0, done.err
    for word in ("endpoint", "model", "training job", "trial", "dataset", "source"):
        assert word in done.out


def test_lineage_is_verified_against_what_lies_on_disk(
    plane: dict[str, Any], command: CommandLine
) -> None:
    done = command.call("lineage", "digits", "--verify")
    assert done.code == 0, done.err
    for word in ("endpoint default/digits", "model ", "dataset digits@", "source digits"):
        assert f"intact  {word}" in done.err


def test_run_carries_a_picture_of_its_lineage(plane: dict[str, Any], command: CommandLine) -> None:
    (run,) = command.call("runs", "-o", "json").json
    done = command.call("lineage", run["run_id"], "-o", "json")
    (picture,) = (
        node
        for node in done.json["nodes"]
        if node["details"].get("type") == "HTML" and node["id"] == "lineage"
    )
    page = Path(picture["uri"]).read_text()
    assert "Lineage of run" in page
    assert "default/digits" in page


def test_runs_are_listed_with_their_state(plane: dict[str, Any], command: CommandLine) -> None:
    done = command.call("runs", "-o", "json")
    (run,) = done.json
    assert run["state"] == "SUCCEEDED"
