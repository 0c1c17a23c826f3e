"""A pipeline of thirty tasks while its control plane is killed, again and again.

Every execution of a task writes a journal outside of the plane: that it has started, what it read,
and a word of its own that only it knows. The word is the task's output, as a parameter and in an
artifact; so the journal shows whether a task ran twice, and whose output was read.
"""

import os
import random
import signal
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from kfp import compiler, dsl

from kubeloop.components.steps import RUNTIME_IMAGE
from kubeloop.local.state import StateFolder
from kubeloop.pipelines.metadata import NativeMetadata, TaskRecord
from kubeloop.pipelines.packages import read_package
from kubeloop.pipelines.runs import KfpClient, RunState, connect, submit, wait
from kubeloop.testing.command_line import wait_for
from kubeloop.testing.laptop import Laptop

pytestmark = pytest.mark.pinned
NUM_LAYERS, WIDTH = 5, 6
NUM_LINES = 2 * NUM_LAYERS * WIDTH


@dsl.component(base_image=RUNTIME_IMAGE, install_kfp_package=False)
def work(
    name: str,
    journal: str,
    written: dsl.Output[dsl.Artifact],
    said: str = "",
    read: dsl.Input[dsl.Artifact] | None = None,
) -> str:
    """Say and write a word that nobody else knows; note what was read."""
    import uuid
    from pathlib import Path

    word = uuid.uuid4().hex
    seen = Path(read.path).read_text() if read else ""
    with Path(journal).open("a") as file:
        file.write(f"start {name} {word}\n")
    sum(number * number for number in range(1_000_000))
    Path(written.path).write_text(word)
    with Path(journal).open("a") as file:
        file.write(f"end {name} {word} {said} {seen}\n")
    return word


@dsl.pipeline(name="thirty-tasks")
def thirty_tasks(journal: str) -> None:
    """Layers of tasks; each reads a parameter of one task before it, and a file of another."""
    above: list[Any] = []
    for layer in range(NUM_LAYERS):
        tasks: list[Any] = []
        for index in range(WIDTH):
            inputs: dict[str, Any] = {}
            if above:
                said, read = above[index], above[(index + 1) % WIDTH]
                inputs = {"said": said.outputs["Output"], "read": read.outputs["written"]}
            name = f"work-{layer}-{index}"
            task = work(name=name, journal=journal, **inputs)
            tasks.append(task.set_display_name(name).set_caching_options(False))
        above = tasks


@dataclass(frozen=True, kw_only=True)
class Kill:
    """What was true when the plane was killed: starts by task, and the tasks known as done."""

    starts: Counter[str]
    done: frozenset[str]


class Plane:
    """The control plane under test, with its clients."""

    def __init__(self, laptop: Laptop) -> None:
        self.laptop = laptop
        self.up()

    def up(self) -> None:
        """Start it."""
        self.laptop.up()
        endpoints = StateFolder(self.laptop.command.state).read_endpoints()
        assert endpoints is not None
        self._pid = endpoints.pid
        url, token = endpoints.kfp_url, endpoints.token
        self.client: KfpClient = connect(host=url, token=token)
        self.metadata = NativeMetadata(url, token=token)

    def kill(self) -> None:
        """Kill it; all that it runs ends with it."""
        self.close()
        os.kill(self._pid, signal.SIGKILL)
        wait_for(lambda: self.laptop.command.processes() == [])

    def close(self) -> None:
        """Close its connections."""
        self.metadata.close()

    def list_tasks(self, run_id: str) -> dict[str, TaskRecord]:
        """The tasks of a run, by the name that they write into the journal."""
        return {
            task.input_parameters["name"]: task
            for task in self.metadata.list_tasks(run_id)
            if "name" in task.input_parameters
        }


def read_journal(journal: Path) -> list[list[str]]:
    """Its lines in words; empty while there is none."""
    return [line.split(" ") for line in journal.read_text().splitlines()]


def count_starts(journal: Path) -> Counter[str]:
    """How often each task has begun."""
    return Counter(line[1] for line in read_journal(journal) if line[0] == "start")


def kill_at_random(plane: Plane, run_id: str, journal: Path, chance: random.Random) -> Kill | None:
    """Kill the plane some lines of the journal from now; None when the run is over before."""
    target = len(read_journal(journal)) + chance.randint(1, 20)
    if target >= NUM_LINES:
        return None
    wait_for(lambda: len(read_journal(journal)) >= target)
    states = {name: task.state for name, task in plane.list_tasks(run_id).items()}
    plane.kill()
    done = frozenset(name for name, state in states.items() if state == "SUCCEEDED")
    return Kill(starts=count_starts(journal), done=done)


def check_executions(journal: Path, kills: list[Kill]) -> None:
    """Nothing that was done ran again; what was not, once more for each kill."""
    starts = count_starts(journal)
    assert len(starts) == NUM_LAYERS * WIDTH
    for kill in kills:
        assert {name: starts[name] for name in kill.done} == {
            name: kill.starts[name] for name in kill.done
        }
    for before, after in pairwise([Counter[str](), *(kill.starts for kill in kills), starts]):
        again = {name: after[name] - before[name] for name in after}
        assert max(again.values()) <= 1, again


def check_outputs(journal: Path, tasks: dict[str, TaskRecord]) -> None:
    """Every task's output, and what was read of it, is the word of its last execution."""
    last = {line[1]: line[2:] for line in read_journal(journal) if line[0] == "end"}
    for name, task in tasks.items():
        word, said, seen = last[name]
        _, layer, index = name.split("-")
        assert task.state == "SUCCEEDED"
        assert task.output_parameters == {"Output": word}
        (artifact,) = task.output_artifacts["written"]
        assert Path(artifact.uri).read_text() == word
        if layer != "0":
            above = f"work-{int(layer) - 1}-"
            assert said == last[above + index][0]
            assert seen == last[above + str((int(index) + 1) % WIDTH)][0]


def run_with_kills(plane: Plane, *, number: int, max_kills: int, chance: random.Random) -> int:
    """Run the pipeline once and kill the plane at random moments of it; returns how often."""
    file, journal = plane.laptop.folder / "thirty.yaml", plane.laptop.folder / f"journal-{number}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        compiler.Compiler().compile(thirty_tasks, str(file))
    journal.touch()
    run_id = submit(plane.client, read_package(file), parameters={"journal": str(journal)})
    kills: list[Kill] = []
    while len(kills) < max_kills and (kill := kill_at_random(plane, run_id, journal, chance)):
        kills.append(kill)
        plane.up()
    assert wait(plane.client, run_id, timeout_seconds=60).state is RunState.SUCCEEDED
    check_executions(journal, kills)
    check_outputs(journal, plane.list_tasks(run_id))
    return len(kills)


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    """A control plane of its own."""
    with Laptop(tmp_path) as laptop:
        plane = Plane(laptop)
        yield plane
        plane.close()


@pytest.mark.loop
def test_finished_tasks_are_kept_and_broken_ones_run_once_more(plane: Plane) -> None:
    chance = random.Random(3)  # moments, not secrets
    assert run_with_kills(plane, number=0, max_kills=3, chance=chance) >= 1


@pytest.mark.soak
def test_runs_survive_fifty_kills(plane: Plane) -> None:
    chance = random.Random(0)  # moments, not secrets
    num_kills = number = 0
    while num_kills < 50:
        num_kills += run_with_kills(plane, number=number, max_kills=10, chance=chance)
        number += 1
