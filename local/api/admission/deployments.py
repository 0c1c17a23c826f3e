"""Defaults and rules of apps/v1 Deployments.

Source: Kubernetes `pkg/apis/apps/v1/defaults.go`, `pkg/apis/apps/validation`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar

from kubeloop.local.api.admission.base import Admission
from kubeloop.local.api.admission.pods import default_pod_spec, find_pod_spec_faults
from kubeloop.local.api.refusals import (
    FieldError,
    invalid,
    value_invalid,
    value_required,
    value_unsupported,
)
from kubeloop.local.api.resources import DEPLOYMENTS, Resource
from kubeloop.local.client import Manifest

_STRATEGIES = ("Recreate", "RollingUpdate")
_PERCENT = re.compile(r"[0-9]+%")
_COUNTS = ("replicas", "minReadySeconds", "progressDeadlineSeconds", "revisionHistoryLimit")


class DeploymentAdmission(Admission):
    """Defaults and validates Deployments."""

    resource: ClassVar[Resource] = DEPLOYMENTS

    def default(self, manifest: Manifest) -> Manifest:
        """Fill in counts, the rolling update and the pod template."""
        spec = manifest.get("spec")
        if not isinstance(spec, dict):
            return manifest
        defaults = {"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600}
        for key, value in defaults.items():
            if spec.get(key) is None:
                spec[key] = value
        strategy = spec["strategy"] = _mapping(spec.get("strategy"))
        strategy.setdefault("type", "RollingUpdate")
        if strategy["type"] == "RollingUpdate":
            rolling = strategy["rollingUpdate"] = _mapping(strategy.get("rollingUpdate"))
            rolling.setdefault("maxSurge", "25%")
            rolling.setdefault("maxUnavailable", "25%")
        pod_spec = _mapping(spec.get("template")).get("spec")
        if not [*find_pod_spec_faults(pod_spec, path="")]:
            default_pod_spec(_mapping(pod_spec))
        return manifest

    def validate(self, manifest: Manifest, old: Manifest | None) -> None:
        """Refuse a Deployment that cannot run, or that changes what must not change.

        Raises:
            InvalidError: One or more fields are wrong.
        """
        spec = _mapping(manifest.get("spec"))
        faults = [*_find_faults(spec)]
        if old is not None and not faults and spec["selector"] != old["spec"]["selector"]:
            faults = [value_invalid("spec.selector", spec["selector"], "field is immutable")]
        if faults:
            raise invalid(DEPLOYMENTS, manifest["metadata"]["name"], faults)


def _mapping(value: Any) -> dict[str, Any]:  # value: any JSON
    return value if isinstance(value, dict) else {}


def _find_faults(spec: Manifest) -> Iterator[FieldError]:
    for key in _COUNTS:
        value = spec.get(key)
        if value is not None and (type(value) is not int or value < 0):
            yield value_invalid(f"spec.{key}", value, "must be greater than or equal to 0")
    yield from _find_strategy_faults(_mapping(spec.get("strategy")))
    selector = _mapping(spec.get("selector"))
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        yield value_required("spec.selector")
    template = _mapping(spec.get("template"))
    labels = _mapping(_mapping(template.get("metadata")).get("labels"))
    wanted = _mapping(selector.get("matchLabels"))
    if any(labels.get(key) != value for key, value in wanted.items()):
        yield value_invalid(
            "spec.template.metadata.labels",
            labels,
            "`selector` does not match template `labels`",
        )
    pod_spec = template.get("spec")
    yield from find_pod_spec_faults(pod_spec, path="spec.template.spec")
    if _mapping(pod_spec).get("restartPolicy", "Always") != "Always":
        yield value_unsupported(
            "spec.template.spec.restartPolicy", _mapping(pod_spec)["restartPolicy"], ["Always"]
        )


def _find_strategy_faults(strategy: Manifest) -> Iterator[FieldError]:
    if strategy.get("type") not in _STRATEGIES:
        yield value_unsupported("spec.strategy.type", str(strategy.get("type")), _STRATEGIES)
        return
    rolling = _mapping(strategy.get("rollingUpdate"))
    for key in ("maxSurge", "maxUnavailable"):
        value = rolling.get(key, 0)
        is_count = type(value) is int and value >= 0
        if not is_count and not (isinstance(value, str) and _PERCENT.fullmatch(value)):
            yield value_invalid(
                f"spec.strategy.rollingUpdate.{key}",
                value,
                "must be an integer or a percentage, such as 1 or '25%'",
            )
    if rolling and all(rolling.get(key) in (0, "0%") for key in ("maxSurge", "maxUnavailable")):
        yield value_invalid(
            "spec.strategy.rollingUpdate.maxUnavailable",
            rolling["maxUnavailable"],
            "may not be 0 when `maxSurge` is 0",
        )
