"""`kubeloop schedules` as a user types it, over a restart of the control plane."""

# KFP reads annotations that are no types to mypy.
# mypy: disable-error-code="no-untyped-def"

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kfp import compiler, dsl

from kubeloop.local.state import StateFolder
from kubeloop.pipelines.runs import connect
from kubeloop.testing.command_line import CommandLine, Outcome, wait_for

pytestmark = pytest.mark.loop


@dsl.container_component
def say(text: str):
    """Print a text."""
    return dsl.ContainerSpec(image="busybox", command=["echo", text])


@dsl.pipeline(name="saying")
def saying(text: str) -> None:
    """Print a text."""
    say(text=text).set_caching_options(enable_caching=False)


class Schedules:
    """The commands, on a control plane that can be started again."""

    def __init__(self, folder: Path) -> None:
        self.command = CommandLine(folder / "state")
        self.package = str(folder / "saying.yaml")
        compiler.Compiler().compile(saying, self.package)

    def run(self, *arguments: str) -> Outcome:
        """Run a command of the group."""
        return self.command.call("schedules", *arguments)

    def listed(self) -> list[dict[str, Any]]:
        """What `kubeloop schedules` lists."""
        listed: list[dict[str, Any]] = self.run("--output", "json").json
        return listed

    def connect(self) -> Any:  # Any: kfp.Client
        """KFP's client."""
        endpoints = StateFolder(self.command.state).read_endpoints()
        assert endpoints is not None
        return connect(host=endpoints.kfp_url, token=endpoints.token)

    def texts(self) -> list[str]:
        """What the runs were told to print."""
        runs = self.command.call("runs", "--output", "json").json
        return sorted(run["parameters"]["text"] for run in runs)


@pytest.fixture(scope="module")
def schedules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Schedules]:
    running = Schedules(tmp_path_factory.mktemp("schedules"))
    running.command.up()
    yield running
    running.command.down()


def test_schedules_are_made_listed_stopped_and_deleted(schedules: Schedules) -> None:
    days = [datetime.now(UTC).replace(microsecond=0) + timedelta(days=n) for n in (-3, -2, -1, 2)]
    made = schedules.run(
        *("create", schedules.package, "--name", "daily", "--every", "1d"),
        *("--start", days[0].isoformat(), "--end", days[3].isoformat(), "--max-concurrency", "10"),
        *("-p", "text=[[Index]] of [[ScheduledTime.2006-01-02]]", "--output", "json"),
    )
    assert made.code == 0, made.err

    wait_for(lambda: schedules.listed()[0]["num_runs"] == 3)
    schedules.command.down()
    schedules.command.up()

    (listed,) = schedules.listed()
    assert listed["schedule_id"] == made.json["schedule_id"]
    assert (listed["num_runs"], listed["trigger"]) == (3, "every 86400 s")
    today = [day + timedelta(days=1) for day in days[:3]]
    expected = [f"{n} of {day:%Y-%m-%d}" for n, day in enumerate(today, start=1)]
    assert schedules.texts() == expected

    assert "disabled" in schedules.run("disable", "daily").out
    assert schedules.listed()[0]["is_enabled"] is False
    assert "enabled" in schedules.run("enable", listed["schedule_id"][:8]).out
    assert "deleted" in schedules.run("delete", "daily").out
    assert schedules.listed() == []


def test_a_schedule_follows_the_newest_version_of_an_uploaded_pipeline(
    schedules: Schedules,
) -> None:
    create = ("create", "--pipeline", "greeting", "--every", "1h", "--disabled", "-o", "json")
    unknown = schedules.run(*create)
    client = schedules.connect()
    uploaded = client.upload_pipeline(schedules.package, pipeline_name="greeting")
    wrong = schedules.run(*create, "-p", "word=hello")

    made = schedules.run(*create, "-p", "text=hello")

    kept = client.get_recurring_run(made.json["schedule_id"]).pipeline_version_reference
    assert (kept.pipeline_id, kept.pipeline_version_id) == (uploaded.pipeline_id, None)
    assert (unknown.code, wrong.code) == (2, 2)
    assert "No pipeline 'greeting' has been uploaded" in unknown.err
    assert "Parameter 'word'" in wrong.err
    assert schedules.run("delete", "greeting").code == 0
