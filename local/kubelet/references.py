"""The objects that a pod's environment and volumes refer to, and what a pod tells of itself."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from kubeloop.errors import InputError, TransientError
from kubeloop.local.client import Manifest
from kubeloop.local.quantities import parse_quantity

_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")
NODE_ADDRESS = "127.0.0.1"


class MissingReferenceError(TransientError):
    """Something that a pod refers to is not there (yet)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceNames:
    """Names of what a pod refers to, all in its own namespace."""

    config_maps: frozenset[str]
    secrets: frozenset[str]
    claims: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """Those of the named objects that exist."""

    config_maps: Mapping[str, Manifest] = field(default_factory=dict)
    secrets: Mapping[str, Manifest] = field(default_factory=dict)
    claims: Mapping[str, Manifest] = field(default_factory=dict)

    def config_map(self, name: str, *, optional: bool) -> dict[str, bytes]:
        """Keys and contents of a config map; empty if it may be missing and is.

        Raises:
            MissingReferenceError: There is none, and there must be.
        """
        manifest = self.config_maps.get(name)
        if manifest is None:
            return _missing(f'configmap "{name}" not found', optional=optional)
        texts: Mapping[str, str] = manifest.get("data") or {}
        binary: Mapping[str, str] = manifest.get("binaryData") or {}
        return {key: text.encode() for key, text in texts.items()} | _decode(binary)

    def secret(self, name: str, *, optional: bool) -> dict[str, bytes]:
        """Keys and contents of a secret, as `config_map`."""
        manifest = self.secrets.get(name)
        if manifest is None:
            return _missing(f'secret "{name}" not found', optional=optional)
        return _decode(manifest.get("data") or {})


def list_reference_names(pod: Manifest) -> ReferenceNames:
    """What a pod's containers and volumes refer to."""
    spec = pod["spec"]
    sources = [*_env_sources(spec), *_volume_sources(spec)]
    return ReferenceNames(
        config_maps=frozenset(name for kind, name in sources if kind == "configMap"),
        secrets=frozenset(name for kind, name in sources if kind == "secret"),
        claims=frozenset(name for kind, name in sources if kind == "claim"),
    )


def read_field(pod: Manifest, path: str) -> str:
    """The value of a `fieldRef`.

    Raises:
        InputError: The path is none that Kubernetes offers.
    """
    metadata, spec = pod["metadata"], pod["spec"]
    if found := _SUBSCRIPT.fullmatch(path):
        return str((metadata.get(found[1]) or {}).get(found[2], ""))
    values = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "status.hostIP": NODE_ADDRESS,
        "status.hostIPs": NODE_ADDRESS,
        "status.podIP": NODE_ADDRESS,
        "status.podIPs": NODE_ADDRESS,
    }
    if path in ("metadata.labels", "metadata.annotations"):
        entries = metadata.get(path.partition(".")[2]) or {}
        return "\n".join(f'{key}="{value}"' for key, value in sorted(entries.items()))
    if path not in values:
        raise InputError(
            f"fieldPath {path!r} is not supported; accepted are {', '.join(values)}, "
            "metadata.labels['KEY'] and metadata.annotations['KEY']."
        )
    return str(values[path])


def read_resource_field(
    pod: Manifest, source: Manifest, *, container: str, allocatable: Mapping[str, Decimal]
) -> str:
    """The value of a `resourceFieldRef`: a limit or request, rounded up to its divisor.

    Raises:
        InputError: There is no such container.
    """
    name = source.get("containerName") or container
    spec = pod["spec"]
    every = [*(spec.get("initContainers") or ()), *spec["containers"]]
    found = next((entry for entry in every if entry["name"] == name), None)
    if found is None:
        raise InputError(f"resourceFieldRef names container {name!r}, which the pod does not have.")
    kind, _, resource = source["resource"].partition(".")
    resources = found.get("resources") or {}
    amount = (resources.get(kind) or {}).get(resource)
    if amount is None and kind == "requests":
        amount = (resources.get("limits") or {}).get(resource)
    value = parse_quantity(amount) if amount is not None else allocatable.get(resource, Decimal(0))
    divisor = parse_quantity(source.get("divisor") or "1") or Decimal(1)
    return str(math.ceil(value / divisor))


def _env_sources(spec: Manifest) -> Iterator[tuple[str, str]]:
    for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
        for entry in container.get("envFrom") or ():
            for key, kind in (("configMapRef", "configMap"), ("secretRef", "secret")):
                if entry.get(key):
                    yield kind, entry[key]["name"]
        for entry in container.get("env") or ():
            source = entry.get("valueFrom") or {}
            for key, kind in (("configMapKeyRef", "configMap"), ("secretKeyRef", "secret")):
                if source.get(key):
                    yield kind, source[key]["name"]


def _volume_sources(spec: Manifest) -> Iterator[tuple[str, str]]:
    for volume in spec.get("volumes") or ():
        for part in (volume, *((volume.get("projected") or {}).get("sources") or ())):
            if part.get("configMap"):
                yield "configMap", part["configMap"]["name"]
            if secret := part.get("secret"):
                yield "secret", secret.get("secretName") or secret["name"]
            if claim := part.get("persistentVolumeClaim"):
                yield "claim", claim["claimName"]


def _missing(message: str, *, optional: bool) -> dict[str, bytes]:
    if not optional:
        raise MissingReferenceError(message)
    return {}


def _decode(data: Mapping[str, str]) -> dict[str, bytes]:
    return {key: base64.b64decode(text) for key, text in data.items()}
