import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from kubeloop.cli.assignments import resolve_path
from kubeloop.cli.main import run
from kubeloop.cli.progress import LineView, StepLogs, find_cause
from kubeloop.cli.run_logs import find_tasks, list_pods, read_lines
from kubeloop.errors import InputError, PermanentError
from kubeloop.pipelines.run_control import find_run
from kubeloop.pipelines.runs import Run, RunState, Task


@pytest.mark.parametrize("given", ["photos/", "./photos", "../here/photos", "~/here/photos"])
def test_paths_in_parameters_become_absolute(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "here" / "photos"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_path(given) == str(folder)


@pytest.mark.parametrize(
    "given", ["photos", "s3://bucket/photos", "a/b", "/photos", 3, {"a": "./"}]
)
def test_what_may_be_no_path_stays(
    given: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve_path(given) == given


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        ("Task 'a' failed: its Pod was deleted.", "Task 'a' failed: its Pod was deleted."),
        ("Its last lines:\n  events\nError: No model.\n", "No model."),
        ("Traceback\n  File\nValueError: bad", "ValueError: bad"),
    ],
)
def test_cause_is_the_last_line_of_an_error(error: str, cause: str) -> None:
    assert find_cause(error) == cause


class NoLogs(StepLogs):
    """Steps that print nothing."""

    def __init__(self) -> None:
        super().__init__(None, namespace="default")

    def read_new(self, run_id: str) -> list[tuple[str, str]]:
        """Nothing."""
        return []


def test_iterations_of_a_loop_are_told_once_each() -> None:
    console = Console(file=io.StringIO())
    tasks = (
        Task(name="train", task_id="1", state=RunState.SUCCEEDED),
        Task(name="train", task_id="2", state=RunState.RUNNING),
    )
    run = Run(run_id="r", name="n", state=RunState.RUNNING, tasks=tasks)

    view = LineView(console, NoLogs())
    view.show(run)
    view.show(run)

    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == "train: SUCCEEDED\ntrain: RUNNING\n"


class Runs:
    """KFP's client, with runs by id and name."""

    def __init__(self, **names: str) -> None:
        self._names = names

    def list_runs(self, *, filter: str, **_: Any) -> Any:  # noqa: A002  # KFP's name
        (predicate,) = json.loads(filter)["predicates"]
        key, text = predicate["key"], predicate["stringValue"]
        found = [
            parse_found(run_id, name)
            for run_id, name in self._names.items()
            if (text in run_id if key == "run_id" else text == name)
        ]
        return SimpleNamespace(runs=found)


def parse_found(run_id: str, name: str) -> Any:
    fields = ("state", "created_at", "finished_at", "error", "run_details", "runtime_config")
    rest = dict.fromkeys((*fields, "storage_state", "experiment_id"))
    return SimpleNamespace(run_id=run_id, display_name=name, **rest)


def test_a_run_is_found_by_the_start_of_its_id_or_its_name() -> None:
    client = Runs(abc1="first", abd2="second", xab3="abc1")
    assert find_run(client, "abd") == "abd2"
    assert find_run(client, "ABC1") == "abc1"
    assert find_run(client, "second") == "abd2"
    full = "0f3c9a54-2b1e-4c57-9a53-0d9e3c2f7b11"
    assert find_run(client, full) == full


def test_a_start_that_several_runs_have_names_them() -> None:
    with pytest.raises(InputError, match=r"start of 2 run ids; .*abc1 \(first\), abd2 \(second\)"):
        find_run(Runs(abc1="first", abd2="second"), "ab")


def test_an_unknown_run_is_named() -> None:
    with pytest.raises(InputError, match="No run has the id or name 'zz'"):
        find_run(Runs(abc1="first"), "zz")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ([], "runs list"),
        (["--limit", "3"], "runs list"),
        (["0f3c"], "runs show"),
        (["why", "0f3c", "t"], "runs why"),
    ],
)
def test_the_command_that_is_left_out_is_list_or_show(
    given: list[str], meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def note(*_: object, **__: object) -> None:
        seen.append(sys._getframe(1).f_code.co_name.strip("_"))
        raise PermanentError("stop")

    monkeypatch.setattr("kubeloop.cli.options.Session.open", note)
    assert run(["runs", *given, "--state", str(tmp_path)]) == 1
    assert seen == [meant.removeprefix("runs ")]


def test_pods_of_a_cluster_are_found_below_the_task_without_its_drivers() -> None:
    tasks = (
        Task(name="train", state=RunState.SUCCEEDED, task_id="1", child_ids=("2", "3")),
        Task(name="train-driver", state=RunState.SUCCEEDED, task_id="2", pod_name="w-driver-1"),
        Task(name="executor", state=RunState.SUCCEEDED, task_id="3", child_pods=("w-impl-2",)),
    )
    found = Run(run_id="r", name="r", state=RunState.SUCCEEDED, tasks=tasks)
    assert list_pods(found, tasks[0]) == ["w-impl-2"]


def test_a_step_comes_before_a_pipeline_of_its_name() -> None:
    root = Task(name="t", state=RunState.SUCCEEDED, task_id="1", is_group=True, child_ids=("2",))
    step = Task(name="t", state=RunState.SUCCEEDED, task_id="2", pod_name="pod")
    found = Run(run_id="r", name="r", state=RunState.SUCCEEDED, tasks=(root, step))
    assert find_tasks(found, "t") == [step]
    with pytest.raises(InputError, match="has no task 'u'; it has t"):
        find_tasks(found, "u")


def test_lines_of_a_stream_are_whole_whatever_its_pieces() -> None:
    assert list(read_lines(iter([b"a", b"b\nc", "ü\nd".encode()[:2], "ü\nd".encode()[2:]]))) == [
        "ab",
        "cü",
        "d",
    ]
