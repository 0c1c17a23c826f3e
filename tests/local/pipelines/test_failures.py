"""Failing tasks: what is said, what is tried again, what is not run."""

# KFP reads annotations that are no types to mypy.
# mypy: disable-error-code="no-untyped-def, valid-type, type-arg, no-any-return, name-match"

from pathlib import Path
from typing import Any

from kfp import dsl

component = dsl.component(base_image="python:3.11", install_kfp_package=False)


@component
def same(value: int) -> int:
    return value


@component
def crash(value: int) -> int:
    print("about to crash")
    raise ValueError(f"refused {value}")


@component
def crash_until(counter: str, times: int) -> str:
    import os
    from pathlib import Path

    Path(counter).mkdir(exist_ok=True)
    tried = len(list(Path(counter).iterdir()))
    Path(counter, str(tried)).touch()
    if tried < times:
        raise RuntimeError(f"try {tried}")
    return os.environ["KFP_RETRY_INDEX"]


@dsl.container_component
def forget(value: dsl.OutputPath(int)):
    return dsl.ContainerSpec(image="busybox", command=["sh", "-c", "true"], args=[value])


@dsl.container_component
def write_text(text: str, value: dsl.OutputPath(int)):
    return dsl.ContainerSpec(
        image="busybox", command=["sh", "-c", 'printf %s "$0" > "$1"'], args=[text, value]
    )


@dsl.pipeline(name="crashing")
def crashing():
    before = same(value=1).set_caching_options(False)
    failed = crash(value=before.output)
    same(value=failed.output)


@dsl.pipeline(name="retrying")
def retrying(counter: str, times: int = 2):
    task = crash_until(counter=counter, times=times)
    task.set_retry(2, backoff_duration="0s")
    task.set_caching_options(False)


@dsl.pipeline(name="forgetting")
def forgetting():
    forget()


@dsl.pipeline(name="mistyped")
def mistyped():
    same(value=write_text(text="seven").outputs["value"])


def test_the_error_names_task_exit_code_and_last_lines(runner: Any) -> None:
    run = runner.run(crashing)
    assert run.state == "FAILED"
    assert "Task 'crash' failed with exit code 1" in run.error
    assert "about to crash" in run.error
    assert "ValueError: refused 1" in run.error
    assert run.task("crash")["error"]["message"] == run.error


def test_what_needs_a_failed_task_is_not_run(runner: Any) -> None:
    run = runner.run(crashing)
    assert run.states() == {
        "same": "SUCCEEDED",
        "crash": "FAILED",
        "same-2": "RUNTIME_STATE_UNSPECIFIED",
    }
    message = run.task("same-2")["status_metadata"]["message"]
    assert message == "not run: task 'crash' failed"


def test_older_clients_see_the_same_states(runner: Any) -> None:
    run = runner.run(crashing)
    shown = runner.client.get_run(run.run_id)
    details = {item.display_name: item for item in shown.run_details.task_details}
    assert shown.state == "FAILED"
    assert "exit code 1" in shown.error.message
    assert (details["same"].state, details["crash"].state) == ("SUCCEEDED", "FAILED")
    assert details["crash"].pod_name.startswith("crash-")


def test_a_failed_task_is_tried_again_as_its_policy_says(runner: Any, tmp_path: Path) -> None:
    run = runner.run(retrying, counter=str(tmp_path / "tries"))
    assert run.state == "SUCCEEDED", run.error
    assert run.output("crash-until") == "2"
    assert len(list((tmp_path / "tries").iterdir())) == 3
    history = [change["state"] for change in run.task("crash-until")["state_history"]]
    assert history == ["PENDING", "RUNNING"] * 3 + ["SUCCEEDED"]


def test_the_last_try_fails_the_task(runner: Any, tmp_path: Path) -> None:
    run = runner.run(retrying, counter=str(tmp_path / "tries"), times=9)
    assert run.state == "FAILED"
    assert "try 2" in run.error
    assert len(list((tmp_path / "tries").iterdir())) == 3


