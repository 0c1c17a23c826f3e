"""Runs that are terminated, deleted, or outlive the engine that drives them."""

# KFP reads annotations that are no types to mypy.
# mypy: disable-error-code="no-untyped-def, valid-type, type-arg, no-any-return, name-match"

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl
from kubeloop.local.api.resources import CONFIG_MAPS, JOBS, PODS
from kubeloop.testing.pipelines import running_pipelines
from kubeloop.testing.waiting import wait_until


@dsl.container_component
def rest(out: dsl.OutputPath(int)):
    return dsl.ContainerSpec(
        image="busybox", command=["sh", "-c", 'echo 1 > "$0"; exec sleep 600'], args=[out]
    )


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
def resting():
    first = rest().set_caching_options(False)
    rest().after(first).set_caching_options(False)
    with dsl.ParallelFor([1, 2]) as _:
        rest().set_caching_options(False)


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


def _is_alive(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_terminating_a_run_ends_its_processes_and_its_state(
    runner: Any,
) -> None:
    kubelet = runner.stage.kubelet
    run_id = runner.submit(resting)
    runner.until(lambda: len(kubelet.live_processes) == 3)
    pids = kubelet.live_processes
    runner.client.terminate_run(run_id)
    assert runner.view(run_id).state in ("CANCELING", "FAILED")
    run = runner.wait(run_id)
    assert (run.state, run.error) == ("FAILED", "The run was terminated.")
    assert not any(_is_alive(pid) for pid in pids)
    assert run.states()["rest"] == "FAILED"
    assert run.states()["rest-2"] == "RUNTIME_STATE_UNSPECIFIED"
    history = [change["state"] for change in run.json["state_history"]]
    assert history == ["PENDING", "RUNNING", "CANCELING", "FAILED"]
    again = runner.http("POST", f"runs/{run_id}:terminate")
    assert again.status_code == 400
    assert "Row not found" in again.json()["message"]


def test_jobs_that_a_terminated_run_left_are_deleted(runner: Any) -> None:
    stage = runner.stage
    run_id = runner.submit(resting)
    runner.until(lambda: len(stage.kubelet.live_processes) == 3)
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    for name, label in (("left", run_id), ("other", "another-run")):
        metadata = {"name": name, "namespace": "default", "labels": {"pipeline/runid": label}}
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata}
        stage.call(stage.client.create({**job, "spec": {"template": template}}))
    runner.client.terminate_run(run_id)
    runner.wait(run_id)

    async def names() -> list[str]:
        jobs = await stage.client.list(JOBS, namespace="default")
        return [job["metadata"]["name"] for job in jobs.items]

    async def only_other() -> bool:
        return await names() == ["other"]

    stage.call(wait_until(only_other))


def test_a_deleted_run_is_forgotten_with_its_pods(runner: Any) -> None:
    stage = runner.stage
    run_id = runner.submit(resting)
    runner.until(lambda: len(stage.kubelet.live_processes) == 3)
    runner.client.delete_run(run_id)
    assert runner.http("GET", f"runs/{run_id}").status_code == 404

    async def is_clean() -> bool:
        pods = await stage.client.list(
            PODS, namespace="default", label_selector=f"pipeline/runid={run_id}"
        )
        return not pods.items

    stage.call(wait_until(is_clean))
    runner.until(lambda: not stage.kubelet.live_processes)


def test_a_restarted_engine_follows_the_running_pod(
    tmp_path: Path, make_runner: Callable[[Any], Any]
) -> None:
    marker, path = tmp_path / "marker", tmp_path / "go"
    with running_pipelines(tmp_path / "stage") as stage:
        runner = make_runner(stage)
        run_id = runner.submit(surviving, marker=str(marker), path=str(path))
        runner.until(lambda: marker.exists() and marker.read_text() == "1\n2\n")
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
        run_id = runner.submit(surviving, marker=str(marker), path=str(path))
        runner.until(lambda: marker.exists() and marker.read_text() == "1\n2\n")
        stage.stop_engine()
        path.touch()
        runner.until(lambda: not stage.kubelet.live_processes)
        stage.start_engine()
        run = runner.wait(run_id)
        assert run.state == "SUCCEEDED", run.error
        assert sorted(marker.read_text().split()) == ["1", "10", "2", "20", "3"]


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_task_whose_pod_was_lost_runs_again_in_a_new_folder(
    tmp_path: Path, make_runner: Callable[[Any], Any], is_deleted: bool
) -> None:
    marker, path = tmp_path / "marker", tmp_path / "go"
    with running_pipelines(tmp_path / "stage") as stage:
        runner = make_runner(stage)
        run_id = runner.submit(surviving, marker=str(marker), path=str(path))
        runner.until(lambda: marker.exists() and marker.read_text() == "1\n2\n")
        stage.stop_engine()
        if is_deleted:
            stage.call(_delete_pod(stage, "wait-for-file"))
        else:
            stage.call(stage.kubelet.lose_all())
        path.touch()
        stage.start_engine()
        run = runner.wait(run_id)
        assert run.state == "SUCCEEDED", run.error
        assert run.output("") == 4
        assert sorted(marker.read_text().split()) == ["1", "10", "2", "2", "20", "3"]
        folder = stage.pipeline_root / "surviving" / run_id / "wait-for-file"
        assert len(list(folder.iterdir())) == 2


async def _delete_pod(stage: Any, task: str) -> None:
    async def names() -> list[str]:
        pods = await stage.client.list(PODS, namespace="default")
        return [
            pod["metadata"]["name"]
            for pod in pods.items
            if pod["metadata"]["annotations"]["kubeloop.dev/task"] == task
        ]

    async def is_gone() -> bool:
        return not await names()

    for name in await names():
        await stage.client.delete(PODS, name, namespace="default", grace_period_seconds=1)
    await wait_until(is_gone)


def test_a_run_submitted_before_a_restart_runs_after_it(
    tmp_path: Path, make_runner: Callable[[Any], Any]
) -> None:
    with running_pipelines(tmp_path / "stage", max_active_pods=1) as stage:
        runner = make_runner(stage)
        run_id = runner.submit(resting)
        runner.until(lambda: len(stage.kubelet.live_processes) == 1)
        second = runner.submit(resting)
        stage.stop_engine()
        stage.start_engine()
        assert {runner.view(run_id).state, runner.view(second).state} <= {"PENDING", "RUNNING"}
        assert len(stage.kubelet.started) == 1
        runner.client.terminate_run(run_id)
        runner.client.terminate_run(second)
        assert runner.wait(run_id).state == "FAILED"
        assert runner.wait(second).state == "FAILED"
        assert len(stage.kubelet.started) == 1


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


def test_a_run_leaves_other_objects_alone(runner: Any) -> None:
    stage = runner.stage
    before = len(stage.call(stage.client.list(CONFIG_MAPS)).items)
    runner.client.terminate_run(runner.submit(resting))
    assert len(stage.call(stage.client.list(CONFIG_MAPS)).items) == before
