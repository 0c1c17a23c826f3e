"""Runs that are terminated, deleted, or outlive the engine that drives them."""

# KFP reads annotations that are no types to mypy.
# mypy: disable-error-code="no-untyped-def, valid-type, type-arg, no-any-return, name-match"

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from kubeloop.local.api.resources import JOBS, PODS
from kubeloop.testing.pipelines import running_pipelines
from kubeloop.testing.processes import is_alive
from kubeloop.testing.waiting import wait_until


@dsl.container_component
def rest(folder: str):
    script = 'touch "$0/$$$$"; exec sleep 600'
    return dsl.ContainerSpec(image="busybox", command=["sh", "-c", script], args=[folder])


@dsl.container_component
def wait_for_file(marker: str, path: str, number: int, out: dsl.OutputPath(int)):
    script = 'echo "$2" >> "$0"; while ! [ -e "$1" ]; do sleep 0.02; done; echo $(($2 + 1)) > "$3"'
    return dsl.ContainerSpec(
        image="busybox", command=["sh", "-c", script], args=[marker, path, number, out]
    )


@dsl.container_component
def increase(marker: str, number: int, out: dsl.OutputPath(int)):
    script = 'echo "$1" >> "$0"; echo $(($1 + 1)) > "$2"'
    return dsl.ContainerSpec(
        image="busybox", command=["sh", "-c", script], args=[marker, number, out]
    )


@dsl.pipeline(name="resting")
def resting(folder: str):
    first = rest(folder=folder).set_caching_options(False)
    rest(folder=folder).after(first).set_caching_options(False)
    with dsl.ParallelFor([1, 2]) as _:
        rest(folder=folder).set_caching_options(False)


@dsl.pipeline(name="surviving")
def surviving(marker: str, path: str) -> int:
    first = increase(marker=marker, number=1)
    second = wait_for_file(marker=marker, path=path, number=first.outputs["out"])
    with dsl.ParallelFor([10, 20]) as number:
        increase(marker=marker, number=number).after(second)
    third = increase(marker=marker, number=second.outputs["out"])
    for task in (first, second, third):
        task.set_caching_options(False)
    return third.outputs["out"]


def _wait_for_pods(runner: Any, run_id: str, number: int) -> list[str]:
    """Wait until so many Pods of a run are running; answers the names of all of the run."""

    async def names(phase: str = "") -> list[str]:
        client = runner.stage.client
        selector = f"pipeline/runid={run_id}"
        pods = (await client.list(PODS, namespace="default", label_selector=selector)).items
        return [
            pod["metadata"]["name"] for pod in pods if not phase or pod["status"]["phase"] == phase
        ]

    async def are_running() -> bool:
        return len(await names("Running")) == number

    runner.stage.call(wait_until(are_running, timeout_seconds=20))
    return list(runner.stage.call(names()))


def test_terminating_a_run_ends_its_processes_and_its_state(runner: Any, tmp_path: Path) -> None:
    run_id = runner.submit(resting, folder=str(tmp_path))
    _wait_for_pods(runner, run_id, 3)
    runner.until(lambda: len(list(tmp_path.iterdir())) == 3)
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert all(is_alive(pid) for pid in pids)
    runner.client.terminate_run(run_id)
    assert runner.view(run_id).state in ("CANCELING", "FAILED")
    run = runner.wait(run_id)
    assert (run.state, run.error) == ("FAILED", "The run was terminated.")
    assert not any(is_alive(pid) for pid in pids)
    assert run.states()["rest"] == "FAILED"
    assert run.states()["rest-2"] == "RUNTIME_STATE_UNSPECIFIED"
    history = [change["state"] for change in run.json["state_history"]]
    assert history == ["PENDING", "RUNNING", "CANCELING", "FAILED"]
    again = runner.http("POST", f"runs/{run_id}:terminate")
    assert again.status_code == 400
    assert "Row not found" in again.json()["message"]


def test_jobs_that_a_terminated_run_left_are_deleted(runner: Any, tmp_path: Path) -> None:
    stage = runner.stage
    run_id = runner.submit(resting, folder=str(tmp_path))
    _wait_for_pods(runner, run_id, 3)
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    for name, label in (("left", run_id), ("other", "another-run")):
        metadata = {"name": name, "namespace": "default", "labels": {"pipeline/runid": label}}
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata}
        stage.call(stage.client.create({**job, "spec": {"template": template}}))
    runner.client.terminate_run(run_id)
    runner.wait(run_id)

    async def only_other_is_left() -> bool:
        jobs = await stage.client.list(JOBS, namespace="default")
        return [job["metadata"]["name"] for job in jobs.items] == ["other"]

    stage.call(wait_until(only_other_is_left))


def test_a_deleted_run_is_forgotten_with_its_pods(runner: Any, tmp_path: Path) -> None:
    run_id = runner.submit(resting, folder=str(tmp_path))
    names = set(_wait_for_pods(runner, run_id, 3))
    runner.until(lambda: len(list(tmp_path.iterdir())) == 3)
    runner.client.delete_run(run_id)
    assert runner.http("GET", f"runs/{run_id}").status_code == 404
    runner.until(lambda: not names & set(runner.stage.pod_names()))
    assert not any(is_alive(int(path.name)) for path in tmp_path.iterdir())


