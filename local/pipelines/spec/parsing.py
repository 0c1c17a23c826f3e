"""From the JSON of a compiled pipeline to `ir`, refusing what cannot run.

Every refusal names the place in the file and what is accepted there: the person reading it wrote
Python, not this file, and has only the message to find their line by.
"""

from __future__ import annotations

import graphlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kubeloop.errors import InputError
from kubeloop.local.pipelines.spec import ir
from kubeloop.local.pipelines.spec.documents import PipelineDocument
from kubeloop.local.pipelines.spec.executors import parse_executors
from kubeloop.local.pipelines.spec.faults import Faults, refusal
from kubeloop.local.pipelines.spec.kubernetes_config import describe_ignored_of_pipeline
from kubeloop.local.pipelines.spec.nodes import Node, listed
from kubeloop.local.pipelines.spec.tasks import parse_task
from kubeloop.local.pipelines.spec.uris import is_local
from kubeloop.local.pipelines.spec.values import ParameterType, canonical
from kubeloop.local.pipelines.spec.wiring import check_dag

_ROOT = "root"
_OLD_TYPES = {
    "INT": ParameterType.NUMBER_INTEGER,
    "DOUBLE": ParameterType.NUMBER_DOUBLE,
    "STRING": ParameterType.STRING,
}


def parse_pipeline(document: PipelineDocument) -> ir.Pipeline:
    """Read a compiled pipeline.

    Raises:
        PipelineError: The pipeline cannot run: a name, a reference or an input is missing, tasks
            wait for each other in a circle, or something in it is not understood. It holds all
            that was found.
    """
    faults = Faults()
    pipeline = read_pipeline(document, faults)
    faults.raise_any()
    assert pipeline is not None
    return pipeline


def read_pipeline(document: PipelineDocument, faults: Faults) -> ir.Pipeline | None:
    """Read as much as can be read; where there are faults, None or a pipeline with gaps."""
    spec = Node(document.spec, "")
    info = spec.child("pipelineInfo")
    name = info.text("name")
    with faults.collecting(where="pipelineInfo"):
        if not name:
            raise InputError("The pipeline has no name: pipelineInfo.name is missing or empty.")
    with faults.collecting(where="schemaVersion"):
        if not spec.text("schemaVersion"):
            raise InputError(
                f"Pipeline {name!r} has no schemaVersion; compile it with the KFP v2 SDK."
            )
    platform = Node(document.platform, "platform spec")
    config = platform.child("platforms").child("kubernetes").child("pipelineConfig")
    executors, notes = parse_executors(spec, platform, faults=faults)
    reader = _ComponentReader(
        executors=executors,
        labels=[label for label, _ in spec.child("deploymentSpec").child("executors").each()],
        faults=faults,
    )
    components: dict[str, ir.Component] = {}
    for key, node in spec.child("components").each():
        with faults.collecting():
            components[key] = reader.read(key, node)
    with faults.collecting():
        root = reader.read(_ROOT, spec.child(_ROOT))
        if root.dag is None:
            raise InputError(f"Pipeline {name!r} has no tasks: root.dag is missing.")
        _check_recursion(root, components)
        written = [key for key, _ in spec.child("components").each()]
        for component in (root, *components.values()):
            check_dag(component, components, written=written, faults=faults)
        return ir.Pipeline(
            name=name,
            description=info.text("description"),
            root=root,
            components=components,
            default_root=spec.text("defaultPipelineRoot"),
            sdk_version=spec.text("sdkVersion"),
            schema_version=spec.text("schemaVersion"),
            has_workspace=bool(config.child("workspace")),
            deadline_seconds=config.number("activeDeadlineSeconds"),
            notes=(*_describe_root(spec), *describe_ignored_of_pipeline(config), *notes),
        )
    return None


