"""Reads the executors of a pipeline: containers with what they ask for, and importers."""

from __future__ import annotations

from kubeloop.local.pipelines.spec import ir
from kubeloop.local.pipelines.spec.faults import Faults
from kubeloop.local.pipelines.spec.kubernetes_config import describe_ignored
from kubeloop.local.pipelines.spec.nodes import Node
from kubeloop.local.pipelines.spec.values import canonical

_GIGABYTE = 1_000_000_000


def parse_executors(
    spec: Node, platform: Node, *, faults: Faults
) -> tuple[dict[str, ir.ContainerSpec | ir.ImporterSpec], tuple[str, ...]]:
    """Read all executors, and note what of their platform configuration has no effect here.

    An executor that is malformed, or of a kind that only a cloud service runs, is a fault.
    """
    kubernetes = platform.child("platforms").child("kubernetes").child("deploymentSpec")
    executors: dict[str, ir.ContainerSpec | ir.ImporterSpec] = {}
    notes: list[str] = []
    for label, node in spec.child("deploymentSpec").child("executors").each():
        with faults.collecting():
            if container := node.child("container"):
                config = dict(kubernetes.child("executors").child(label).mapping())
                parsed = executors[label] = _parse_container(container, config)
                notes += [f"{label}: {note}" for note in parsed.notes]
            elif importer := node.child("importer"):
                executors[label] = _parse_importer(importer)
            else:
                kinds = ", ".join(key for key, _ in node.each()) or "nothing"
                raise node.refuse(f"a container or an importer is expected, not {kinds}")
    return executors, tuple(notes)


def _parse_container(node: Node, kubernetes: dict[str, object]) -> ir.ContainerSpec:
    if not node.text("image"):
        raise node.refuse("a container needs an image")
    return ir.ContainerSpec(
        image=node.text("image"),
        command=node.texts("command"),
        args=node.texts("args"),
        env=tuple((item.text("name"), item.text("value")) for item in node.elements("env")),
        resources=_parse_resources(node.child("resources")),
        kubernetes=kubernetes,
        notes=tuple(describe_ignored(kubernetes)),
    )


def _parse_resources(node: Node) -> ir.Resources:
    requests: dict[str, str] = {}
    limits: dict[str, str] = {}
    for kind, target in (("Request", requests), ("Limit", limits)):
        if cpu := node.text(f"resourceCpu{kind}"):
            target["cpu"] = cpu
        elif number := node.number(f"cpu{kind}"):
            target["cpu"] = f"{number:g}"
        if memory := node.text(f"resourceMemory{kind}"):
            target["memory"] = memory
        elif number := node.number(f"memory{kind}"):
            target["memory"] = str(round(number * _GIGABYTE))
    if accelerator := node.child("accelerator"):
        name = accelerator.text("resourceType") or accelerator.text("type")
        count = accelerator.text("resourceCount") or str(int(accelerator.number("count")))
        if name and count != "0":
            limits[name] = count
    return ir.Resources(requests=requests, limits=limits)


def _parse_importer(node: Node) -> ir.ImporterSpec:
    uri = node.child("artifactUri")
    schema = node.child("typeSchema")
    constant = uri.get("constant")
    if constant is None:
        constant = uri.child("constantValue").get("stringValue")
    return ir.ImporterSpec(
        artifact=ir.ArtifactSpec(
            schema_title=schema.text("schemaTitle") or "system.Artifact",
            schema_version=schema.text("schemaVersion") or "0.0.1",
        ),
        uri="" if constant is None else str(constant),
        uri_input=uri.text("runtimeParameter"),
        metadata=canonical(dict(node.child("metadata").mapping())),
        reimport=node.flag("reimport"),
    )
