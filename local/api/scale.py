"""The `scale` subresource: a kind's replica count as an autoscaling/v1 Scale."""

from __future__ import annotations

from kubeloop.local.api import refusals
from kubeloop.local.api.jsonpath import find_value, set_value
from kubeloop.local.api.refusals import value_invalid
from kubeloop.local.api.resources import Resource, Scale
from kubeloop.local.client import Manifest

_METADATA = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


def render_scale(scale: Scale, manifest: Manifest) -> Manifest:
    """The Scale of an object."""
    selector = find_value(manifest, scale.selector)
    if isinstance(selector, dict):
        labels = selector.get("matchLabels") or {}
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
    metadata = manifest["metadata"]
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: metadata[key] for key in _METADATA if key in metadata},
        "spec": {"replicas": find_value(manifest, scale.spec_replicas) or 0},
        "status": {
            "replicas": find_value(manifest, scale.status_replicas) or 0,
            "selector": selector or "",
        },
    }


def apply_scale(resource: Resource, scale: Scale, manifest: Manifest, body: Manifest) -> None:
    """Write a Scale's replica count into the object.

    Raises:
        InvalidError: It is no count.
        ConflictError: The Scale is of another version of the object.
    """
    name = manifest["metadata"]["name"]
    replicas = (body.get("spec") or {}).get("replicas", 0)
    if not isinstance(replicas, int) or replicas < 0:
        fault = value_invalid("spec.replicas", replicas, "must be greater than or equal to 0")
        raise refusals.invalid(resource, name, [fault])
    version = (body.get("metadata") or {}).get("resourceVersion")
    if version and version != manifest["metadata"]["resourceVersion"]:
        raise refusals.conflict(resource, name)
    set_value(manifest, scale.spec_replicas, replicas)
