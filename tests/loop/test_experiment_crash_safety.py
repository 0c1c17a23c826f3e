"""An experiment while its control plane is killed, again and again.

Every execution of a trial writes a journal outside of the plane: that it has started, and that it
is about to end. A trial that was known as done must never run again, and in the end all must be as
if nothing had happened: the same parameters in the same order, each trial once, its metrics once.
"""

import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

from kubeloop.local.operators.katib.observations import ObservationStore
from kubeloop.local.state import StateFolder
from kubeloop.testing.command_line import wait_for
from kubeloop.testing.laptop import Laptop

MAX_TRIALS, NUM_PARALLEL = 12, 4
NUM_LINES = 2 * MAX_TRIALS
VALUES = ("0.1", "0.3", "0.2")
_KATIB = ("kubeflow.org", "v1beta1", "default")

PROGRAM = """
import os, sys, time
def note(word):
    with open(sys.argv[1], "a") as file:
        file.write(f"{word} {os.environ['KATIB_TRIAL_NAME']}\\n")
note("start")
for value in sys.argv[3:]:
    print(f"accuracy={value}", flush=True)
    time.sleep(0.05)
note("end")
"""


def build_experiment(name: str, journal: Path) -> dict[str, Any]:
    """A seeded random search whose trials write the journal."""
    arguments = [str(journal), "${trialParameters.rate}", *VALUES]
    container = {"name": "main", "image": "i", "command": ["python", "-c", PROGRAM, *arguments]}
    pod = {"restartPolicy": "Never", "containers": [container]}
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "objective": {"type": "maximize", "objectiveMetricName": "accuracy"},
            "algorithm": {
                "algorithmName": "random",
                "algorithmSettings": [{"name": "random_state", "value": "7"}],
            },
            "parallelTrialCount": NUM_PARALLEL,
            "maxTrialCount": MAX_TRIALS,
            "parameters": [
                {
                    "name": "rate",
                    "parameterType": "double",
                    "feasibleSpace": {"min": "0.01", "max": "0.1"},
                }
            ],
            "trialTemplate": {
                "primaryContainerName": "main",
                "trialParameters": [{"name": "rate", "reference": "rate"}],
                "trialSpec": {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "spec": {"template": {"spec": pod}},
                },
            },
        },
    }


class Plane:
    """The control plane under test, with a client."""

    def __init__(self, laptop: Laptop) -> None:
        self.laptop = laptop
        self.up()

    def up(self) -> None:
        """Start it."""
        self.laptop.up()
        endpoints = StateFolder(self.laptop.command.state).read_endpoints()
        assert endpoints is not None
        self._pid = endpoints.pid
        kubeconfig = str(self.laptop.command.state / "kubeconfig")
        self._connection = config.new_client_from_config(config_file=kubeconfig)
        self.api = client.CustomObjectsApi(self._connection)

    def kill(self) -> None:
        """Kill it; all that it runs ends with it."""
        self.close()
        os.kill(self._pid, signal.SIGKILL)
        wait_for(lambda: self.laptop.command.processes() == [])

    def close(self) -> None:
        """Close its connections."""
        self._connection.close()

    def get(self, plural: str, name: str) -> dict[str, Any]:
        """An object of Katib's."""
        found: dict[str, Any] = self.api.get_namespaced_custom_object(*_KATIB, plural, name)
        return found

    def list_trials(self, experiment: str) -> dict[str, dict[str, Any]]:
        """Trials by name."""
        found = self.api.list_namespaced_custom_object(
            *_KATIB, "trials", label_selector=f"katib.kubeflow.org/experiment={experiment}"
        )
        return {trial["metadata"]["name"]: trial for trial in found["items"]}


def read_journal(journal: Path) -> list[list[str]]:
    """Its lines in words."""
    return [line.split() for line in journal.read_text().splitlines()]


def count_starts(journal: Path) -> Counter[str]:
    """How often each trial has begun."""
    return Counter(trial for word, trial in read_journal(journal) if word == "start")


def is_true(found: dict[str, Any], condition: str) -> bool:
    conditions = found.get("status", {}).get("conditions") or []
    return any(c["type"] == condition and c["status"] == "True" for c in conditions)


