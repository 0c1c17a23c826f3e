"""A user asks why, debugs a task, compares runs: with the command, on a control plane."""

# KFP reads annotations that are no types to mypy.
# mypy: disable-error-code="no-untyped-def, valid-type, type-arg, no-any-return"

from __future__ import annotations

import json
import os
import pty
import runpy
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kfp import compiler

from kubeloop.testing.command_line import CommandLine, Outcome

pytestmark = pytest.mark.loop

PIPELINE = """\
from kfp import dsl

component = dsl.component(base_image="python:3.11", install_kfp_package=False)


@component
def make(n: int, data: dsl.Output[dsl.Dataset]) -> int:
    with open(data.path, "w") as file:
        file.write(str(list(range(n))))
    data.metadata["rows"] = n
    return n


@component
def total(data: dsl.Input[dsl.Dataset], scale: int, metrics: dsl.Output[dsl.Metrics]) -> int:
    import json

    print("rows", data.metadata["rows"])
    breakpoint()
    result = sum(json.load(open(data.path))) // scale
    metrics.log_metric("result", result)
    return result


@dsl.pipeline(name="sums")
def sums(n: int = 4, scale: int = 2, fast: dict = {"n": 3}):
    made = make(n=n)
    with dsl.If(made.outputs["Output"] > 2):
        total(data=made.outputs["data"], scale=scale)


@component
def double(n: int) -> int:
    return 2 * n


@dsl.pipeline(name="doubles")
def doubles(items: list = [1, 2, 3]):
    with dsl.ParallelFor(items) as n:
        double(n=n)


if __name__ == "__main__":
    compiler.Compiler().compile(sums, "sums.yaml")
"""
WITHOUT_BREAKPOINT = PIPELINE.replace("    breakpoint()\n", "")


class Terminal:
    """A command on a terminal of its own, in which a user types."""

    def __init__(self, arguments: list[str], *, folder: Path) -> None:
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kubeloop.cli.main", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=folder,
            env={**os.environ, "TERM": "dumb", "COLUMNS": "200"},
            start_new_session=True,
        )
        os.close(slave)
        self.shown = ""

    def wait_for(self, text: str, *, timeout_seconds: float = 60) -> str:
        """Until `text` is shown; returns what came up to it since the last call."""
        deadline = time.monotonic() + timeout_seconds
        while text not in self.shown:
            ready, _, _ = select.select([self._master], [], [], deadline - time.monotonic())
            assert ready, f"{text!r} was not shown: {self.shown}"
            try:
                self.shown += os.read(self._master, 65536).decode(errors="replace")
            except OSError as error:  # the command ended
                raise AssertionError(f"{text!r} was not shown: {self.shown}") from error
        before, self.shown = self.shown.split(text, 1)
        return before

    def type(self, line: str) -> None:
        """Type a line."""
        os.write(self._master, f"{line}\n".encode())

    def close(self) -> int:
        """Wait for the end; returns the exit code."""
        try:
            while os.read(self._master, 65536):
                pass
        except OSError:
            pass  # the command ended
        os.close(self._master)
        return self._process.wait(timeout=30)


class User:
    """Somebody with a control plane and a folder of pipelines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.command = CommandLine(folder / "state")

    def compile(self, source: str) -> None:
        """Write the pipeline's file and compile it."""
        path = self.folder / "pipeline.py"
        path.write_text(source)
        module = runpy.run_path(str(path))
        for name in ("sums", "doubles"):
            compiler.Compiler().compile(module[name], str(self.folder / f"{name}.yaml"))

    def run(self, *arguments: str) -> str:
        """Run the pipeline to its end; returns the run's id."""
        done = self.command.call("run", "sums.yaml", *arguments, "--output", "json")
        assert done.code == 0, done.err
        return str(done.json["run_id"])

    def why(self, run_id: str, task: str) -> dict[str, Any]:
        """What `runs why` says."""
        done = self.command.call("runs", "why", run_id[:13], task, "--output", "json")
        assert done.code == 0, done.err
        answer: dict[str, Any] = done.json
        return answer

    def debug(self, *arguments: str) -> Terminal:
        """Debug `total` on a terminal."""
        given = ["run", "sums.yaml", "--debug", "total", *arguments]
        return Terminal([*given, "--state", str(self.command.state)], folder=self.folder)


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    user = User(tmp_path_factory.mktemp("debugging"))
    user.compile(WITHOUT_BREAKPOINT)
    user.command.up()
    try:
        yield user
    finally:
        user.command.down()
        assert user.command.processes() == []


@pytest.fixture(scope="module")
def runs(user: User) -> list[str]:
    """A run, the same again, one with other input, and one of changed code."""
    found = [user.run(), user.run(), user.run("--fast")]
    user.compile(WITHOUT_BREAKPOINT.replace("// scale", "// scale + 1"))
    return [*found, user.run()]


