"""Katib's and the jobs' operators at work on a fresh API, with a kubelet that plays programs.

A program is a function from its pod to what it prints and how it ends, so that a test says in one
line what trials do. Everything else is real: watches, controllers, admission, logs on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubeloop.errors import ConflictError, NotFoundError
from kubeloop.katib.suggestion import ALGORITHMS
from kubeloop.local.api.resources import (
    EVENTS,
    EXPERIMENTS,
    PODS,
    TRIALS,
    Resource,
)
from kubeloop.local.client import Client, EventType, Manifest
from kubeloop.local.kubelet.pod_files import PodFiles
from kubeloop.local.operators.conditions import conditions_of, format_time, utc_now
from kubeloop.local.operators.controller import Controller
from kubeloop.local.operators.job import JobReconciler
from kubeloop.local.operators.katib.algorithm_calls import Algorithms
from kubeloop.local.operators.katib.collecting import MetricsCollector
from kubeloop.local.operators.katib.experiment import ExperimentReconciler
from kubeloop.local.operators.katib.observations import ObservationStore
from kubeloop.local.operators.katib.suggestion import SuggestionReconciler
from kubeloop.local.operators.katib.trial import TrialReconciler
from kubeloop.local.operators.pytorchjob import PyTorchJobReconciler
from kubeloop.testing.api import memory_api
from kubeloop.testing.waiting import wait_until

NAMESPACE = "default"
LEARNING_RATE: Manifest = {
    "name": "learning_rate",
    "parameterType": "double",
    "feasibleSpace": {"min": "0.01", "max": "0.1"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a program ends."""

    log: str = ""
    code: int = 0
    files: Mapping[str, bytes] = field(default_factory=dict)
    """What it has written into the volume of its metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """What a program that runs on has printed and written by now."""

    log: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)


Program = Callable[[Manifest], Exit | Printed | None]
"""From a pod to its end, or to what it has printed by now; a program that runs on is asked again by
`Kubelet.rerun`."""


def learning_rate_of(pod: Manifest) -> float:
    """What the pod was given as `--learning_rate`."""
    arguments = pod["spec"]["containers"][0]["args"]
    return float(arguments[arguments.index("--learning_rate") + 1])


def hang(pod: Manifest) -> None:
    """A program that never ends."""


def print_accuracy(pod: Manifest) -> Exit:
    """A program whose accuracy is ten times its learning rate."""
    return Exit(log=f"epoch=1\naccuracy={learning_rate_of(pod) * 10:.6f}\n")


def build_pytorch_job(*, container: str = "pytorch") -> Manifest:
    """A PyTorchJob template with one search parameter."""
    replica = {
        "replicas": 1,
        "restartPolicy": "Never",
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": container,
                        "image": "digits:1",
                        "command": ["python", "train.py"],
                        "args": ["--learning_rate", "${trialParameters.learningRate}"],
                    }
                ]
            }
        },
    }
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "spec": {"pytorchReplicaSpecs": {"Master": replica}},
    }


def build_experiment(name: str = "digits", **spec: Any) -> Manifest:  # any part of the spec
    """An Experiment that maximises `accuracy`; `spec` replaces parts of it, None leaves one out."""
    parts: Manifest = {
        "objective": {"type": "maximize", "objectiveMetricName": "accuracy"},
        "algorithm": {
            "algorithmName": "random",
            "algorithmSettings": [{"name": "random_state", "value": "3"}],
        },
        "parallelTrialCount": 2,
        "maxTrialCount": 4,
        "parameters": [LEARNING_RATE],
        "trialTemplate": {
            "primaryContainerName": "pytorch",
            "trialParameters": [{"name": "learningRate", "reference": "learning_rate"}],
            "trialSpec": build_pytorch_job(),
        },
        **spec,
    }
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": copy.deepcopy({key: value for key, value in parts.items() if value is not None}),
    }


class Kubelet:
    """Runs pods at once, by a program."""

    def __init__(self, client: Client, program: Program, *, pods_dir: Path) -> None:
        self._client = client
        self._program = program
        self._pods_dir = pods_dir
        self.num_started: dict[str, int] = {}
        """How often a pod of each name was started."""

    async def run(self) -> None:
        """Watch and run; returns only by cancellation."""
        async for event in self._client.watch(PODS, namespace=NAMESPACE):
            if event.type in (EventType.ADDED, EventType.MODIFIED):
                # The pod may have been deleted or changed since; then another event follows.
                with contextlib.suppress(NotFoundError, ConflictError):
                    await self._look_at(event.object)

    async def rerun(self) -> None:
        """Ask the program again about the pods that run."""
        for pod in (await self._client.list(PODS, namespace=NAMESPACE)).items:
            if pod["status"]["phase"] == "Running":
                await self._play(pod)

    async def _look_at(self, pod: Manifest) -> None:
        metadata = pod["metadata"]
        if "deletionTimestamp" in metadata:
            await self._client.delete(
                PODS, metadata["name"], namespace=NAMESPACE, grace_period_seconds=0
            )
        elif pod["status"]["phase"] == "Pending":
            await self._report(pod, phase="Running", state={"running": {"startedAt": _now()}})
            self.num_started[metadata["name"]] = self.num_started.get(metadata["name"], 0) + 1
            current = await self._client.get(PODS, metadata["name"], namespace=NAMESPACE)
            await self._play(current)

    async def _play(self, pod: Manifest) -> None:
        end = self._program(pod)
        if end is None:
            return
        for container in pod["spec"]["containers"]:
            folder = self._pods_dir / pod["metadata"]["uid"] / "logs" / container["name"]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "0.log").write_text(end.log)
        for name, content in end.files.items():
            path = self._pods_dir / pod["metadata"]["uid"] / "volumes" / "metrics-volume" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if isinstance(end, Printed):
            return
        phase = "Failed" if end.code else "Succeeded"
        state = {"terminated": {"exitCode": end.code, "finishedAt": _now()}}
        await self._report(pod, phase=phase, state=state)

    async def _report(self, pod: Manifest, *, phase: str, state: Manifest) -> None:
        pod["status"] = {
            **pod["status"],
            "phase": phase,
            "containerStatuses": [
                {
                    "name": container["name"],
                    "image": container["image"],
                    "imageID": "",
                    "restartCount": 0,
                    "ready": phase == "Running",
                    "state": state,
                }
                for container in pod["spec"]["containers"]
            ],
        }
        await self._client.replace_status(pod)


def condition_types(manifest: Manifest) -> list[tuple[str, str]]:
    """Type and status of an object's conditions, in order."""
    return [(entry["type"], entry["status"]) for entry in conditions_of(manifest)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """The API with everything at work on it."""

    client: Client
    observations: ObservationStore
    kubelet: Kubelet

    async def submit(self, experiment: Manifest) -> Manifest:
        """Create an experiment."""
        return await self.client.create(experiment)

    async def get(self, resource: Resource = EXPERIMENTS, name: str = "digits") -> Manifest:
        """An object; the experiment by default."""
        return await self.client.get(resource, name, namespace=NAMESPACE)

    async def list_all(self, resource: Resource) -> list[Manifest]:
        """All objects of a kind."""
        return (await self.client.list(resource, namespace=NAMESPACE)).items

    async def condition(self, resource: Resource = EXPERIMENTS, name: str = "digits") -> Manifest:
        """The last condition of an object, empty when there is none."""
        conditions = conditions_of(await self.get(resource, name))
        return conditions[-1] if conditions else {}

    async def counts(self, **counts: int) -> bool:
        """Whether the experiment's status counts just these, such as `trialsRunning=2`."""
        status = (await self.get()).get("status") or {}
        return all(status.get(name, 0) == count for name, count in counts.items())

    async def wait_for(
        self,
        condition_type: str,
        *,
        resource: Resource = EXPERIMENTS,
        name: str = "digits",
        reason: str = "",
    ) -> Manifest:
        """Wait until an object's last condition is this one and True; return the object."""

        async def holds() -> bool:
            last = await self.condition(resource, name)
            return (
                last.get("type") == condition_type
                and last["status"] == "True"
                and (not reason or last["reason"] == reason)
            )

        await wait_until(holds)
        return await self.get(resource, name)

    async def settle(self) -> None:
        """Wait until nothing is written any more."""
        version = ""
        while (now := await self._version()) != version:
            version = now
            await asyncio.sleep(0.05)

    async def events(self, reason: str) -> list[Manifest]:
        """Events with a reason."""
        return [event for event in await self.list_all(EVENTS) if event["reason"] == reason]

    async def _version(self) -> str:
        return (await self.client.list(TRIALS, namespace=NAMESPACE)).resource_version


@asynccontextmanager
async def katib_lab(
    program: Program, *, folder: Path, algorithms: Algorithms = ALGORITHMS
) -> AsyncIterator[Lab]:
    """Everything at work, pods' logs below `folder`."""
    async with (
        memory_api(pods_dir=folder / "pods") as client,
        lab_on(client, program, folder=folder, algorithms=algorithms) as lab,
    ):
        yield lab


@asynccontextmanager
async def lab_on(
    client: Client, program: Program, *, folder: Path, algorithms: Algorithms = ALGORITHMS
) -> AsyncIterator[Lab]:
    """Everything at work on an API that is there; its pods' logs are in `folder`/pods."""
    with ObservationStore(folder / "metrics.db") as observations:
        kubelet = Kubelet(client, program, pods_dir=folder / "pods")
        working = at_work(client, observations, folder=folder, algorithms=algorithms)
        async with working, _running(kubelet):
            yield Lab(client=client, observations=observations, kubelet=kubelet)


@asynccontextmanager
async def at_work(
    client: Client,
    observations: ObservationStore,
    *,
    folder: Path,
    algorithms: Algorithms = ALGORITHMS,
) -> AsyncIterator[None]:
    """The operators that an experiment needs, each in its controller; pods are below `folder`."""
    files = PodFiles(folder)
    with MetricsCollector(client, store=observations, files=files) as collector:
        reconcilers = (
            ExperimentReconciler(client),
            SuggestionReconciler(
                client, observations=observations, files=files, algorithms=algorithms
            ),
            TrialReconciler(client, observations=observations, collector=collector),
            PyTorchJobReconciler(client),
            JobReconciler(client),
        )
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(Controller(client, r).run()) for r in reconcilers]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()


@asynccontextmanager
async def _running(kubelet: Kubelet) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(kubelet.run())
        try:
            yield
        finally:
            task.cancel()


def _now() -> str:
    return format_time(utc_now())


def play(
    program: Program, scenario: Callable[[Lab], Awaitable[None]], *, folder: Path, **options: Any
) -> None:  # Any: the lab's own options
    """Run one test's scenario in a lab of its own."""

    async def run() -> None:
        async with katib_lab(program, folder=folder, **options) as lab:
            await scenario(lab)

    asyncio.run(run())
