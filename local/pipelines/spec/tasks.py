"""Reads one task of a DAG: its inputs, its iterator, and when it runs."""

from __future__ import annotations

import json

from kubeloop.local.pipelines.spec import ir
from kubeloop.local.pipelines.spec.nodes import Node
from kubeloop.local.pipelines.spec.values import JsonValue, canonical


def parse_task(name: str, node: Node, component: ir.Component) -> ir.Task:
    """Read a task that stands in `component`.

    Raises:
        InputError: Something in it is missing, of the wrong type, or refers to an input that
            `component` does not have.
    """
    inputs = node.child("inputs")
    iterator = _parse_iterator(node)
    # A field of the loop's item that is used inside a text: the compiler writes it as an input
    # that nothing gives; the iteration takes it from the item itself.
    item_field = f"{iterator.item_input}-subvar-" if iterator is not None else None
    parameters = {
        key: _parse_parameter_input(item, component)
        for key, item in inputs.child("parameters").each()
        if item_field is None or not key.startswith(item_field)
    }
    artifacts = {
        key: _parse_artifact_input(item, component)
        for key, item in inputs.child("artifacts").each()
    }
    trigger = node.child("triggerPolicy")
    caching = node.child("cachingOptions")
    return ir.Task(
        name=name,
        display_name=node.child("taskInfo").text("name") or name,
        component=node.child("componentRef").text("name"),
        parameters=parameters,
        artifacts=artifacts,
        upstream=_upstream(node.texts("dependentTasks"), parameters, artifacts),
        condition=trigger.text("condition"),
        strategy=_parse_strategy(trigger),
        cache_enabled=caching.flag("enableCache"),
        cache_key=caching.text("cacheKey"),
        retry=_parse_retry(node.child("retryPolicy")),
        iterator=iterator,
        parallelism=int(node.child("iteratorPolicy").number("parallelismLimit")),
    )


def _upstream(
    named: tuple[str, ...],
    parameters: dict[str, ir.ParameterInput],
    artifacts: dict[str, ir.ArtifactSource],
) -> tuple[str, ...]:
    sources = [*(item.source for item in parameters.values()), *artifacts.values()]
    producers = [
        source.task for source in sources if isinstance(source, ir.TaskOutput | ir.FinalStatus)
    ]
    return tuple(dict.fromkeys((*named, *producers)))


def _parse_parameter_input(node: Node, component: ir.Component) -> ir.ParameterInput:
    selector = node.text("parameterExpressionSelector")
    if node.get("componentInputParameter") is not None:
        name = node.text("componentInputParameter")
        if name not in component.input_parameters:
            raise node.refuse(f"{component.name!r} has no input parameter {name!r}")
        return ir.ParameterInput(source=ir.ComponentInput(name=name), selector=selector)
    if output := node.child("taskOutputParameter"):
        source = ir.TaskOutput(
            task=output.text("producerTask"), key=output.text("outputParameterKey")
        )
        return ir.ParameterInput(source=source, selector=selector)
    if status := node.child("taskFinalStatus"):
        return ir.ParameterInput(source=ir.FinalStatus(task=status.text("producerTask")))
    if node.get("runtimeValue") is not None:
        value = _parse_constant(node.child("runtimeValue"))
        return ir.ParameterInput(source=ir.Constant(value=value), selector=selector)
    raise node.refuse("the input has no source")


def _parse_constant(node: Node) -> JsonValue:
    if "constant" in node.mapping():
        return canonical(node.get("constant"))
    for key, convert in (("stringValue", str), ("intValue", int), ("doubleValue", float)):
        old = node.child("constantValue").get(key)
        if old is not None:
            return canonical(convert(old))
    raise node.refuse("a constant is expected")


def _parse_artifact_input(node: Node, component: ir.Component) -> ir.ArtifactSource:
    if node.get("componentInputArtifact") is not None:
        name = node.text("componentInputArtifact")
        if name not in component.input_artifacts:
            raise node.refuse(f"{component.name!r} has no input artifact {name!r}")
        return ir.ComponentInput(name=name)
    if output := node.child("taskOutputArtifact"):
        return ir.TaskOutput(task=output.text("producerTask"), key=output.text("outputArtifactKey"))
    raise node.refuse("the input has no source")


def _parse_strategy(trigger: Node) -> ir.TriggerStrategy:
    written = trigger.text("strategy")
    if written in ("", "TRIGGER_STRATEGY_UNSPECIFIED"):
        return ir.TriggerStrategy.ALL_UPSTREAM_TASKS_SUCCEEDED
    try:
        return ir.TriggerStrategy(written)
    except ValueError:
        raise trigger.refuse(f"trigger strategy {written!r} is not known") from None


def _parse_retry(node: Node) -> ir.RetryPolicy:
    return ir.RetryPolicy(
        max_retries=int(node.number("maxRetryCount")),
        backoff_seconds=node.seconds("backoffDuration"),
        backoff_factor=node.number("backoffFactor", default=2.0),
        backoff_max_seconds=node.seconds("backoffMaxDuration", default=3600.0),
    )


def _parse_iterator(node: Node) -> ir.ParameterIterator | ir.ArtifactIterator | None:
    if artifacts := node.child("artifactIterator"):
        return ir.ArtifactIterator(
            item_input=artifacts.text("itemInput"),
            items_input=artifacts.child("items").text("inputArtifact"),
        )
    if not (parameters := node.child("parameterIterator")):
        return None
    items = parameters.child("items")
    item_input = parameters.text("itemInput")
    if items.get("raw") is None:
        return ir.ParameterIterator(item_input=item_input, items_input=items.text("inputParameter"))
    try:
        constant = canonical(json.loads(items.text("raw")))
    except ValueError as error:
        raise items.refuse(f"the items are not JSON: {error}") from error
    if not isinstance(constant, list):
        raise items.refuse("the items of a loop are a list")
    return ir.ParameterIterator(item_input=item_input, constant_items=constant)