def test_why_tells_hits_from_misses_and_what_changed(user: User, runs: list[str]) -> None:
    first, same, other_input, other_code = (user.why(run_id, "total") for run_id in runs)
    assert (first["verdict"], first["reasons"]) == ("missed", ["no earlier execution"])
    assert same["verdict"] == "hit"
    assert same["compared_with"]["run_id"] == runs[0]
    assert f"of run {runs[0]} made at" in same["reasons"][0]
    assert other_input["verdict"] == "missed"
    assert other_input["reasons"][0].startswith("input `data` changed content (sha256:")
    assert [change["part"] for change in other_input["changes"]] == [
        "input artifact data",
        "metadata of input artifact data",
    ]
    assert other_code["reasons"] == ["the component's code or command changed"]
    assert any("// scale + 1" in line for line in other_code["changes"][0]["diff"])


def test_runs_compare_side_by_side(user: User, runs: list[str]) -> None:
    page = user.folder / "comparison.html"
    names = [runs[0][:13], runs[2][:13]]
    compared = user.command.call("runs", "compare", *names, "--output", "json").json
    assert compared["metrics"] == [
        {"name": "total.metrics.result", "values": [3, 1], "differs": True}
    ]
    assert {"name": "n", "values": [None, 3], "differs": True} in compared["parameters"]
    done = user.command.call("runs", "compare", *names, "--output", "html", "--save", str(page))
    assert done.code == 0, done.err
    assert "total.metrics.result" in page.read_text()


def test_a_breakpoint_stops_in_the_users_file_with_the_real_inputs(user: User) -> None:
    user.compile(PIPELINE)
    terminal = user.debug("-p", "n=5", "-p", "scale=1")
    terminal.wait_for(f"{user.folder}/pipeline.py(20)total()")
    terminal.wait_for("(Pdb)")
    terminal.type("p data.metadata['rows'], scale, open(data.path).read()")
    assert "(5, 1, '[0, 1, 2, 3, 4]')" in terminal.wait_for("(Pdb)")
    terminal.type("c")
    assert "Output = 10" in terminal.wait_for("metrics:")
    assert terminal.close() == 0


def test_a_task_is_debugged_with_the_inputs_of_an_earlier_run(user: User, runs: list[str]) -> None:
    user.compile(PIPELINE)
    terminal = user.debug("--from-run", runs[0][:13])
    terminal.wait_for("(Pdb)")
    terminal.type("scale = 0")
    terminal.wait_for("(Pdb)")
    terminal.type("c")
    terminal.wait_for("ZeroDivisionError")
    assert terminal.close() == 1


def test_an_iteration_of_a_loop_is_debugged_by_its_number(user: User) -> None:
    debug = ("run", "doubles.yaml", "--debug", "double")
    first = user.command.call(*debug, "--output", "json")
    last = user.command.call(*debug, "--iteration", "2", "--output", "json")
    missing = user.command.call(*debug, "--iteration", "3")
    assert first.json["outputs"]["parameters"] == {"Output": 2}
    assert "this is iteration 0, and --iteration takes another: 0, 1, 2." in first.err
    assert last.json["outputs"]["parameters"] == {"Output": 6}
    assert missing.code == 2
    assert "no iteration '3'; those that ran are 0, 1, 2" in missing.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--debug", "totl"], "no task 'totl' that runs something; it has condition-1.total, make"),
        (["--debug", "total", "--context", "prod"], "Leave out --context"),
        (["--stop"], "go with --debug TASK"),
        (["--debug", "total", "--iteration", "1"], "is in no loop: leave out --iteration"),
    ],
)
def test_what_cannot_be_debugged_is_said(user: User, arguments: list[str], message: str) -> None:
    done = user.command.call("run", "sums.yaml", *arguments)
    assert done.code == 2
    assert message in done.err


def test_a_task_that_a_condition_leaves_out_is_not_debugged(user: User) -> None:
    done: Outcome = user.command.call("run", "sums.yaml", "--debug", "total", "-p", "n=1")
    assert done.code == 1
    assert "a condition was false" in done.err


def test_runs_are_named_by_the_start_of_their_id(user: User, runs: list[str]) -> None:
    done = user.command.call("runs", "logs", runs[0][:13], "total")
    assert done.out.splitlines() == ["rows 4"]
    cloned = user.command.call("runs", "clone", runs[0][:13], "-p", "scale=3", "-o", "json")
    assert cloned.json["state"] == "SUCCEEDED"
    assert cloned.json["parameters"]["scale"] == 3
    assert user.command.call("runs", "archive", cloned.json["run_id"][:13]).code == 0
    listed = user.command.call("runs", "-o", "json").json
    assert cloned.json["run_id"] not in json.dumps(listed)
    assert user.command.call("runs", "delete", cloned.json["run_id"][:13]).code == 0
    gone = user.command.call("runs", cloned.json["run_id"])
    assert gone.code == 2
    assert "not found" in gone.err
