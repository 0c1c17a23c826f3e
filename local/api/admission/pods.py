"""Defaults and rules of Pods, and of the pod templates inside other kinds.

Source: Kubernetes `pkg/apis/core/v1/defaults.go`, `pkg/apis/core/validation`,
`pkg/registry/core/pod/strategy.go`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar

from kubeloop.errors import InputError
from kubeloop.local.api.admission.base import Admission
from kubeloop.local.api.refusals import (
    FieldError,
    invalid,
    value_forbidden,
    value_invalid,
    value_required,
    value_unsupported,
)
from kubeloop.local.api.resources import PODS, Resource
from kubeloop.local.client import Manifest
from kubeloop.local.quantities import parse_quantity

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_MAX_LABEL = 63
_MAX_PORT = 65535
_RESTART_POLICIES = ("Always", "OnFailure", "Never")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_SPEC_DEFAULTS = {
    "restartPolicy": "Always",
    "dnsPolicy": "ClusterFirst",
    "schedulerName": "default-scheduler",
    "serviceAccountName": "default",
    "terminationGracePeriodSeconds": 30,
}
_CONTAINER_DEFAULTS = {
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
}
_PROBE_DEFAULTS = {
    "failureThreshold": 3,
    "periodSeconds": 10,
    "successThreshold": 1,
    "timeoutSeconds": 1,
}
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_MUTABLE = ("activeDeadlineSeconds", "terminationGracePeriodSeconds", "tolerations")


class PodAdmission(Admission):
    """Defaults and validates Pods."""

    resource: ClassVar[Resource] = PODS

    def default(self, manifest: Manifest) -> Manifest:
        """Fill in the spec, and the status of a pod that nobody has looked at yet."""
        spec: Any = manifest.get("spec")  # any JSON
        if _is_well_formed(spec):
            default_pod_spec(spec)
            if "status" not in manifest:
                manifest["status"] = {"phase": "Pending", "qosClass": _quality_class(spec)}
        return manifest

    def validate(self, manifest: Manifest, old: Manifest | None) -> None:
        """Refuse a pod that cannot run, or a change of what is fixed at creation.

        Raises:
            InvalidError: One or more fields are wrong.
        """
        spec: Any = manifest.get("spec")  # any JSON
        faults = [*find_pod_spec_faults(spec, path="spec")]
        if (
            old is not None
            and not faults
            and _fixed_part(spec, old) != _fixed_part(old["spec"], old)
        ):
            faults = [
                value_forbidden(
                    "spec",
                    "pod updates may not change fields other than `spec.containers[*].image`,"
                    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
                    "`spec.tolerations`,`spec.terminationGracePeriodSeconds`",
                )
            ]
        if faults:
            raise invalid(PODS, manifest["metadata"]["name"], faults)


def default_pod_spec(spec: Manifest) -> None:
    """Fill in what Kubernetes fills in, in place; the spec has been found well-formed."""
    for key, value in _SPEC_DEFAULTS.items():
        if spec.get(key) is None:
            spec[key] = value
    spec.setdefault("securityContext", {})
    for container in _containers(spec):
        _default_container(container)
    for volume in spec.get("volumes") or ():
        for source in ("configMap", "secret", "projected", "downwardAPI"):
            if isinstance(volume.get(source), dict):
                volume[source].setdefault("defaultMode", 0o644)


def find_pod_spec_faults(spec: Any, *, path: str) -> Iterator[FieldError]:  # spec: any JSON
    """The faults of a pod's or a template's spec."""
    if not isinstance(spec, dict) or not spec.get("containers"):
        yield value_required(f"{path}.containers")
        return
    if not _is_well_formed(spec):
        yield value_invalid(
            path, "", "containers, env, ports, mounts and volumes are lists of objects"
        )
        return
    policy = spec.get("restartPolicy")
    if policy is not None and policy not in _RESTART_POLICIES:
        yield value_unsupported(f"{path}.restartPolicy", policy, _RESTART_POLICIES)
    volumes = {volume.get("name") for volume in spec.get("volumes") or ()}
    names: set[str] = set()
    for part in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(part) or ()):
            where = f"{path}.{part}[{index}]"
            yield from _find_container_faults(container, where, volumes)
            name = container.get("name")
            if name in names:
                yield FieldError(
                    field=f"{where}.name",
                    reason="FieldValueDuplicate",
                    message=f'Duplicate value: "{name}"',
                )
            names.add(name)


def _is_well_formed(spec: Any) -> bool:  # any JSON
    """Whether lists that are walked below are lists of objects, so that walking cannot fail."""
    if not isinstance(spec, dict):
        return False
    parts = [spec.get(part) for part in ("containers", "initContainers", "volumes")]
    if not all(map(_is_object_list, parts)):
        return False
    return (
        all(
            _is_object_list(container.get(part))
            for container in _containers(spec)
            for part in ("env", "envFrom", "ports", "volumeMounts")
        )
        and all(
            isinstance(container.get(part) or {}, dict)
            for container in _containers(spec)
            for part in ("resources", *_PROBES)
        )
        and all(
            isinstance((container.get("resources") or {}).get(part) or {}, dict)
            for container in _containers(spec)
            for part in ("limits", "requests")
        )
    )


def _is_object_list(value: Any) -> bool:  # any JSON
    return value is None or (
        isinstance(value, list) and all(isinstance(item, dict) for item in value)
    )


def _containers(spec: Manifest) -> list[Manifest]:
    return [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]


def _default_container(container: Manifest) -> None:
    for key, value in _CONTAINER_DEFAULTS.items():
        container.setdefault(key, value)
    image = str(container.get("image") or "")
    _, _, tag = image.rpartition("/")[2].partition(":")
    if not container.get("imagePullPolicy"):
        latest = tag in ("", "latest") and "@" not in image
        container["imagePullPolicy"] = "Always" if latest else "IfNotPresent"
    resources = container["resources"] = container.get("resources") or {}
    if limits := resources.get("limits"):
        resources["requests"] = {**limits, **(resources.get("requests") or {})}
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
    for variable in container.get("env") or ():
        source = variable.get("valueFrom")
        if isinstance(source, dict) and isinstance(source.get("fieldRef"), dict):
            source["fieldRef"].setdefault("apiVersion", "v1")
    for probe in filter(None, (container.get(name) for name in _PROBES)):
        for key, number in _PROBE_DEFAULTS.items():
            probe.setdefault(key, number)
        if isinstance(probe.get("httpGet"), dict):
            probe["httpGet"].setdefault("path", "/")
            probe["httpGet"].setdefault("scheme", "HTTP")


def _find_container_faults(
    container: Manifest, where: str, volumes: set[str | None]
) -> Iterator[FieldError]:
    name = container.get("name")
    if not name:
        yield value_required(f"{where}.name")
    elif not isinstance(name, str) or len(name) > _MAX_LABEL or not _LABEL.fullmatch(name):
        yield value_invalid(f"{where}.name", name, "a lowercase RFC 1123 label is needed")
    if not container.get("image"):
        yield value_required(f"{where}.image")
    policy = container.get("imagePullPolicy")
    if policy is not None and policy not in _PULL_POLICIES:
        yield value_unsupported(f"{where}.imagePullPolicy", policy, _PULL_POLICIES)
    for index, variable in enumerate(container.get("env") or ()):
        if not variable.get("name"):
            yield value_required(f"{where}.env[{index}].name")
        if variable.get("value") is not None and not isinstance(variable["value"], str):
            yield value_invalid(
                f"{where}.env[{index}].value", variable["value"], "must be a string"
            )
    for index, port in enumerate(container.get("ports") or ()):
        number = port.get("containerPort")
        if not isinstance(number, int) or not 0 < number <= _MAX_PORT:
            field = f"{where}.ports[{index}].containerPort"
            yield value_invalid(field, number, f"must be between 1 and {_MAX_PORT}, inclusive")
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        if mount.get("name") not in volumes:
            field = f"{where}.volumeMounts[{index}].name"
            yield FieldError(
                field=field,
                reason="FieldValueNotFound",
                message=f'Not found: "{mount.get("name")}"',
            )
    yield from _find_resource_faults(container.get("resources") or {}, f"{where}.resources")


def _find_resource_faults(resources: Manifest, where: str) -> Iterator[FieldError]:
    amounts: dict[tuple[str, str], Any] = {}  # decimals, compared only
    for part in ("limits", "requests"):
        for name, quantity in (resources.get(part) or {}).items():
            try:
                amounts[part, name] = parse_quantity(quantity)
            except InputError as error:
                yield value_invalid(f"{where}.{part}[{name}]", quantity, str(error))
    for (part, name), amount in amounts.items():
        limit = amounts.get(("limits", name))
        if part == "requests" and limit is not None and amount > limit:
            yield value_invalid(
                f"{where}.requests",
                resources["requests"][name],
                f"must be less than or equal to {name} limit of {resources['limits'][name]}",
            )


def _fixed_part(spec: Manifest, old: Manifest) -> Manifest:
    """The spec without what may change, so that two of them can be compared."""
    fixed = {key: value for key, value in spec.items() if key not in _MUTABLE}
    if not old["spec"].get("nodeName"):
        fixed.pop("nodeName", None)  # binding a pod to its node
    for part in ("containers", "initContainers"):
        fixed[part] = [
            {key: value for key, value in container.items() if key != "image"}
            for container in spec.get(part) or ()
        ]
    return fixed


def _quality_class(spec: Manifest) -> str:
    resources = [container.get("resources") or {} for container in _containers(spec)]
    if not any(r.get("limits") or r.get("requests") for r in resources):
        return "BestEffort"
    guaranteed = all(
        (r.get("limits") or {}).get(name) is not None
        and (r.get("requests") or {}).get(name) == r["limits"][name]
        for r in resources
        for name in ("cpu", "memory")
    )
    return "Guaranteed" if guaranteed else "Burstable"
