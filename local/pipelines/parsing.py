"""From the JSON of a compiled pipeline to `ir`, refusing what cannot run.

Every refusal names the place in the file and what is accepted there: the person reading it wrote
Python, not this file, and has only the message to find their line by.
"""

from __future__ import annotations

import graphlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from kubeloop.errors import InputError
from kubeloop.local.pipelines import ir
from kubeloop.local.pipelines.documents import PipelineDocument
from kubeloop.local.pipelines.executors import parse_executors
from kubeloop.local.pipelines.nodes import Node
from kubeloop.local.pipelines.tasks import parse_task
from kubeloop.local.pipelines.values import ParameterType, canonical

_ROOT = "root"
_OLD_TYPES = {
    "INT": ParameterType.NUMBER_INTEGER,
    "DOUBLE": ParameterType.NUMBER_DOUBLE,
    "STRING": ParameterType.STRING,
}


def parse_pipeline(document: PipelineDocument) -> ir.Pipeline:
    """Read a compiled pipeline.

    Raises:
        InputError: The pipeline cannot run: a name, a reference or an input is missing, tasks wait
            for each other in a circle, or something in it is not understood.
    """
    spec = Node(document.spec, "")
    info = spec.child("pipelineInfo")
    name = info.text("name")
    if not name:
        raise InputError("The pipeline has no name: pipelineInfo.name is missing or empty.")
    if not spec.text("schemaVersion"):
        raise InputError(f"Pipeline {name!r} has no schemaVersion; compile it with the KFP v2 SDK.")
    executors, notes = parse_executors(spec, Node(document.platform, "platform spec"))
    components = {
        key: _parse_component(key, node, executors) for key, node in spec.child("components").each()
    }
    root = _parse_component(_ROOT, spec.child(_ROOT), executors)
    if root.dag is None:
        raise InputError(f"Pipeline {name!r} has no tasks: root.dag is missing.")
    _check_recursion(root, components)
    for component in (root, *components.values()):
        _check_dag(component, components)
    return ir.Pipeline(
        name=name,
        description=info.text("description"),
        root=root,
        components=components,
        default_root=spec.text("defaultPipelineRoot"),
        sdk_version=spec.text("sdkVersion"),
        notes=notes,
    )


def _parse_component(
    name: str, node: Node, executors: Mapping[str, ir.ContainerSpec | ir.ImporterSpec]
) -> ir.Component:
    inputs, outputs = node.child("inputDefinitions"), node.child("outputDefinitions")
    label = node.text("executorLabel")
    dag = node.child("dag")
    if label and label not in executors:
        raise node.refuse(
            f"executor {label!r} is not defined; the pipeline defines {listed(executors)}"
        )
    if not label and not dag:
        raise node.refuse("a component needs an executorLabel or a dag")
    component = ir.Component(
        name=name,
        input_parameters=_parse_parameters(inputs),
        input_artifacts=_parse_artifacts(inputs),
        output_parameters=_parse_parameters(outputs),
        output_artifacts=_parse_artifacts(outputs),
        executor=executors.get(label),
    )
    return replace(component, dag=_parse_dag(dag, component)) if dag else component


def _parse_parameters(node: Node) -> dict[str, ir.ParameterSpec]:
    parameters = {}
    for name, item in node.child("parameters").each():
        written = item.text("parameterType") or item.text("type")
        try:
            kind = _OLD_TYPES.get(written) or ParameterType(written)
        except ValueError:
            raise item.refuse(
                f"parameter type {written!r} is not known; known are {listed(ParameterType)}"
            ) from None
        default = canonical(item.get("defaultValue"))
        parameters[name] = ir.ParameterSpec(
            type=kind,
            default=default,
            has_default=default is not None,
            is_optional=item.flag("isOptional"),
            description=item.text("description"),
        )
    return parameters


def _parse_artifacts(node: Node) -> dict[str, ir.ArtifactSpec]:
    return {
        name: ir.ArtifactSpec(
            schema_title=item.child("artifactType").text("schemaTitle") or "system.Artifact",
            schema_version=item.child("artifactType").text("schemaVersion") or "0.0.1",
            is_list=item.flag("isArtifactList"),
            is_optional=item.flag("isOptional"),
            description=item.text("description"),
            metadata=canonical(dict(item.child("metadata").mapping())),
        )
        for name, item in node.child("artifacts").each()
    }


