"""`kubeloop experiments`, as a user types it, on Katib's operators at work."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kubeflow.katib import KatibClient

from kubeloop.cli.main import run
from kubeloop.katib.experiments import (
    ExperimentConfig,
    ObjectiveConfig,
    ResumePolicy,
    build_experiment,
)
from kubeloop.katib.runs import WatchConfig, run_experiment
from kubeloop.katib.search_space import Float
from kubeloop.local.client import Manifest
from kubeloop.local.state import CONTEXT
from kubeloop.testing.katib_client import play
from kubeloop.testing.katib_lab import Exit, Program, learning_rate_of, print_accuracy
from kubeloop.testing.waiting import wait_until
from kubeloop.training.jobs import PyTorchJobBuilder, TrainingJobConfig

Command = Callable[..., tuple[int, str, str]]
FAST = WatchConfig(poll_seconds=0.02)


def search(client: KatibClient, name: str = "digits", **changes: Any) -> None:
    """Run an experiment to its end."""
    settings: dict[str, Any] = {
        "name": name,
        "job": PyTorchJobBuilder().build(
            TrainingJobConfig(name="trial", hyperparameters={"learning_rate": 0.5})
        ),
        "search_space": {"learning_rate": Float(min=0.01, max=0.1)},
        "objective": ObjectiveConfig(metric="accuracy"),
        "algorithm": "random",
        "algorithm_settings": {"random_state": 3},
        "max_trial_count": 3,
        **changes,
    }
    run_experiment(build_experiment(ExperimentConfig(**settings)), client=client, watch=FAST)


@pytest.fixture
def use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., None]:
    """Runs a test with Katib's client and the command beside it."""

    def command(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(["experiments", *arguments, "--context", CONTEXT])
        said = capsys.readouterr()
        return code, said.out, said.err

    def start(
        test: Callable[[KatibClient, Command], None], program: Program = print_accuracy
    ) -> None:
        play(program, lambda client: test(client, command), tmp_path)

    # NB: read when kubernetes is imported.
    where = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
    monkeypatch.setattr(where, str(tmp_path / "kubeconfig"))
    return start


def test_experiments_are_listed_with_their_best(use: Any) -> None:
    def test(client: KatibClient, command: Command) -> None:
        assert command()[1] == "No experiments in namespace default.\n"
        search(client)

        code, out, _ = command("--output", "json")
        (found,) = json.loads(out)
        assert code == 0
        assert (found["name"], found["status"], found["num_succeeded"]) == (
            "digits",
            "Succeeded",
            3,
        )
        assert found["best_trial"] in command("best", "digits")[1]
        assert "3/3" in command()[1]

    use(test)


def test_an_experiment_is_shown_by_a_part_of_its_name(use: Any) -> None:
    def test(client: KatibClient, command: Command) -> None:
        search(client)

        assert "3 of 3 trials done, 0 running; best accuracy=" in command("git")[1]
        shown = json.loads(command("show", "digits", "-o", "json")[1])
        assert (shown["num_done"], shown["findings"]) == (3, [])

    use(test)


def test_an_unknown_name_is_refused_with_those_there_are(use: Any) -> None:
    def test(client: KatibClient, command: Command) -> None:
        search(client, "digits-1")
        search(client, "digits-2")

        code, _, err = command("show", "letters")
        assert code == 2
        assert "'letters' is no experiment of namespace default; there are: " in err
        assert "digits-1" in err
        assert "digits-2" in err
        assert "is a part of several experiments" in command("show", "digits")[2]

    use(test)


def test_trials_are_listed_the_best_first_where_asked(use: Any) -> None:
    def test(client: KatibClient, command: Command) -> None:
        search(client)

        listed = json.loads(command("trials", "digits", "--by-objective", "-o", "json")[1])
        objectives = [trial["objective"] for trial in listed]
        assert objectives == sorted(objectives, reverse=True)
        assert len(objectives) == 3
        best = json.loads(command("best", "digits", "-o", "json")[1])
        assert best == listed[0]
        assert command("trials", "digits", "--status", "failed")[1] == "No such trials.\n"
        assert "--status takes one of" in command("trials", "digits", "--status", "odd")[2]

    use(test)


def test_a_search_without_trials_is_shown_with_what_is_in_its_way(use: Any) -> None:
    def program(pod: Manifest) -> Exit:
        return Exit(log="ValueError: no data\n", code=2)

    def test(client: KatibClient, command: Command) -> None:
        with pytest.raises(Exception, match="no data"):
            search(client, max_failed_trial_count=0)

        assert "ValueError: no data" in command("show", "digits")[1]
        assert "has no best trial" in command("best", "digits")[2]

    use(test, program)


def test_a_report_is_written_where_asked(use: Any, tmp_path: Path) -> None:
    def test(client: KatibClient, command: Command) -> None:
        search(client)
        path = tmp_path / "search.html"
        nobody = ("--db-manager", "127.0.0.1:1")

        code, out, _ = command("report", "digits", "--save", str(path), *nobody, "-o", "json")

        assert code == 0
        assert json.loads(out)["path"] == str(path)
        assert "Optimisation history" in path.read_text(encoding="utf-8")
        assert command("report", "digits", "--save", str(tmp_path / "no" / "f"), *nobody)[0] == 2

    use(test)


def test_a_finished_experiment_goes_on_with_a_greater_budget(use: Any) -> None:
    async def done(command: Command) -> None:
        def has_six() -> bool:
            shown = json.loads(command("show", "digits", "-o", "json")[1])
            return bool(shown["num_done"] == 6 and shown["status"] == "Succeeded")

        await wait_until(has_six, timeout_seconds=20)

    def test(client: KatibClient, command: Command) -> None:
        search(client, resume_policy=ResumePolicy.LONG_RUNNING)

        assert command("resume", "digits", "--max-trials", "3")[0] == 2
        code, out, _ = command("resume", "digits", "--max-trials", "6", "-o", "json")

        assert (code, json.loads(out)) == (0, {"name": "digits", "max_trial_count": 6})
        asyncio.run(done(command))

    use(test)


def test_an_experiment_that_must_not_be_resumed_is_refused_with_the_reason(use: Any) -> None:
    def test(client: KatibClient, command: Command) -> None:
        search(client)
        code, _, err = command("resume", "digits", "--max-trials", "6")
        assert code == 2
        assert "its resumePolicy is Never" in err

    use(test)


def test_experiments_are_compared_side_by_side(use: Any) -> None:
    def program(pod: Manifest) -> Exit:
        return Exit(log=f"accuracy={learning_rate_of(pod)}\n")

    def test(client: KatibClient, command: Command) -> None:
        search(client, "one")
        search(client, "two", max_trial_count=2)

        compared = json.loads(command("compare", "one", "two", "--different", "-o", "json")[1])

        rows = {row["name"]: row["values"] for row in compared["rows"]}
        assert compared["experiments"] == ["one", "two"]
        assert rows["max trials"] == [3, 2]
        assert "algorithm" not in rows
        assert "≠" in command("compare", "one", "two")[1]
        assert command("compare", "one")[0] == 2

    use(test, program)


def test_deleting_one_leaves_the_others(use: Any) -> None:
    def test(client: KatibClient, command: Command) -> None:
        search(client, "one")
        search(client, "two")

        assert command("delete", "one", "three")[0] == 2
        assert command("delete", "one")[0] == 0

        assert [found["name"] for found in json.loads(command("-o", "json")[1])] == ["two"]

    use(test)
