"""The best trial's model is served, and the search can be looked at afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubeloop.testing.laptop import Laptop

pytestmark = [pytest.mark.loop, pytest.mark.pinned]


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """A control plane on which a search has ended and its model is served."""
    with Laptop(tmp_path_factory.mktemp("tuning")) as laptop:
        laptop.up()
        done, _ = laptop.run("tune_deploy", source=str(laptop.images), name="tuned")
        assert done.code == 0, done
        yield laptop


def ask(laptop: Laptop, *arguments: str) -> Any:  # Any: JSON
    done = laptop.command.call(*arguments, "--output", "json")
    assert done.code == 0, done.err
    return done.json


def find_outputs(laptop: Laptop, name: str) -> list[Path]:
    return list((laptop.command.state / "artifacts" / "tune-deploy").rglob(name))


def test_the_served_model_is_that_of_the_best_trial(laptop: Laptop) -> None:
    (experiment,) = ask(laptop, "experiments")
    best = ask(laptop, "experiments", "best", experiment["name"])
    nodes = ask(laptop, "lineage", "tuned")["nodes"]

    trials = [node["id"] for node in nodes if node["kind"] == "trial"]
    jobs = [node["id"] for node in nodes if node["kind"] == "training_job"]
    assert experiment["best_trial"] == best["name"]
    assert trials == [best["name"]]
    assert jobs == [f"default/{best['name']}"]


def test_only_the_best_trial_has_left_a_model(laptop: Laptop) -> None:
    (experiment,) = ask(laptop, "experiments")
    drafts = laptop.command.state / "artifacts" / "kubeloop" / "jobs" / experiment["name"]
    assert [path.name for path in drafts.iterdir()] == [experiment["best_trial"]]


def test_the_steps_report_has_the_curves_of_all_trials(laptop: Laptop) -> None:
    (report,) = (path for path in find_outputs(laptop, "report") if "tune-hyper" in str(path))
    html = report.read_text(encoding="utf-8")
    assert "val_accuracy while trials ran" in html
    assert "Curves are missing" not in html


def test_the_same_report_is_written_by_the_command(laptop: Laptop) -> None:
    path = laptop.folder / "search.html"
    assert ask(laptop, "experiments", "report", "tune-", "--save", str(path))["problem"] == ""
    assert "val_accuracy while trials ran" in path.read_text(encoding="utf-8")