def test_a_restarted_engine_follows_the_running_pod(
    tmp_path: Path, make_runner: Callable[[Any], Any]
) -> None:
    marker, path = tmp_path / "marker", tmp_path / "go"
    with running_pipelines(tmp_path / "stage") as stage:
        runner = make_runner(stage)
        run_id = _submit_surviving(runner, marker, path)
        stage.stop_engine()
        path.touch()
        stage.start_engine()
        run = runner.wait(run_id)
        assert run.state == "SUCCEEDED", run.error
        assert run.output("") == 4
        assert sorted(marker.read_text().split()) == ["1", "10", "2", "20", "3"]
        assert len(run.task("wait-for-file")["pods"]) == 1


def test_a_pod_that_ended_while_the_engine_was_away_is_not_run_again(
    tmp_path: Path, make_runner: Callable[[Any], Any]
) -> None:
    marker, path = tmp_path / "marker", tmp_path / "go"
    with running_pipelines(tmp_path / "stage") as stage:
        runner = make_runner(stage)
        run_id = _submit_surviving(runner, marker, path)
        stage.stop_engine()
        path.touch()
        runner.until(lambda: not stage.pod_names(phase="Running"))
        stage.start_engine()
        run = runner.wait(run_id)
        assert run.state == "SUCCEEDED", run.error
        assert sorted(marker.read_text().split()) == ["1", "10", "2", "20", "3"]


def _submit_surviving(runner: Any, marker: Path, path: Path) -> str:
    """Start a run and wait until its second step has begun to wait for `path`."""
    run_id: str = runner.submit(surviving, marker=str(marker), path=str(path))
    runner.until(lambda: marker.exists() and marker.read_text() == "1\n2\n")
    return run_id


@pytest.mark.parametrize("end", ["shut down", "killed", "deleted"])
def test_a_task_whose_pod_was_lost_runs_again_once_in_a_new_folder(
    tmp_path: Path, make_runner: Callable[[Any], Any], end: str
) -> None:
    marker, path = tmp_path / "marker", tmp_path / "go"
    with running_pipelines(tmp_path / "stage") as stage:
        runner = make_runner(stage)
        run_id = _submit_surviving(runner, marker, path)
        runner.until(lambda: len(stage.pod_names(phase="Running")) == 1)
        (name,) = stage.pod_names(phase="Running")
        before = stage.call(stage.client.get(PODS, name, namespace="default"))
        stage.stop_engine()
        stage.stop_kubelet()
        if end == "killed":  # the last that was written is that the Pod runs
            status = {"status": before["status"]}
            patch = stage.client.patch(
                PODS, name, namespace="default", body=status, subresource="status"
            )
            stage.call(patch)
        elif end == "deleted":
            stage.call(stage.client.delete(PODS, name, namespace="default", grace_period_seconds=0))
        stage.start_kubelet()
        stage.start_engine()
        runner.until(lambda: marker.read_text() == "1\n2\n2\n")
        path.touch()
        run = runner.wait(run_id)
        assert run.state == "SUCCEEDED", run.error
        assert run.output("") == 4
        assert sorted(marker.read_text().split()) == ["1", "10", "2", "2", "20", "3"]
        folder = stage.pipeline_root / "surviving" / run_id / "wait-for-file"
        assert len(list(folder.iterdir())) == 2


def test_runs_go_on_after_a_restart_within_the_limit_of_active_pods(
    tmp_path: Path, make_runner: Callable[[Any], Any]
) -> None:
    pids = tmp_path / "pids"
    pids.mkdir()
    with running_pipelines(tmp_path / "stage", max_active_pods=1) as stage:
        runner = make_runner(stage)
        first = runner.submit(resting, folder=str(pids))
        _wait_for_pods(runner, first, 1)
        second = runner.submit(resting, folder=str(pids))
        stage.stop_engine()
        stage.start_engine()
        assert {runner.view(run).state for run in (first, second)} <= {"PENDING", "RUNNING"}
        assert len(stage.pod_names()) == 1
        for run in (first, second):
            runner.client.terminate_run(run)
        assert {runner.wait(run).state for run in (first, second)} == {"FAILED"}
        assert len(list(pids.iterdir())) == 1


def test_independent_tasks_run_at_the_same_time(tmp_path: Path, runner: Any) -> None:
    @dsl.container_component
    def meet(folder: str, name: str, other: str):
        script = 'touch "$0/$1"; while ! [ -e "$0/$2" ]; do sleep 0.01; done'
        return dsl.ContainerSpec(
            image="busybox", command=["sh", "-c", script], args=[folder, name, other]
        )

    @dsl.pipeline(name="meeting")
    def meeting(folder: str):
        meet(folder=folder, name="a", other="b")
        meet(folder=folder, name="b", other="a")

    assert runner.run(meeting, folder=str(tmp_path)).state == "SUCCEEDED"
