"""Ctrl-C, killed steps and a killed control plane: what was begun ends or goes on, once."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from kubeloop.testing.command_line import wait_for
from kubeloop.testing.image_folders import write_image_folder
from kubeloop.testing.laptop import Laptop, is_step
from kubeloop.testing.model_packages import write_shade_package

pytestmark = [pytest.mark.loop, pytest.mark.pinned]
LONG = 5000
"""Epochs that nobody waits for."""


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """One control plane for all cases: each shows that the state is usable after those before."""
    with Laptop(tmp_path_factory.mktemp("interruptions")) as laptop:
        laptop.up()
        yield laptop


@pytest.fixture(scope="module")
def model(laptop: Laptop) -> Path:
    return write_shade_package(laptop.folder / "model")


def interrupt(laptop: Laptop, pipeline: str, *, num_made: int, **parameters: object) -> str:
    """Press Ctrl-C once a step has made so many objects and their processes run.

    Returns:
        The failed task of the run, after checking that nothing is left of it.
    """
    command, run_id = laptop.start(pipeline, **parameters)
    laptop.wait_until_running(run_id, num_made=num_made)
    processes = laptop.processes_of(laptop.list_pods(run_id))
    command.interrupt()
    done = command.wait()
    assert done.code == 130, done
    assert f"Ending run {run_id}" in done.err
    assert "Traceback" not in done.out + done.err
    assert laptop.list_made(run_id) == []
    assert not any(process.is_running() for process in processes)
    assert all(is_step(pod) for pod in laptop.list_pods(run_id))
    run = laptop.describe(run_id)
    assert (run["state"], run["error"]) == ("FAILED", "The run was terminated.")
    return str(run["failed_task"])


def test_ctrl_c_while_tuning_deletes_experiment_trials_and_jobs(laptop: Laptop) -> None:
    source = str(laptop.images)
    task = interrupt(laptop, "tune", num_made=3, source=source, epochs=LONG)
    assert task == "tune-hyperparameters"


def test_ctrl_c_while_training_deletes_the_job(laptop: Laptop) -> None:
    source = str(laptop.images)
    assert interrupt(laptop, "train", num_made=1, source=source, epochs=LONG) == "train-model"


def test_ctrl_c_while_deploying_deletes_the_endpoint(laptop: Laptop, model: Path) -> None:
    # Of two replicas only one finds room, so that the step waits while a server runs.
    memory = str(psutil.virtual_memory().total * 2 // 3)
    task = interrupt(
        laptop,
        "deploy",
        num_made=1,
        model_uri=str(model),
        name="two",
        memory=memory,
        min_replicas=2,
    )
    assert task == "deploy-model"


def test_ctrl_c_while_ingesting_leaves_no_commit(laptop: Laptop) -> None:
    source = write_image_folder(laptop.folder / "many", dict.fromkeys("abc", 12))
    for image in list(source.rglob("*.png")):
        for copy in range(300):
            os.link(image, image.with_name(f"{image.stem}-{copy}.png"))
    command, run_id = laptop.start("ingest", source=str(source))
    command.read_until("[ingest-dataset] ")
    processes = laptop.processes_of(laptop.list_pods(run_id))
    command.interrupt()
    done = command.wait()
    assert done.code == 130, done
    assert "Traceback" not in done.out + done.err
    assert not any(process.is_running() for process in processes)
    assert laptop.describe(run_id)["failed_task"] == "ingest-dataset"
    laptop.check_use()


def test_ctrl_c_ends_a_run_that_prints_json_too(laptop: Laptop) -> None:
    num_runs = len(laptop.list_runs())
    arguments = ("-p", f"source={laptop.images}", "-p", f"epochs={LONG}")
    command = laptop.begin("run", "train.yaml", "-o", "json", *arguments)
    wait_for(lambda: len(laptop.list_runs()) > num_runs)
    command.interrupt()
    assert command.wait().code == 130
    run_id = laptop.list_runs()[0].run_id
    assert laptop.describe(run_id)["state"] == "FAILED"
    assert laptop.list_made(run_id) == []


def test_ctrl_c_while_starting_leaves_no_control_plane(tmp_path: Path) -> None:
    with Laptop(tmp_path) as laptop:
        command = laptop.begin("up", "--api-port", "0", "--kfp-port", "0", "--gateway-port", "0")
        wait_for(lambda: len(laptop.command.processes()) > 1)
        command.interrupt()
        assert command.wait().code == 130
        assert laptop.command.processes() == []


def run_with_killed_step(
    laptop: Laptop, pipeline: str, *, num_made: int, **parameters: object
) -> tuple[str, set[tuple[str, str]]]:
    """Kill the step once it has made so many objects; its retry must bring the run to its end.

    Returns:
        The run's id, and the objects that were there when the step was killed.
    """
    command, run_id = laptop.start(pipeline, **parameters)
    before: set[tuple[str, str]] = set()

    def has_made() -> bool:
        before.update(laptop.identify_made(run_id))
        return len(before) >= num_made

    wait_for(has_made)
    laptop.kill_step(run_id)
    done = command.wait()
    assert done.code == 0, done
    run = laptop.describe(run_id)
    assert (run["state"], run["failed_task"]) == ("SUCCEEDED", None)
    steps = [pod for pod in laptop.list_pods(run_id) if is_step(pod)]
    assert sum(pod.status.phase == "Failed" for pod in steps) == 1
    return run_id, before


def test_retried_training_step_finds_its_job(laptop: Laptop) -> None:
    run_id, before = run_with_killed_step(
        laptop, "train_retried", num_made=1, source=str(laptop.images), epochs=10
    )
    assert laptop.identify_made(run_id) == before
    (replica,) = (pod for pod in laptop.list_pods(run_id) if not is_step(pod))
    log = laptop.read_log(replica.metadata.name)
    assert [log.count(f"epoch={epoch} ") for epoch in (1, 2, 10)] == [1, 1, 1]
    assert "Resuming" not in log


def test_retried_tuning_step_finds_its_experiment(laptop: Laptop) -> None:
    run_id, before = run_with_killed_step(
        laptop, "tune_retried", num_made=3, source=str(laptop.images), epochs=3
    )
    after = laptop.list_made(run_id)
    kinds = [found["kind"] for found in after]
    assert (kinds.count("Experiment"), kinds.count("Trial")) == (1, 2)
    # The job of a finished trial is deleted, as Katib does; experiment and first trial stay.
    kept = {(o["metadata"]["name"], o["metadata"]["uid"]) for o in after}
    assert len(before & kept) >= 2


def test_retried_deployment_step_finds_its_endpoint(laptop: Laptop, model: Path) -> None:
    run_id, before = run_with_killed_step(
        laptop, "deploy_retried", num_made=1, model_uri=str(model), name="shades"
    )
    assert laptop.identify_made(run_id) == before
    image = laptop.images / "a" / "000.png"
    answer = laptop.command.call("predict", "shades", str(image))
    assert answer.code == 0, answer
    assert any(label in answer.out for label in ("dark", "light"))


def test_run_goes_on_after_its_control_plane_was_stopped(laptop: Laptop) -> None:
    command, run_id = laptop.start("tune", source=str(laptop.images), epochs=5)
    laptop.wait_until_running(run_id, num_made=3)
    before = find_experiment(laptop, run_id)
    laptop.command.down()
    assert follower_is_alone(laptop)
    laptop.up()
    assert laptop.wait_until_ended(run_id) == "SUCCEEDED"
    assert find_experiment(laptop, run_id) == before
    kinds = [found["kind"] for found in laptop.list_made(run_id)]
    assert kinds.count("Trial") == 2
    assert command.wait().code == 1


def follower_is_alone(laptop: Laptop) -> bool:
    """Whether `kubeloop run` is all that is left."""
    return all(" kubeloop.cli.main run " in line for line in laptop.command.processes())


def find_experiment(laptop: Laptop, run_id: str) -> str:
    """Uid of the one experiment of a run."""
    made = laptop.list_made(run_id)
    (uid,) = (found["metadata"]["uid"] for found in made if found["kind"] == "Experiment")
    return str(uid)


def test_run_goes_on_after_its_control_plane_was_killed(tmp_path: Path) -> None:
    with Laptop(tmp_path) as laptop:
        plane = laptop.up()
        command, run_id = laptop.start("train", source=str(laptop.images), epochs=12)
        command.read_until("epoch=2 ")
        before = laptop.identify_made(run_id)
        os.kill(plane["pid"], signal.SIGKILL)
        wait_for(lambda: follower_is_alone(laptop))
        laptop.up()
        assert laptop.wait_until_ended(run_id) == "SUCCEEDED"
        assert laptop.identify_made(run_id) == before
        (replica,) = (pod for pod in laptop.list_pods(run_id) if not is_step(pod))
        assert "Resuming from the checkpoint" in laptop.read_log(replica.metadata.name)
        followed = command.wait()
        assert followed.code == 1
        assert "the KFP API does not answer" in followed.err
        assert f"kubeloop runs {run_id}" in followed.err
        laptop.check_use()