def _parse_dag(node: Node, component: ir.Component) -> ir.Dag:
    tasks = {name: parse_task(name, item, component) for name, item in node.child("tasks").each()}
    if not tasks:
        raise node.refuse("a dag needs at least one task")
    for task in tasks.values():
        for producer in task.upstream:
            if producer not in tasks:
                raise node.child("tasks").refuse(
                    f"task {task.name!r} waits for task {producer!r}, which does not exist; "
                    f"there are {listed(tasks)}"
                )
    outputs = node.child("outputs")
    return ir.Dag(
        tasks={name: tasks[name] for name in _order(tasks, node)},
        parameter_outputs={
            name: _parse_parameter_output(item) for name, item in outputs.child("parameters").each()
        },
        artifact_outputs={
            name: ir.DagOutput(
                selectors=tuple(
                    ir.OutputSelector(
                        task=selector.text("producerSubtask"),
                        key=selector.text("outputArtifactKey"),
                    )
                    for selector in item.elements("artifactSelectors")
                ),
                is_one_of=len(item.elements("artifactSelectors")) > 1,
            )
            for name, item in outputs.child("artifacts").each()
        },
    )


def _parse_parameter_output(node: Node) -> ir.DagOutput:
    one_of = node.child("valueFromOneof")
    selectors = (
        one_of.elements("parameterSelectors") if one_of else [node.child("valueFromParameter")]
    )
    return ir.DagOutput(
        selectors=tuple(
            ir.OutputSelector(
                task=item.text("producerSubtask"), key=item.text("outputParameterKey")
            )
            for item in selectors
        ),
        is_one_of=bool(one_of),
    )


def _order(tasks: Mapping[str, ir.Task], node: Node) -> list[str]:
    sorter = graphlib.TopologicalSorter({name: task.upstream for name, task in tasks.items()})
    try:
        return list(sorter.static_order())
    except graphlib.CycleError as error:
        circle = " → ".join(repr(name) for name in error.args[1])
        raise node.refuse(f"tasks wait for each other in a circle: {circle}") from error


def _check_dag(component: ir.Component, components: Mapping[str, ir.Component]) -> None:
    """Check what a DAG refers to: components, inputs given to them, outputs taken from them."""
    if component.dag is None:
        return
    for task in component.dag.tasks.values():
        where = f"task {task.name!r} of {component.name!r}"
        target = components.get(task.component)
        if target is None:
            raise InputError(
                f"The pipeline cannot run: {where} refers to component {task.component!r}, "
                f"which is not defined; defined are {listed(components)}."
            )
        if task.iterator is not None and target.dag is None:
            raise InputError(f"The pipeline cannot run: {where} loops over a single container.")
        _check_inputs(task, target, where=where)
        for name, source in _task_outputs(task):
            producer = component.dag.tasks[source.task]
            outputs = components.get(producer.component)
            if outputs is not None and not _has_output(outputs, source.key):
                raise InputError(
                    f"The pipeline cannot run: input {name!r} of {where} takes output "
                    f"{source.key!r} of task {source.task!r}, which has no such output."
                )
    for name, output in (
        *component.dag.parameter_outputs.items(),
        *component.dag.artifact_outputs.items(),
    ):
        for selector in output.selectors:
            task_name = selector.task
            if task_name not in component.dag.tasks:
                raise InputError(
                    f"The pipeline cannot run: output {name!r} of {component.name!r} comes from "
                    f"task {task_name!r}, which does not exist."
                )


def _check_inputs(task: ir.Task, target: ir.Component, *, where: str) -> None:
    given = {*task.parameters, *task.artifacts}
    if task.iterator is not None:
        item_input = task.iterator.item_input
        given.add(item_input)
        given.update(
            name for name in target.input_parameters if name.startswith(f"{item_input}-subvar-")
        )
    required = [name for name, spec in target.input_parameters.items() if spec.is_required]
    required += [name for name, item in target.input_artifacts.items() if not item.is_optional]
    for name in required:
        if name not in given:
            raise InputError(
                f"The pipeline cannot run: {where} does not give input {name!r}, which component "
                f"{target.name!r} requires."
            )


def _task_outputs(task: ir.Task) -> Iterable[tuple[str, ir.TaskOutput]]:
    for name, given in task.parameters.items():
        if isinstance(given.source, ir.TaskOutput):
            yield name, given.source
    for name, source in task.artifacts.items():
        if isinstance(source, ir.TaskOutput):
            yield name, source


def _has_output(component: ir.Component, key: str) -> bool:
    return key in component.output_parameters or key in component.output_artifacts


def _check_recursion(root: ir.Component, components: Mapping[str, ir.Component]) -> None:
    graph = {
        name: [task.component for task in component.dag.tasks.values()] if component.dag else []
        for name, component in {**components, _ROOT: root}.items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        circle = " → ".join(repr(name) for name in error.args[1])
        raise InputError(
            f"The pipeline cannot run: components contain themselves: {circle}."
        ) from error


def listed(names: Iterable[Any]) -> str:
    """Names for a message, the first few of many."""
    known = [str(name) for name in names]
    shown = ", ".join(repr(name) for name in known[:12])
    return f"{shown} and {len(known) - 12} more" if len(known) > 12 else shown or "none"