def _describe_root(spec: Node) -> list[str]:
    root = spec.text("defaultPipelineRoot")
    if not root or is_local(root):
        return []
    return [f"pipeline root {root!r} is used only if a run gives it as its own"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _ComponentReader:
    """Reads components, and notes what is wrong with their tasks."""

    executors: Mapping[str, ir.ContainerSpec | ir.ImporterSpec]
    labels: Sequence[str]
    """Of all executors, those with faults included."""
    faults: Faults

    def read(self, name: str, node: Node) -> ir.Component:
        """Read a component.

        Raises:
            PipelineError: Its interface cannot be read, or it has nothing to run.
        """
        inputs, outputs = node.child("inputDefinitions"), node.child("outputDefinitions")
        label = node.text("executorLabel")
        dag = node.child("dag")
        if label and label not in self.labels:
            raise node.refuse(
                f"executor {label!r} is not defined; the pipeline defines {listed(self.labels)}"
            )
        if not label and not dag:
            raise node.refuse("a component needs an executorLabel or a dag")
        component = ir.Component(
            name=name,
            input_parameters=_parse_parameters(inputs),
            input_artifacts=_parse_artifacts(inputs),
            output_parameters=_parse_parameters(outputs),
            output_artifacts=_parse_artifacts(outputs),
            passthroughs={
                item.text("field"): item.flag("applyToTask")
                for item in node.elements("taskConfigPassthroughs")
            },
            executor=self.executors.get(label),
        )
        return replace(component, dag=self._read_dag(dag, component)) if dag else component

    def _read_dag(self, node: Node, component: ir.Component) -> ir.Dag:
        tasks: dict[str, ir.Task] = {}
        written = [name for name, _ in node.child("tasks").each()]
        if not written:
            raise node.refuse("a dag needs at least one task")
        for name, item in node.child("tasks").each():
            with self.faults.collecting():
                tasks[name] = parse_task(name, item, component)
        for task in tasks.values():
            for producer in task.upstream:
                if producer not in written:
                    with self.faults.collecting():
                        raise node.child("tasks").refuse(
                            f"task {task.name!r} waits for task {producer!r}, which does not "
                            f"exist; there are {listed(written)}"
                        )
        return ir.Dag(
            tasks={name: tasks[name] for name in self._order(tasks, node)},
            parameter_outputs=self._read_outputs(node, "parameters", written=written),
            artifact_outputs=self._read_outputs(node, "artifacts", written=written),
        )

    def _read_outputs(
        self, node: Node, kind: str, *, written: Sequence[str]
    ) -> dict[str, ir.DagOutput]:
        parse = _parse_parameter_output if kind == "parameters" else _parse_artifact_output
        outputs: dict[str, ir.DagOutput] = {}
        for name, item in node.child("outputs").child(kind).each():
            with self.faults.collecting():
                outputs[name] = parse(item)
                for selector in outputs[name].selectors:
                    if selector.task not in written:
                        raise item.refuse(
                            f"the output comes from task {selector.task!r}, which does not exist; "
                            f"there are {listed(written)}"
                        )
        return outputs

    def _order(self, tasks: Mapping[str, ir.Task], node: Node) -> list[str]:
        """Task names, each after what it waits for; as written where that is impossible."""
        graph = {
            name: [other for other in task.upstream if other in tasks]
            for name, task in tasks.items()
        }
        try:
            return list(graphlib.TopologicalSorter(graph).static_order())
        except graphlib.CycleError as error:
            circle = " → ".join(repr(name) for name in error.args[1])
            fault = node.refuse(f"tasks wait for each other in a circle: {circle}")
            self.faults.found += fault.faults
            return list(tasks)


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


def _parse_artifact_output(node: Node) -> ir.DagOutput:
    selectors = node.elements("artifactSelectors")
    return ir.DagOutput(
        selectors=tuple(
            ir.OutputSelector(task=item.text("producerSubtask"), key=item.text("outputArtifactKey"))
            for item in selectors
        ),
        is_one_of=len(selectors) > 1,
    )


def _check_recursion(root: ir.Component, components: Mapping[str, ir.Component]) -> None:
    graph = {
        name: [task.component for task in component.dag.tasks.values()] if component.dag else []
        for name, component in {**components, _ROOT: root}.items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        circle = " → ".join(repr(name) for name in error.args[1])
        message = f"The pipeline cannot run: components contain themselves: {circle}."
        raise refusal(message, where="components") from error
