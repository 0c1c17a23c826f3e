"""kfp-kubernetes settings of an executor, as parts of its Pod.

Settings that choose between nodes or guard registries mean nothing where there is one node and no
registry: they are accepted, so that the same file runs, and said to be ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kubeloop.errors import InputError
from kubeloop.local.pipelines.spec.nodes import Node
from kubeloop.local.pipelines.spec.values import JsonValue

Resolve = Callable[[Mapping[str, Any]], JsonValue]
"""The value of an `InputParameterSpec`, in the DAG that the task stands in."""

_IGNORED = {
    "nodeSelector": "node selectors have no effect on a machine of one node",
    "tolerations": "tolerations have no effect on a machine of one node",
    "nodeAffinity": "node affinity has no effect on a machine of one node",
    "podAffinity": "pod affinity has no effect on a machine of one node",
    "imagePullSecret": "image pull secrets have no effect where no image is pulled",
    "securityContext": "security contexts have no effect on processes without containers",
    "enabledSharedMemory": "shared memory is the machine's own, its size cannot be set",
}
_SIZED = frozenset(("emptyDirMounts", "genericEphemeralVolume"))
_SIZES = frozenset(("medium", "sizeLimit", "size", "storageClassName"))
_IGNORED_OF_PIPELINE = {
    "resourceTtlOnCompletion": "a run's Pods stay until the run is deleted",
    "resourceTtlOnSuccess": "a run's Pods stay until the run is deleted",
    "resourceTtlOnFailure": "a run's Pods stay until the run is deleted",
}
_APPLIED = frozenset(
    (
        "secretAsEnv",
        "secretAsVolume",
        "configMapAsEnv",
        "configMapAsVolume",
        "fieldPathAsEnv",
        "podMetadata",
        "pvcMount",
        "emptyDirMounts",
        "genericEphemeralVolume",
        "activeDeadlineSeconds",
        "imagePullPolicy",
    )
)


@dataclass(slots=True, kw_only=True)
class PodSettings:
    """What the platform configuration adds to a Pod; lists are manifests."""

    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    env: list[dict[str, Any]] = field(default_factory=list)
    volumes: list[dict[str, Any]] = field(default_factory=list)
    mounts: list[dict[str, Any]] = field(default_factory=list)
    active_deadline_seconds: int | None = None
    image_pull_policy: str = ""
    claims: tuple[str, ...] = ()
    """Names of the mounted persistent volume claims: part of the cache's key."""

    def mount(self, source: dict[str, Any], path: str, *, sub_path: str = "") -> None:
        """Add a volume and where it is mounted."""
        name = f"kfp-volume-{len(self.volumes)}"
        self.volumes.append({"name": name, **source})
        mount = {"name": name, "mountPath": path}
        self.mounts.append({**mount, "subPath": sub_path} if sub_path else mount)


def describe_ignored(config: Mapping[str, Any]) -> list[str]:
    """One sentence for each setting that has no effect here."""
    notes = []
    for key in config:
        if key in _IGNORED:
            notes.append(f"{key} is ignored: {_IGNORED[key]}")
        elif key not in _APPLIED:
            notes.append(f"{key} is ignored: this version does not know it")
        elif key in _SIZED and any(_SIZES & item.keys() for item in config[key]):
            notes.append(f"the size and medium of {key} are ignored: volumes are folders on disk")
    return notes


def describe_ignored_of_pipeline(config: Node) -> list[str]:
    """The same for the configuration of the whole pipeline."""
    return [
        f"{key} is ignored: {_IGNORED_OF_PIPELINE.get(key, 'this version does not know it')}"
        for key, _ in config.each()
        if key not in ("workspace", "activeDeadlineSeconds")
    ] + (
        ["workspace.size is ignored: the disk is the only limit"] if config.get("workspace") else []
    )


def build_pod_settings(config: Mapping[str, Any], resolve: Resolve) -> PodSettings:
    """Render an executor's `platforms.kubernetes` configuration.

    Raises:
        InputError: A name in it is missing or no text.
    """
    settings = PodSettings()
    metadata = config.get("podMetadata") or {}
    settings.labels.update(metadata.get("labels") or {})
    settings.annotations.update(metadata.get("annotations") or {})
    if deadline := config.get("activeDeadlineSeconds"):
        settings.active_deadline_seconds = int(deadline)
    settings.image_pull_policy = config.get("imagePullPolicy") or ""
    _add_env(settings, config, resolve)
    _add_mounts(settings, config, resolve)
    return settings


def _add_env(settings: PodSettings, config: Mapping[str, Any], resolve: Resolve) -> None:
    kinds = (
        ("secretAsEnv", "secretName", "secretKey", "secretKeyRef"),
        ("configMapAsEnv", "configMapName", "configMapKey", "configMapKeyRef"),
    )
    for kind, name_key, data_key, reference_key in kinds:
        for item in config.get(kind) or ():
            name = _name(item, name_key, resolve)
            for pair in item.get("keyToEnv") or () if name else ():
                reference: dict[str, Any] = {"name": name, "key": pair[data_key]}
                if item.get("optional"):
                    reference["optional"] = True
                value = {reference_key: reference}
                settings.env.append({"name": pair["envVar"], "valueFrom": value})
    for item in config.get("fieldPathAsEnv") or ():
        source = {"fieldRef": {"fieldPath": item["fieldPath"]}}
        settings.env.append({"name": item["name"], "valueFrom": source})


def _add_mounts(settings: PodSettings, config: Mapping[str, Any], resolve: Resolve) -> None:
    kinds = (
        ("secretAsVolume", "secretName", "secret", "secretName"),
        ("configMapAsVolume", "configMapName", "configMap", "name"),
    )
    for kind, name_key, volume_key, reference_key in kinds:
        for item in config.get(kind) or ():
            if name := _name(item, name_key, resolve):
                volume: dict[str, Any] = {reference_key: name}
                if item.get("optional"):
                    volume["optional"] = True
                settings.mount({volume_key: volume}, item["mountPath"])
    for item in config.get("pvcMount") or ():
        if claim := _claim_name(item, resolve):
            settings.claims = (*settings.claims, claim)
            source = {"persistentVolumeClaim": {"claimName": claim}}
            settings.mount(source, item["mountPath"], sub_path=item.get("subPath") or "")
    for item in (
        *(config.get("emptyDirMounts") or ()),
        *(config.get("genericEphemeralVolume") or ()),
    ):
        settings.mount({"emptyDir": {}}, item["mountPath"])


def _name(item: Mapping[str, Any], key: str, resolve: Resolve) -> str:
    """A name; empty where it comes from an optional parameter that was not given."""
    source = item.get(f"{key}Parameter")
    value = resolve(source) if source else item.get(key)
    if value is None and source:
        return ""
    if not isinstance(value, str) or not value:
        raise InputError(f"the platform configuration's {key} has no value")
    return value


def _claim_name(item: Mapping[str, Any], resolve: Resolve) -> str:
    if "pvcNameParameter" not in item:
        kinds = ("constant", "componentInputParameter", "taskOutputParameter")
        source = {kind: item[kind] for kind in kinds if kind in item}
        if "constant" in source:
            return str(source["constant"])
        item = {"pvcNameParameter": source}
    return _name(item, "pvcName", resolve)
