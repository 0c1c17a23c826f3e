"""A step's own settings as its input, for steps that start something bigger and pass them on.

A component of KFP 2.15 or later names the settings that it takes. What it takes is not applied to
its own Pod, unless it says that it shall be: a step that starts a training job with four GPUs needs
none itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from kubeloop.local.client import Manifest
from kubeloop.local.pipelines.spec import ir
from kubeloop.local.pipelines.spec.values import JsonValue, ParameterType


@dataclass(frozen=True, slots=True, kw_only=True)
class PodParts:
    """What settings make of a Pod."""

    env: list[Manifest]
    resources: Manifest
    volumes: list[Manifest]
    mounts: list[Manifest]


def find_input(component: ir.Component) -> str:
    """The input that takes the settings; empty where there is none."""
    for name, spec in component.input_parameters.items():
        if spec.type is ParameterType.TASK_CONFIG:
            return name
    return ""


def forward(
    component: ir.Component, parts: PodParts, *, kubernetes: Mapping[str, Any]
) -> tuple[dict[str, JsonValue], PodParts]:
    """The value of the input, and what is left for the step's own Pod."""
    taken = component.passthroughs
    value: dict[str, JsonValue] = {}
    left = parts
    if "RESOURCES" in taken:
        value["resources"] = parts.resources
        left = left if taken["RESOURCES"] else replace(left, resources={})
    if "ENV" in taken:
        value["env"] = parts.env
        left = left if taken["ENV"] else replace(left, env=[])
    if "KUBERNETES_VOLUMES" in taken:
        value |= {"volumes": parts.volumes, "volumeMounts": parts.mounts}
        left = left if taken["KUBERNETES_VOLUMES"] else replace(left, volumes=[], mounts=[])
    if "KUBERNETES_NODE_SELECTOR" in taken:
        value["nodeSelector"] = (kubernetes.get("nodeSelector") or {}).get("labels") or {}
    if "KUBERNETES_TOLERATIONS" in taken:
        value["tolerations"] = list(kubernetes.get("tolerations") or ())
    if "KUBERNETES_AFFINITY" in taken:
        value["affinity"] = _render_affinity(kubernetes.get("nodeAffinity") or ())
    return value, left


def _render_affinity(terms: Any) -> dict[str, JsonValue]:
    """Node affinity as a Pod has it."""
    required, preferred = [], []
    for term in terms:
        rules = {key: term[key] for key in ("matchExpressions", "matchFields") if term.get(key)}
        if "weight" in term:
            preferred.append({"weight": int(term["weight"]), "preference": rules})
        else:
            required.append(rules)
    affinity: dict[str, JsonValue] = {}
    if required:
        selector = {"nodeSelectorTerms": required}
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] = selector
    if preferred:
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = preferred
    return {"nodeAffinity": affinity} if affinity else {}
