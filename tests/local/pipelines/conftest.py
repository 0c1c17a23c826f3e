"""A KFP API with an engine behind it, and KFP's own client to submit what a test compiles."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import kfp
import pytest
from kfp import compiler

from kubeloop.local.api.resources import PODS
from kubeloop.testing.pipelines import TOKEN, PipelinesStage, running_pipelines
from kubeloop.testing.waiting import wait_until

RUN_SECONDS = 60.0
POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run as the API shows it."""

    json: dict[str, Any]

    @property
    def run_id(self) -> str:
        return str(self.json["run_id"])

    @property
    def state(self) -> str:
        return str(self.json["state"])

    @property
    def error(self) -> str:
        return str(self.json.get("error", {}).get("message", ""))

    @property
    def tasks(self) -> list[dict[str, Any]]:
        return list(self.json["tasks"])

    def task(self, path: str) -> dict[str, Any]:
        """The task at a path below the root."""
        return next(task for task in self.tasks if task["scope_path"] == f"root.{path}")

    def states(self) -> dict[str, str]:
        """State of each task below the root, by path."""
        return {
            task["scope_path"].removeprefix("root."): task["state"]
            for task in self.tasks
            if task["scope_path"] != "root"
        }

    def output(self, path: str, key: str = "Output") -> Any:
        """An output parameter of a task; of the pipeline where the path is empty."""
        task = self.task(path) if path else self.tasks[0]
        return _parameters(task["outputs"])[key]

    def outputs(self) -> dict[str, Any]:
        """All outputs of the pipeline; artifacts as their files' text."""
        given = self.tasks[0].get("outputs", {})
        texts = {
            group["artifact_key"]: [Path(found["uri"]).read_text() for found in group["artifacts"]]
            for group in given.get("artifacts", ())
        }
        single = {key: found[0] if len(found) == 1 else found for key, found in texts.items()}
        return {**_parameters(given), **single}

    def inputs(self, path: str) -> dict[str, Any]:
        """The input parameters of a task."""
        return _parameters(self.task(path).get("inputs", {}))

    def artifacts(self, path: str, key: str, *, side: str = "outputs") -> list[dict[str, Any]]:
        """The artifacts of an output, or an input, of a task."""
        groups = self.task(path)[side]["artifacts"]
        return list(next(group for group in groups if group["artifact_key"] == key)["artifacts"])


def _parameters(values: dict[str, Any]) -> dict[str, Any]:
    return {item["parameter_key"]: item["value"] for item in values.get("parameters", ())}


class Runner:
    """Submits pipelines through KFP's client, and waits for them."""

    def __init__(self, stage: PipelinesStage, folder: Path) -> None:
        self.stage = stage
        self._folder = folder
        self._num_compiled = 0

    @property
    def client(self) -> kfp.Client:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # says which servers it is made for
            return kfp.Client(host=self.stage.url, existing_token=TOKEN)

    def http(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Call the API by hand."""
        return httpx.request(
            method,
            f"{self.stage.url}/apis/v2beta1/{path}",
            headers={"authorization": f"Bearer {TOKEN}"},
            timeout=30,
            **options,
        )

    def compile(self, pipeline: Any) -> str:
        """Compile a pipeline function to a file."""
        self._num_compiled += 1
        path = self._folder / f"{self._num_compiled}.yaml"
        compiler.Compiler().compile(pipeline, str(path))
        return str(path)

    def submit(self, pipeline: Any, **arguments: Any) -> str:
        """Start a run; answers its identifier."""
        package = pipeline if isinstance(pipeline, str) else self.compile(pipeline)
        started = self.client.create_run_from_pipeline_package(package, arguments=arguments)
        return str(started.run_id)

    def wait(self, run_id: str) -> RunView:
        """Wait for a run to end."""
        self.client.wait_for_run_completion(
            run_id, timeout=RUN_SECONDS, sleep_duration=POLL_SECONDS
        )
        return self.view(run_id)

    def run(self, pipeline: Any, **arguments: Any) -> RunView:
        """Start a run and wait for it to end."""
        return self.wait(self.submit(pipeline, **arguments))

    def until(self, condition: Callable[[], bool], *, timeout_seconds: float = 20.0) -> None:
        """Wait for a condition."""
        self.stage.call(
            wait_until(lambda: asyncio.to_thread(condition), timeout_seconds=timeout_seconds)
        )

    def delete_pod(self, name: str) -> None:
        """Delete a Pod behind the engine's back."""
        self.stage.call(self.stage.client.delete(PODS, name, namespace="default"))

    def view(self, run_id: str) -> RunView:
        """A run as it is now."""
        return RunView(json=self.http("GET", f"runs/{run_id}").raise_for_status().json())


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PipelinesStage]:
    with running_pipelines(tmp_path_factory.mktemp("stage")) as running:
        yield running


@pytest.fixture(scope="module")
def runner(stage: PipelinesStage, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(stage, tmp_path_factory.mktemp("compiled"))


@pytest.fixture
def make_runner(tmp_path: Path) -> Callable[[PipelinesStage], Runner]:
    """For tests that need a stage of their own."""
    return lambda stage: Runner(stage, tmp_path)
