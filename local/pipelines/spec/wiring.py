"""Whether the tasks of a DAG fit together: what they refer to, what they give each other.

What can never work is a fault here, and refused before anything runs. What only KFP's compiler
refuses, such as a Model where a Dataset is expected, is told by `find_mismatches`: it runs, and a
pipeline may ask for it with `ignore_type()`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from kubeloop.local.pipelines.spec import ir
from kubeloop.local.pipelines.spec.faults import Fault, Faults, PipelineError, refusal
from kubeloop.local.pipelines.spec.nodes import listed
from kubeloop.local.pipelines.spec.values import ParameterType

_ANY_ARTIFACT = "system.Artifact"
_NUMBERS = frozenset((ParameterType.NUMBER_INTEGER, ParameterType.NUMBER_DOUBLE))
_OBJECTS = frozenset((ParameterType.STRUCT, ParameterType.TASK_FINAL_STATUS))


def check_dag(
    component: ir.Component,
    components: Mapping[str, ir.Component],
    *,
    written: Iterable[str],
    faults: Faults,
) -> None:
    """Check what a DAG refers to: components, inputs given to them, outputs taken from them.

    Args:
        component: The component with the DAG.
        components: Those that could be read.
        written: Names of all components, those with faults included.
        faults: Takes what is wrong.
    """
    if component.dag is None:
        return
    known = set(written)
    for task in component.dag.tasks.values():
        where = _place(task, component)
        target = components.get(task.component)
        if target is None:
            if task.component not in known:
                with faults.collecting():
                    raise _refuse(
                        where,
                        f"refers to component {task.component!r}, which is not defined; defined "
                        f"are {listed(components)}",
                    )
            continue
        if task.iterator is not None and target.dag is None:
            with faults.collecting():
                raise _refuse(where, "loops over a single container")
        faults.found += _missing_inputs(task, target, where=where)
        faults.found += _wrong_sources(task, target, component=component, components=components)
    faults.found += _wrong_outputs(component, components)


def _place(task: ir.Task, component: ir.Component) -> str:
    return f"task {task.name!r} of {component.name!r}"


def _refuse(where: str, what: str) -> PipelineError:
    return refusal(f"The pipeline cannot run: {where} {what}.", where=where)


def _missing_inputs(task: ir.Task, target: ir.Component, *, where: str) -> Iterator[Fault]:
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
            what = f"does not give input {name!r}, which component {target.name!r} requires"
            yield from _refuse(where, what).faults


def _wrong_sources(
    task: ir.Task,
    target: ir.Component,
    *,
    component: ir.Component,
    components: Mapping[str, ir.Component],
) -> Iterator[Fault]:
    """Inputs that take an output which does not exist, or a value that never fits."""
    where = _place(task, component)
    for name, source in _task_outputs(task):
        producer = _producer(source, component, components)
        if producer is not None and not _has_output(producer, source.key):
            what = (
                f"takes output {source.key!r} of task {source.task!r} as input {name!r}; that task "
                f"gives {listed((*producer.output_parameters, *producer.output_artifacts))}"
            )
            yield from _refuse(where, what).faults
    for name, given in task.parameters.items():
        kind = _source_type(given, component, components)
        expected = target.input_parameters.get(name)
        if kind is not None and expected is not None and not may_fit(kind, expected.type):
            what = f"gives a {kind} as input {name!r}, which takes a {expected.type}"
            yield from _refuse(where, what).faults


def _source_type(
    given: ir.ParameterInput, component: ir.Component, components: Mapping[str, ir.Component]
) -> ParameterType | None:
    """The type that an input will have; None where it is known only when it runs."""
    if given.selector:
        return None
    match given.source:
        case ir.TaskOutput(key=key) as source:
            assert component.dag is not None
            task = component.dag.tasks.get(source.task)
            producer = _producer(source, component, components)
            if task is None or task.iterator is not None or producer is None:
                return None
            found = producer.output_parameters.get(key)
            return found.type if found is not None else None
        case ir.ComponentInput(name=name) if "loop-item" not in name:
            # NB: the types that the compiler declares for the items of a loop are guesses.
            return component.input_parameters[name].type
    return None


def may_fit(given: ParameterType, expected: ParameterType) -> bool:
    """Whether a value of one type can be taken as another, as KFP converts values between tasks."""
    if given is expected or ParameterType.STRING in (given, expected):
        return True
    pair = {given, expected}
    return pair <= _NUMBERS or pair <= _OBJECTS


def _wrong_outputs(
    component: ir.Component, components: Mapping[str, ir.Component]
) -> Iterator[Fault]:
    assert component.dag is not None
    for name, output in (
        *component.dag.parameter_outputs.items(),
        *component.dag.artifact_outputs.items(),
    ):
        for selector in output.selectors:
            source = ir.TaskOutput(task=selector.task, key=selector.key)
            producer = _producer(source, component, components)
            if producer is not None and not _has_output(producer, selector.key):
                where = f"output {name!r} of {component.name!r}"
                what = f"is {selector.key!r} of task {selector.task!r}, which gives no such output"
                yield from _refuse(where, what).faults


def find_mismatches(pipeline: ir.Pipeline) -> Iterator[Fault]:
    """Artifacts given to inputs of another type: KFP's compiler refuses them, KFP's API does not.

    Source: kfp/dsl/types/type_utils.py (check_artifact_type_compatibility).
    """
    for component in (pipeline.root, *pipeline.components.values()):
        for task in component.dag.tasks.values() if component.dag else ():
            target = pipeline.components.get(task.component)
            if target is None:
                continue
            for name, source in task.artifacts.items():
                expected = target.input_artifacts.get(name)
                given = _source_artifact(source, component, pipeline.components)
                if given is None or expected is None:
                    continue
                if fault := _mismatch(given, expected, is_loop=task.iterator is not None):
                    where = _place(task, component)
                    yield Fault(message=f"{where} gives input {name!r} {fault}.", where=where)


def _mismatch(given: ir.ArtifactSpec, expected: ir.ArtifactSpec, *, is_loop: bool) -> str:
    if given.is_list != expected.is_list and not is_loop:
        kinds = ("one artifact", "a list of artifacts")
        return f"{kinds[given.is_list]}; it takes {kinds[expected.is_list]}"
    if _ANY_ARTIFACT in (given.schema_title, expected.schema_title):
        return ""
    if given.schema_title != expected.schema_title:
        return f"a {given.schema_title}; it takes a {expected.schema_title}"
    if given.schema_version.split(".")[0] != expected.schema_version.split(".")[0]:
        return (
            f"a {given.schema_title} of version {given.schema_version}; it takes version "
            f"{expected.schema_version}"
        )
    return ""


def _source_artifact(
    source: ir.ArtifactSource, component: ir.Component, components: Mapping[str, ir.Component]
) -> ir.ArtifactSpec | None:
    if isinstance(source, ir.ComponentInput):
        return component.input_artifacts.get(source.name)
    producer = _producer(source, component, components)
    return producer.output_artifacts.get(source.key) if producer is not None else None


def _task_outputs(task: ir.Task) -> Iterator[tuple[str, ir.TaskOutput]]:
    for name, given in task.parameters.items():
        if isinstance(given.source, ir.TaskOutput):
            yield name, given.source
    for name, source in task.artifacts.items():
        if isinstance(source, ir.TaskOutput):
            yield name, source


def _producer(
    source: ir.TaskOutput, component: ir.Component, components: Mapping[str, ir.Component]
) -> ir.Component | None:
    """The component that gives an output; None where its task or it could not be read."""
    assert component.dag is not None
    task = component.dag.tasks.get(source.task)
    return components.get(task.component) if task is not None else None


def _has_output(component: ir.Component, key: str) -> bool:
    return key in component.output_parameters or key in component.output_artifacts
