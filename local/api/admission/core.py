"""Defaults and rules of the small core kinds: namespaces, config maps, secrets, services, claims.

Source: Kubernetes `pkg/apis/core/v1/defaults.go`, `pkg/apis/core/validation`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import ClassVar

from kubeloop.local.api.admission.base import Admission
from kubeloop.local.api.refusals import FieldError, invalid, value_invalid, value_required
from kubeloop.local.api.resources import (
    CONFIG_MAPS,
    EVENTS,
    NAMESPACES,
    PERSISTENT_VOLUME_CLAIMS,
    SECRETS,
    SERVICES,
    Resource,
)
from kubeloop.local.client import Manifest

_NAME_LABEL = "kubernetes.io/metadata.name"
_MAX_PORT = 65535


class NamespaceAdmission(Admission):
    """Gives namespaces their name label, their phase, and the finalizer that empties them."""

    resource: ClassVar[Resource] = NAMESPACES

    def default(self, manifest: Manifest) -> Manifest:
        """Fill in what every namespace has."""
        metadata = manifest["metadata"]
        metadata["labels"] = {**(metadata.get("labels") or {}), _NAME_LABEL: metadata["name"]}
        manifest["spec"] = {"finalizers": ["kubernetes"], **(manifest.get("spec") or {})}
        manifest.setdefault("status", {"phase": "Active"})
        return manifest


class SecretAdmission(Admission):
    """Encodes `stringData`, and refuses data that is not base64."""

    resource: ClassVar[Resource] = SECRETS

    def default(self, manifest: Manifest) -> Manifest:
        """Move `stringData` into `data`."""
        manifest.setdefault("type", "Opaque")
        texts = manifest.pop("stringData", None)
        if isinstance(texts, dict):
            data = manifest["data"] = manifest.get("data") or {}
            for key, text in texts.items():
                data[key] = base64.b64encode(str(text).encode()).decode()
        return manifest

    def validate(self, manifest: Manifest, old: Manifest | None) -> None:
        """Refuse undecodable data, and another type than before.

        Raises:
            InvalidError: One or more fields are wrong.
        """
        faults = [*_find_data_faults(manifest)]
        if old is not None and manifest["type"] != old.get("type"):
            faults.append(value_invalid("type", manifest["type"], "field is immutable"))
        if faults:
            raise invalid(SECRETS, manifest["metadata"]["name"], faults)


class ConfigMapAdmission(Admission):
    """Refuses config maps whose values are not text."""

    resource: ClassVar[Resource] = CONFIG_MAPS

    def validate(self, manifest: Manifest, old: Manifest | None) -> None:
        """Refuse values that are not strings.

        Raises:
            InvalidError: One or more fields are wrong.
        """
        del old
        faults = [
            value_invalid(f"data[{key}]", value, "must be a string")
            for key, value in (manifest.get("data") or {}).items()
            if not isinstance(value, str)
        ]
        if faults:
            raise invalid(CONFIG_MAPS, manifest["metadata"]["name"], faults)


class ServiceAdmission(Admission):
    """Defaults and validates Services; all of them answer on loopback."""

    resource: ClassVar[Resource] = SERVICES

    def default(self, manifest: Manifest) -> Manifest:
        """Fill in type, address and ports."""
        spec = manifest["spec"] = manifest.get("spec") or {}
        spec.setdefault("type", "ClusterIP")
        spec.setdefault("sessionAffinity", "None")
        if spec["type"] != "ExternalName":
            spec["clusterIP"] = spec.get("clusterIP") or "127.0.0.1"
            spec.setdefault("clusterIPs", [spec["clusterIP"]])
        for port in spec.get("ports") or ():
            port.setdefault("protocol", "TCP")
            port.setdefault("targetPort", port.get("port"))
        manifest.setdefault("status", {"loadBalancer": {}})
        return manifest

    def validate(self, manifest: Manifest, old: Manifest | None) -> None:
        """Refuse a service without usable ports.

        Raises:
            InvalidError: One or more fields are wrong.
        """
        del old
        spec = manifest["spec"]
        faults: list[FieldError] = []
        if not spec.get("ports") and spec["clusterIP" if "clusterIP" in spec else "type"] not in (
            "None",
            "ExternalName",
        ):
            faults.append(value_required("spec.ports"))
        for index, port in enumerate(spec.get("ports") or ()):
            number = port.get("port")
            if not isinstance(number, int) or not 0 < number <= _MAX_PORT:
                faults.append(
                    value_invalid(
                        f"spec.ports[{index}].port",
                        number,
                        f"must be between 1 and {_MAX_PORT}, inclusive",
                    )
                )
        if faults:
            raise invalid(SERVICES, manifest["metadata"]["name"], faults)


class EventAdmission(Admission):
    """Refuses events about nothing; clients fail to parse a list that holds one."""

    resource: ClassVar[Resource] = EVENTS

    def validate(self, manifest: Manifest, old: Manifest | None) -> None:
        """Refuse an event without `involvedObject`.

        Raises:
            InvalidError: It has none.
        """
        del old
        if not isinstance(manifest.get("involvedObject"), dict):
            fault = value_required("involvedObject")
            raise invalid(EVENTS, manifest["metadata"]["name"], [fault])


class PersistentVolumeClaimAdmission(Admission):
    """Defaults claims; every claim is a folder, bound as soon as it is made."""

    resource: ClassVar[Resource] = PERSISTENT_VOLUME_CLAIMS

    def default(self, manifest: Manifest) -> Manifest:
        """Fill in the volume mode, and bind."""
        spec = manifest["spec"] = manifest.get("spec") or {}
        spec.setdefault("volumeMode", "Filesystem")
        spec.setdefault("volumeName", f"pvc-{manifest['metadata']['uid']}")
        if "status" not in manifest:
            requests = (spec.get("resources") or {}).get("requests") or {}
            manifest["status"] = {
                "phase": "Bound",
                "accessModes": spec.get("accessModes") or [],
                "capacity": dict(requests),
            }
        return manifest


def _find_data_faults(manifest: Manifest) -> Iterator[FieldError]:
    for key, value in (manifest.get("data") or {}).items():
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, TypeError, ValueError):
            yield value_invalid(f"data[{key}]", "<redacted>", "must be base64")
