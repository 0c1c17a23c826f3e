"""What a task gets and what a DAG gives: inputs from their sources, outputs from their producers.

Everything is read from the records of the parent and of the sibling tasks, so the answer is the
same whenever it is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kubeloop.errors import InputError
from kubeloop.local.pipelines.engine.placeholders import Scope, resolve_value
from kubeloop.local.pipelines.engine.tree import Node
from kubeloop.local.pipelines.spec import ir
from kubeloop.local.pipelines.spec.conditions import select
from kubeloop.local.pipelines.spec.values import JsonValue, ParameterType, convert
from kubeloop.local.pipelines.storage.records import InputKind, Origin, TaskState, TaskValues

_FAILED_PRECONDITION = 9
# NB: the words of KFP's server up to 2.17, not those that the SDK's docstring gives: what a step
# compares with here is what it will find on a cluster.
_FINAL_STATES = {
    TaskState.SUCCEEDED: "COMPLETE",
    TaskState.CACHED: "CACHED",
    TaskState.SKIPPED: "CANCELED",
    TaskState.FAILED: "FAILED",
    TaskState.NOT_RUN: "CANCELED",
}


@dataclass(slots=True, kw_only=True)
class _Values:
    """Inputs while they are being resolved."""

    parameters: dict[str, JsonValue] = field(default_factory=dict)
    artifacts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)

    def put(self, name: str, value: JsonValue, *, origin: Origin) -> None:
        """Set a parameter; None leaves it without a value."""
        self.origins[name] = origin
        if value is not None:
            self.parameters[name] = value

    def freeze(self) -> TaskValues:
        return TaskValues(
            parameters=self.parameters, artifacts=self.artifacts, origins=self.origins
        )


def resolve_inputs(
    spec: ir.Task, component: ir.Component, *, parent: Node, facts: Mapping[str, str]
) -> TaskValues:
    """Find the inputs of a task that stands in `parent`.

    Args:
        spec: The task.
        component: What it runs; says which inputs there are, their types and defaults.
        parent: The DAG it stands in, with its own inputs and the tasks begun in it.
        facts: Values of the placeholders about the run.

    Raises:
        InputError: A required input has no value, or a value does not fit the declared type.
    """
    values = _Values()
    constants: dict[str, JsonValue] = {}
    for name, given in spec.parameters.items():
        if isinstance(given.source, ir.Constant):
            constants[name] = given.source.value
            continue
        value, origin = _find_parameter(given.source, parent=parent, facts=facts)
        if given.selector and value is not None:
            value = select(value, given.selector)
        values.put(name, value, origin=origin)
    scope = Scope(parameters=dict(values.parameters), facts=facts)
    for name, constant in constants.items():
        origin = Origin(kind=InputKind.RUNTIME_VALUE_INPUT)
        values.put(name, resolve_value(constant, scope), origin=origin)
    for name, artifact_source in spec.artifacts.items():
        found, origin = _find_artifacts(artifact_source, parent=parent)
        values.origins[name] = origin
        if found:
            values.artifacts[name] = found
    _check_inputs(values, spec, component)
    return values.freeze()


def _check_inputs(values: _Values, spec: ir.Task, component: ir.Component) -> None:
    looped = spec.iterator.item_input if spec.iterator is not None else None
    for name, declared in component.input_parameters.items():
        if name in values.parameters:
            values.parameters[name] = _convert_input(name, values.parameters[name], declared)
        elif declared.has_default:
            values.parameters[name] = declared.default
            values.origins[name] = Origin(kind=InputKind.COMPONENT_DEFAULT_INPUT)
        elif declared.is_required and name in spec.parameters and name != looped:
            raise InputError(f"input {name!r} has no value: {_explain(spec.parameters[name])}")
    for name, artifact in component.input_artifacts.items():
        if name in spec.artifacts and name not in values.artifacts and not artifact.is_optional:
            if isinstance(spec.artifacts[name], ir.TaskOutput) and artifact.is_list:
                values.artifacts[name] = ()  # collected from no iteration
                continue
            raise InputError(f"input artifact {name!r} has no value")


def _convert_input(name: str, value: JsonValue, declared: ir.ParameterSpec) -> JsonValue:
    try:
        return convert(value, declared.type)
    except InputError as error:
        raise InputError(f"input {name!r}: {error}") from error


def _explain(given: ir.ParameterInput) -> str:
    match given.source:
        case ir.TaskOutput(task=task, key=key):
            return f"task {task!r} gave no output {key!r}"
        case ir.ComponentInput(name=name):
            return f"the enclosing component got no {name!r}"
    return "its constant is null"


def _find_parameter(
    source: ir.ComponentInput | ir.TaskOutput | ir.FinalStatus,
    *,
    parent: Node,
    facts: Mapping[str, str],
) -> tuple[JsonValue, Origin]:
    match source:
        case ir.ComponentInput(name=name):
            origin = Origin(kind=InputKind.COMPONENT_INPUT, task_name=parent.record.name, key=name)
            return parent.inputs.parameters.get(name), origin
        case ir.TaskOutput(task=task, key=key):
            producer = parent.children[task]
            kind = InputKind.COLLECTED_INPUTS if producer.is_loop else InputKind.TASK_OUTPUT_INPUT
            return (
                producer.outputs.parameters.get(key),
                Origin(kind=kind, task_name=task, key=key),
            )
        case ir.FinalStatus(task=task):
            origin = Origin(kind=InputKind.TASK_FINAL_STATUS_OUTPUT, task_name=task)
            return _final_status(parent.children[task], facts), origin


def _final_status(producer: Node, facts: Mapping[str, str]) -> dict[str, JsonValue]:
    message = producer.record.error
    error = {"code": _FAILED_PRECONDITION, "message": message} if message else {}
    return {
        "state": _FINAL_STATES[producer.state],
        "pipelineTaskName": producer.record.name,
        "pipelineJobResourceName": facts.get("pipeline_job_resource_name", ""),
        "error": error,
    }


def _find_artifacts(source: ir.ArtifactSource, *, parent: Node) -> tuple[tuple[str, ...], Origin]:
    match source:
        case ir.ComponentInput(name=name):
            origin = Origin(kind=InputKind.COMPONENT_INPUT, task_name=parent.record.name, key=name)
            return parent.inputs.artifacts.get(name, ()), origin
        case ir.TaskOutput(task=task, key=key):
            producer = parent.children[task]
            kind = InputKind.COLLECTED_INPUTS if producer.is_loop else InputKind.TASK_OUTPUT_INPUT
            return (
                producer.outputs.artifacts.get(key, ()),
                Origin(kind=kind, task_name=task, key=key),
            )


def resolve_setting(source: Mapping[str, Any], parent: Node) -> JsonValue:
    """The value of an `InputParameterSpec` of the platform configuration.

    Its names are those of the pipeline function, which inside a condition or a loop have a prefix.
    """
    if "runtimeValue" in source:
        return source["runtimeValue"].get("constant")
    if name := source.get("componentInputParameter"):
        values = parent.inputs.parameters
        return values.get(name, values.get(f"pipelinechannel--{name}"))
    if output := source.get("taskOutputParameter"):
        producer = parent.children.get(output["producerTask"])
        if producer is not None:
            return producer.outputs.parameters.get(output["outputParameterKey"])
    return None


def loop_items(node: Node) -> list[JsonValue] | list[str]:
    """What a loop runs over: values, or identifiers of artifacts.

    Raises:
        InputError: The items are no list.
    """
    assert node.spec is not None
    match node.spec.iterator:
        case ir.ArtifactIterator(items_input=name):
            return list(node.inputs.artifacts.get(name, ()))
        case ir.ParameterIterator(items_input="", constant_items=items):
            scope = Scope(parameters=node.inputs.parameters)
            return list(resolve_value(items, scope))
        case ir.ParameterIterator(items_input=name):
            value = node.inputs.parameters.get(name)
            declared = node.component.input_parameters.get(name)
            if isinstance(value, str) or declared is None:
                value = convert(value, ParameterType.LIST)
            if not isinstance(value, list):
                raise InputError(f"the loop's items {name!r} are no list but {value!r}")
            return value
    raise InputError("the task is no loop")


def iteration_inputs(node: Node, index: int) -> TaskValues:
    """The inputs of one iteration: the loop's own, and its item.

    Raises:
        InputError: The item does not fit the type that the loop's body declares.
    """
    assert node.spec is not None
    assert node.spec.iterator is not None
    iterator = node.spec.iterator
    item = loop_items(node)[index]
    name = iterator.item_input
    if isinstance(iterator, ir.ArtifactIterator):
        artifacts = {**node.inputs.artifacts, name: (str(item),)}
        origins = {**node.inputs.origins, name: Origin(kind=InputKind.ITERATOR_INPUT)}
        return TaskValues(parameters=node.inputs.parameters, artifacts=artifacts, origins=origins)
    kind = InputKind.ITERATOR_INPUT if iterator.items_input else InputKind.ITERATOR_INPUT_RAW
    declared = node.component.input_parameters.get(name)
    if declared is not None and item is not None:
        item = _convert_input(name, item, declared)
    parameters = {**node.inputs.parameters, name: item}
    prefix = f"{name}-subvar-"
    for field_input in node.component.input_parameters:
        # NB: the type that the compiler declares for a field is not that of the field.
        if field_input.startswith(prefix) and isinstance(item, dict):
            parameters[field_input] = item.get(field_input.removeprefix(prefix))
    origins = {**node.inputs.origins, name: Origin(kind=kind)}
    return TaskValues(parameters=parameters, artifacts=node.inputs.artifacts, origins=origins)


def dag_outputs(node: Node) -> TaskValues:
    """The outputs of a DAG whose tasks all ended: those that some task gave."""
    assert node.component.dag is not None
    values = _Values()
    for name, output in node.component.dag.parameter_outputs.items():
        for producer, key in _producers(node, output):
            if key in producer.outputs.parameters:
                values.parameters[name] = producer.outputs.parameters[key]
                values.origins[name] = Origin(
                    kind=InputKind.OUTPUT, task_name=producer.record.name, key=key
                )
                break
    for name, output in node.component.dag.artifact_outputs.items():
        for producer, key in _producers(node, output):
            if key in producer.outputs.artifacts:
                values.artifacts[name] = producer.outputs.artifacts[key]
                values.origins[name] = Origin(
                    kind=InputKind.OUTPUT, task_name=producer.record.name, key=key
                )
                break
    return values.freeze()


def _producers(node: Node, output: ir.DagOutput) -> Iterator[tuple[Node, str]]:
    for selector in output.selectors:
        producer = node.children.get(selector.task)
        if producer is not None and producer.state.has_outputs:
            yield producer, selector.key


def loop_outputs(node: Node, components: Mapping[str, ir.Component]) -> TaskValues:
    """The outputs of a loop whose iterations all ended: one flat list each, in their order."""
    assert node.component.dag is not None
    iterations = [node.children[key] for key in sorted(node.children, key=int)]
    values = _Values()
    for name in node.component.dag.parameter_outputs:
        is_nested = _is_collected(node.component, name, components)
        collected: list[JsonValue] = []
        for iteration in iterations:
            if name in iteration.outputs.parameters:
                value = iteration.outputs.parameters[name]
                collected += value if is_nested and isinstance(value, list) else [value]
        values.parameters[name] = collected
    for name in node.component.dag.artifact_outputs:
        values.artifacts[name] = tuple(
            found for iteration in iterations for found in iteration.outputs.artifacts.get(name, ())
        )
    return values.freeze()


def _is_collected(
    component: ir.Component, name: str, components: Mapping[str, ir.Component]
) -> bool:
    """Whether a DAG's output is already a list collected from a loop inside it."""
    if component.dag is None or name not in component.dag.parameter_outputs:
        return False
    for selector in component.dag.parameter_outputs[name].selectors:
        task = component.dag.tasks[selector.task]
        if task.iterator is not None:
            return True
        if _is_collected(components[task.component], selector.key, components):
            return True
    return False
