"""A pipeline cut down to what comes before one task, and a probe in that task's place.

Running it makes everything that the task needs, or takes it from the cache, and the probe gives
back the executor input that the task would have got. What resolves inputs, conditions and loops is
the backend that runs the pipeline, so the input is the real one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kubeloop.errors import InputError
from kubeloop.pipelines.packages import PipelinePackage

PROBE_OUTPUT = "executor_input"
_ROOT = "root"
_EXECUTOR = "exec-kubeloop-probe"
_COMPONENT = "comp-kubeloop-probe"
_ITERATORS = frozenset({"parameterIterator", "artifactIterator"})
_WRITE = 'mkdir -p "$(dirname "$1")" && printf "%s" "$0" > "$1"'

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlace:
    """Where a task stands in a pipeline."""

    path: tuple[str, ...]
    """Task names from the root down to it."""
    component: str
    """The key of what it runs."""
    executor: str
    """The label of the executor; empty where the task stands for others."""
    num_loops: int = 0
    """How many loops the task is in."""

    @property
    def name(self) -> str:
        return self.path[-1]


def find_task(package: PipelinePackage, name: str) -> TaskPlace:
    """Find a task by its name, or by its path where several have the name.

    Raises:
        InputError: There is no such task, or several.
    """
    places = [place for place in _walk(package.spec) if place.executor]
    found = [place for place in places if name == ".".join(place.path)] or [
        place for place in places if name == place.name
    ]
    if len(found) == 1:
        return found[0]
    paths = ", ".join(".".join(place.path) for place in found or places)
    if found:
        msg = f"Pipeline {package.name!r} has {len(found)} tasks {name!r}; give one of {paths}."
    else:
        msg = f"Pipeline {package.name!r} has no task {name!r} that runs something; it has {paths}."
    raise InputError(msg)


def _walk(spec: Mapping[str, Any]) -> Iterator[TaskPlace]:
    def below(
        component: Mapping[str, Any], path: tuple[str, ...], num_loops: int
    ) -> Iterator[TaskPlace]:
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            key = task["componentRef"]["name"]
            inner = spec["components"][key]
            num_loops_here = num_loops + (not _ITERATORS.isdisjoint(task))
            yield TaskPlace(
                path=(*path, name),
                component=key,
                executor=inner.get("executorLabel", ""),
                num_loops=num_loops_here,
            )
            yield from below(inner, (*path, name), num_loops_here)

    yield from below(spec[_ROOT], (), 0)


def build_probe(package: PipelinePackage, place: TaskPlace) -> PipelinePackage:
    """Cut a pipeline down to what comes before a task, with a probe in its place."""
    spec, platform = copy.deepcopy(package.spec), copy.deepcopy(package.platform_spec)
    component = spec[_ROOT]
    for depth, name in enumerate(place.path[:-1]):
        _keep_before(component, name)
        task = component["dag"]["tasks"][name]
        # Another task may run the same component, and need all of it.
        own = f"{task['componentRef']['name']}-kubeloop-{depth}"
        spec["components"][own] = copy.deepcopy(spec["components"][task["componentRef"]["name"]])
        task["componentRef"] = {"name": own}
        component = spec["components"][own]
    _keep_before(component, place.name)
    target = component["dag"]["tasks"][place.name]
    target["componentRef"] = {"name": _COMPONENT}
    target["cachingOptions"] = {}
    target.pop("retryPolicy", None)
    _add_probe(spec, platform, place)
    return replace(package, spec=spec, platform_spec=platform)


def _add_probe(spec: Json, platform: Json, place: TaskPlace) -> None:
    spec["components"][_COMPONENT] = {
        "executorLabel": _EXECUTOR,
        "inputDefinitions": spec["components"][place.component].get("inputDefinitions", {}),
        "outputDefinitions": {"parameters": {PROBE_OUTPUT: {"parameterType": "STRING"}}},
    }
    executors = spec["deploymentSpec"]["executors"]
    container = executors[place.executor].get("container", {})
    executors[_EXECUTOR] = {
        "container": {
            "image": container.get("image", ""),
            "command": ["sh", "-c", _WRITE],
            "args": ["{{$}}", f"{{{{$.outputs.parameters['{PROBE_OUTPUT}'].output_file}}}}"],
            **({"env": container["env"]} if "env" in container else {}),
        }
    }
    settings = (
        platform.get("platforms", {})
        .get("kubernetes", {})
        .get("deploymentSpec", {})
        .get("executors", {})
    )
    if place.executor in settings:
        settings[_EXECUTOR] = copy.deepcopy(settings[place.executor])


def _keep_before(component: Json, name: str) -> None:
    """Keep a task and what it waits for; the outputs go, since nothing takes them any more."""
    tasks: Json = component["dag"]["tasks"]
    kept: dict[str, Any] = {}
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current not in kept and current in tasks:
            kept[current] = tasks[current]
            waiting += _upstream(tasks[current])
    component["dag"]["tasks"] = {key: task for key, task in tasks.items() if key in kept}
    component["dag"].pop("outputs", None)
    component.pop("outputDefinitions", None)


def _upstream(task: Json) -> Iterator[str]:
    yield from task.get("dependentTasks", ())
    inputs = task.get("inputs", {})
    for source in (*inputs.get("parameters", {}).values(), *inputs.get("artifacts", {}).values()):
        for kind in ("taskOutputParameter", "taskOutputArtifact", "taskFinalStatus"):
            if kind in source:
                yield source[kind]["producerTask"]