def test_a_retried_run_keeps_what_succeeded(runner: Any, tmp_path: Path) -> None:
    counter = tmp_path / "tries"
    run = runner.run(retrying, counter=str(counter), times=4)
    assert run.state == "FAILED"
    assert runner.http("POST", f"runs/{run.run_id}:retry").status_code == 200
    again = runner.wait(run.run_id)
    assert again.state == "SUCCEEDED", again.error
    assert again.output("crash-until") == "1"
    assert again.error == ""
    states = [change["state"] for change in again.json["state_history"]]
    assert states == ["PENDING", "RUNNING", "FAILED", "PENDING", "RUNNING", "SUCCEEDED"]


def test_a_retried_loop_runs_only_the_iterations_that_did_not_succeed(
    runner: Any, tmp_path: Path
) -> None:
    @dsl.container_component
    def need(folder: str, item: int, out: dsl.OutputPath(int)):
        script = 'echo . >> "$0/ran-$1"; test "$1" != 2 -o -e "$0/ready" && echo "$1" > "$2"'
        return dsl.ContainerSpec(
            image="busybox", command=["sh", "-c", script], args=[folder, item, out]
        )

    @dsl.pipeline(name="looping")
    def looping(folder: str):
        with dsl.ParallelFor([1, 2, 3], parallelism=1) as item:
            need(folder=folder, item=item).set_caching_options(False)

    run = runner.run(looping, folder=str(tmp_path))
    assert run.state == "FAILED"
    assert "for-loop-2.2" not in run.states()
    (tmp_path / "ready").touch()
    runner.http("POST", f"runs/{run.run_id}:retry")
    again = runner.wait(run.run_id)
    assert again.state == "SUCCEEDED", again.error
    counts = [len((tmp_path / f"ran-{item}").read_text().split()) for item in (1, 2, 3)]
    assert counts == [1, 2, 1]


def test_a_retried_run_runs_its_exit_task_again(runner: Any, tmp_path: Path) -> None:
    @dsl.container_component
    def leave(folder: str, name: str):
        script = 'echo . >> "$0/$1"; test "$1" = exit -o -e "$0/ready"'
        return dsl.ContainerSpec(image="busybox", command=["sh", "-c", script], args=[folder, name])

    @dsl.pipeline(name="leaving")
    def leaving(folder: str):
        final = leave(folder=folder, name="exit").set_caching_options(False)
        with dsl.ExitHandler(final):
            leave(folder=folder, name="body").set_caching_options(False)

    run = runner.run(leaving, folder=str(tmp_path))
    assert run.state == "FAILED"
    (tmp_path / "ready").touch()
    runner.http("POST", f"runs/{run.run_id}:retry")
    assert runner.wait(run.run_id).state == "SUCCEEDED"
    counts = {name: len((tmp_path / name).read_text().split()) for name in ("body", "exit")}
    assert counts == {"body": 2, "exit": 2}


def test_a_run_that_succeeded_is_not_retried(runner: Any, tmp_path: Path) -> None:
    run = runner.run(retrying, counter=str(tmp_path / "tries"), times=0)
    refused = runner.http("POST", f"runs/{run.run_id}:retry")
    assert refused.status_code == 400
    assert "SUCCEEDED" in refused.json()["message"]


def test_a_missing_output_fails_the_task_by_name(runner: Any) -> None:
    run = runner.run(forgetting)
    assert run.state == "FAILED"
    assert "Task 'forget' failed" in run.error
    assert "without writing output parameter 'value'" in run.error


def test_an_output_of_the_wrong_type_fails_the_task_that_wrote_it(runner: Any) -> None:
    run = runner.run(mistyped)
    assert run.states()["write-text"] == "FAILED"
    assert "output parameter 'value': 'seven' is not a whole number" in run.error


def test_a_deleted_pod_fails_its_task(runner: Any) -> None:
    @dsl.pipeline(name="sleeping")
    def sleeping():
        rest().set_caching_options(False)

    run_id = runner.submit(sleeping)
    runner.until(lambda: runner.view(run_id).states().get("rest") == "RUNNING")
    runner.until(lambda: bool(runner.view(run_id).task("rest")["pods"][0].get("uid")))
    name = runner.view(run_id).task("rest")["pods"][0]["name"]
    runner.delete_pod(name)
    run = runner.wait(run_id)
    assert run.state == "FAILED"
    assert "Task 'rest' failed" in run.error


@dsl.container_component
def rest():
    return dsl.ContainerSpec(image="busybox", command=["sleep", "600"])