def kill_at_random(
    plane: Plane, name: str, journal: Path, chance: random.Random
) -> Counter[str] | None:
    """Kill the plane at a random moment; None when the experiment is over before.

    Returns:
        How often each trial that was known as done had begun.
    """
    target = len(read_journal(journal)) + chance.randint(0, 6)
    if target >= NUM_LINES:
        return None
    wait_for(lambda: len(read_journal(journal)) >= target)
    trials = plane.list_trials(name)
    plane.kill()
    starts = count_starts(journal)
    return Counter(
        {trial: starts[trial] for trial in trials if is_true(trials[trial], "Succeeded")}
    )


def summarise(plane: Plane, name: str) -> dict[str, Any]:
    """What must not depend on whether the plane was killed."""
    status = plane.get("experiments", name)["status"]
    suggestion = plane.get("suggestions", name)["status"]
    trials = plane.list_trials(name)
    names = [entry["name"] for entry in suggestion["suggestions"]]
    assert sorted(names) == sorted(trials), "trials are just those that were suggested"
    assert sorted(status["succeededTrialList"]) == sorted(names)
    store = ObservationStore(StateFolder(plane.laptop.command.state).metrics)
    with store:
        reports = [tuple(log.value for log in store.read(trial)) for trial in names]
    return {
        "end": [(c["type"], c["status"], c["reason"], c["message"]) for c in status["conditions"]],
        "counts": {key: value for key, value in status.items() if key.startswith("trials")},
        "best": status["currentOptimalTrial"]["observation"],
        "suggested": suggestion["suggestionCount"],
        "values": [entry["parameterAssignments"] for entry in suggestion["suggestions"]],
        "trials": [
            (
                [c["type"] for c in trials[trial]["status"]["conditions"]],
                trials[trial]["spec"]["parameterAssignments"],
                trials[trial]["status"]["observation"],
            )
            for trial in names
        ],
        "reports": reports,
    }


def run_with_kills(
    plane: Plane, *, number: int, max_kills: int, chance: random.Random
) -> tuple[dict[str, Any], int]:
    """Run an experiment and kill the plane at random moments of it.

    Returns:
        What came of it, and how often the plane was killed.
    """
    name, journal = f"search-{number}", plane.laptop.folder / f"journal-{number}"
    journal.touch()
    plane.api.create_namespaced_custom_object(
        *_KATIB, "experiments", build_experiment(name, journal)
    )
    kills: list[Counter[str]] = []
    while len(kills) < max_kills:
        done = kill_at_random(plane, name, journal, chance)
        if done is None:
            break
        kills.append(done)
        plane.up()
    wait_for(lambda: is_true(plane.get("experiments", name), "Succeeded"), timeout_seconds=60)
    starts = count_starts(journal)
    for done in kills:
        assert {trial: starts[trial] for trial in done} == done, "a finished trial ran again"
    assert max(starts.values()) <= len(kills) + 1
    return summarise(plane, name), len(kills)


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    """A control plane of its own."""
    with Laptop(tmp_path) as laptop:
        plane = Plane(laptop)
        yield plane
        plane.close()


@pytest.mark.loop
def test_a_killed_plane_changes_nothing_about_an_experiment(plane: Plane) -> None:
    chance = random.Random(5)  # moments, not secrets
    undisturbed, _ = run_with_kills(plane, number=0, max_kills=0, chance=chance)

    disturbed, num_kills = run_with_kills(plane, number=1, max_kills=3, chance=chance)

    assert num_kills >= 2
    assert disturbed == undisturbed


@pytest.mark.soak
def test_experiments_survive_fifty_kills(plane: Plane) -> None:
    chance = random.Random(1)  # moments, not secrets
    undisturbed, _ = run_with_kills(plane, number=0, max_kills=0, chance=chance)
    num_kills, number = 0, 0
    while num_kills < 50:
        number += 1
        disturbed, kills = run_with_kills(plane, number=number, max_kills=10, chance=chance)
        num_kills += kills
        assert disturbed == undisturbed
