"""A laptop for tests of the whole: a state folder, small images, small pipelines, the command.

What runs is looked at through the Kubernetes API with its official client, and on the machine.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import psutil
from kubernetes import client, config

from kubeloop.local.state import StateFolder
from kubeloop.pipelines.runs import Run, connect, list_runs, wait
from kubeloop.testing.command_line import Command, CommandLine, Outcome, wait_for
from kubeloop.testing.image_folders import write_image_folder
from kubeloop.testing.small_pipelines import compile_into

Manifest = dict[str, Any]

_RUN_LABEL = "pipeline/runid"
_STEP_LABEL = "pipelines.kubeflow.org/v2_component"
_MADE_BY_STEPS = (
    ("kubeflow.org", "v1", "pytorchjobs"),
    ("kubeflow.org", "v1beta1", "experiments"),
    ("kubeflow.org", "v1beta1", "trials"),
    ("serving.kserve.io", "v1beta1", "inferenceservices"),
)


class Laptop:
    """One folder with everything in it; `up` starts the control plane, leaving stops it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.command = CommandLine(folder / "state")
        self._started: list[Command] = []
        self.images = write_image_folder(folder / "images", dict.fromkeys("abc", 12))
        compile_into(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End what a test has left running."""
        for command in self._started:
            command.kill()
        self.down()

    def up(self) -> dict[str, Any]:
        """Start the control plane."""
        return self.command.up()

    def down(self) -> None:
        """Stop it; nothing that it started may be left."""
        self.command.down()
        assert self.command.processes() == []

    def begin(self, *arguments: str) -> Command:
        """Start a command; it ends with the laptop."""
        self._started.append(self.command.start(*arguments))
        return self._started[-1]

    def start(self, pipeline: str, **parameters: Any) -> tuple[Command, str]:
        """Start `kubeloop run` of a small pipeline; returns it and the id of its run."""
        command = self.begin("run", f"{pipeline}.yaml", *_assign(parameters))
        return command, command.read_until("Run ").split()[1]

    def run(self, pipeline: str, **parameters: Any) -> tuple[Outcome, str]:
        """Run a small pipeline to its end; returns how the command ended and the id of the run."""
        done = self.command.call("run", f"{pipeline}.yaml", *_assign(parameters))
        (line, *_) = (line for line in done.out.splitlines() if "Run " in line)
        return done, line.split()[1]

    def fail(self, pipeline: str, **parameters: Any) -> tuple[str, Manifest]:
        """Run a pipeline that must fail, as a user sees it, and leave nothing running.

        Returns:
            What the command says last, and what `kubeloop runs` knows of the run.
        """
        done, run_id = self.run(pipeline, **parameters)
        assert done.code == 1, done
        run = self.describe(run_id)
        assert run["state"] == "FAILED"
        assert f"Run {run_id} ended FAILED in task {run['failed_task']}:\n" in done.err
        assert "kubeloop.errors" not in done.out + done.err, "our own error came as a traceback"
        self.wait_until_idle(run_id)
        return done.err.split(":\n", 1)[1], run

    def check_use(self) -> None:
        """Run something small that must succeed."""
        done, run_id = self.run("ingest", source=str(self.images))
        assert done.code == 0, done
        assert self.describe(run_id)["state"] == "SUCCEEDED"

    def describe(self, run_id: str) -> Manifest:
        """A run as `kubeloop runs` has it."""
        done = self.command.call("runs", run_id, "--output", "json")
        assert done.code == 0, done.err
        run: Manifest = done.json
        return run

    def list_runs(self) -> list[Run]:
        """All runs, newest first, as KFP's client has them."""
        return list_runs(self.connect_pipelines())

    def wait_until_ended(self, run_id: str) -> str:
        """Until a run has ended; returns its state."""
        return str(wait(self.connect_pipelines(), run_id, timeout_seconds=120).state)

    def list_made(self, run_id: str) -> list[Manifest]:
        """Jobs, experiments, trials and endpoints that the steps of a run made."""
        found: list[Manifest] = []
        with self._connect() as api:
            objects = client.CustomObjectsApi(api)
            for group, version, plural in _MADE_BY_STEPS:
                found += objects.list_namespaced_custom_object(
                    group, version, "default", plural, label_selector=f"{_RUN_LABEL}={run_id}"
                )["items"]
        return found

    def identify_made(self, run_id: str) -> set[tuple[str, str]]:
        """Name and uid of those."""
        return {(o["metadata"]["name"], o["metadata"]["uid"]) for o in self.list_made(run_id)}

    def list_pods(self, run_id: str) -> list[Any]:
        """Pods of a run: those of its steps, and those of what they made."""
        with self._connect() as api:
            pods = client.CoreV1Api(api).list_namespaced_pod(
                "default", label_selector=f"{_RUN_LABEL}={run_id}"
            )
        return list(pods.items)

    def delete_endpoint(self, name: str) -> None:
        """Delete an InferenceService."""
        with self._connect() as api:
            client.CustomObjectsApi(api).delete_namespaced_custom_object(
                *_MADE_BY_STEPS[-1][:2], "default", _MADE_BY_STEPS[-1][2], name
            )

    def read_log(self, pod: str) -> str:
        """What a pod printed."""
        with self._connect() as api:
            return str(client.CoreV1Api(api).read_namespaced_pod_log(pod, "default"))

    def processes_of(self, pods: list[Any]) -> list[psutil.Process]:
        """Processes that work in the folders of these pods."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):  # it ends
                folder = process.cwd()
                if any(pod.metadata.uid in folder for pod in pods):
                    found.append(process)
        return found

    def wait_until_running(self, run_id: str, *, num_made: int) -> None:
        """Until steps have made so many objects, and a process of theirs runs."""

        def is_running() -> bool:
            made = [pod for pod in self.list_pods(run_id) if not is_step(pod)]
            return len(self.list_made(run_id)) >= num_made and bool(self.processes_of(made))

        wait_for(is_running)

    def wait_until_idle(self, run_id: str) -> None:
        """Until no process of a run is left, endpoints aside."""

        def is_idle() -> bool:
            pods = [pod for pod in self.list_pods(run_id) if not is_predictor(pod)]
            return not self.processes_of(pods)

        wait_for(is_idle)

    def kill_step(self, run_id: str) -> None:
        """Kill the processes of the step that runs."""
        steps = [pod for pod in self.list_pods(run_id) if is_step(pod)]
        killed = self.processes_of(steps)
        assert killed
        for process in killed:
            process.kill()

    def connect_pipelines(self) -> Any:  # Any: kfp.Client
        endpoints = StateFolder(self.command.state).read_endpoints()
        assert endpoints is not None
        return connect(host=endpoints.kfp_url, token=endpoints.token)

    @contextlib.contextmanager
    def _connect(self) -> Iterator[client.ApiClient]:
        kubeconfig = str(self.command.state / "kubeconfig")
        with config.new_client_from_config(config_file=kubeconfig) as api:
            yield api


def is_step(pod: Any) -> bool:
    """Whether KFP runs this pod, and not something that a step made."""
    return _STEP_LABEL in pod.metadata.labels


def is_predictor(pod: Any) -> bool:
    """Whether the pod belongs to an endpoint."""
    return "serving.kserve.io/inferenceservice" in pod.metadata.labels


def _assign(parameters: dict[str, Any]) -> list[str]:
    texts = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in parameters.items()
    }
    return [part for name, text in texts.items() for part in ("-p", f"{name}={text}")]
