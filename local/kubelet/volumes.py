"""Gives a pod's volumes folders on the host, and its processes the paths of those folders.

A process sees the host's file system, so what it is told about a mount path (in its command,
arguments and environment) is replaced by where the volume really is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path, PurePosixPath

from kubeloop.errors import InputError
from kubeloop.local.client import Manifest
from kubeloop.local.kubelet.environment import expand
from kubeloop.local.kubelet.references import (
    MissingReferenceError,
    References,
    read_field,
    read_resource_field,
)

_DEFAULT_MODE = 0o644
_MAKES_FOLDER = ("DirectoryOrCreate",)
_MUST_EXIST = ("Directory", "File", "Socket", "CharDevice", "BlockDevice")


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSpace:
    """Where volumes are made."""

    pod: Path
    """Folder of the volumes that live as long as the pod."""
    claims: Path
    """Folder of the namespace's persistent volumes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounts:
    """Mount paths of one container, and where they really are."""

    folders: Mapping[str, Path]

    def translate(self, text: str) -> str:
        """Replace mount paths in a text by the real ones, longest first."""
        if not any(path in text for path in self.folders):
            return text
        paths = "|".join(re.escape(path) for path in sorted(self.folders, key=len, reverse=True))
        # Not inside a longer path or name: /mnt/models is none in /x/mnt/models or /mnt/models2.
        pattern = rf"(?:(?<![\w./-])|(?<=://))(?:{paths})(?![\w.-])"
        return re.sub(pattern, lambda found: str(self.folders[found[0]]), text)

    def locate(self, path: str) -> Path | None:
        """Where an absolute path below a mount really is; None when it is below none."""
        wanted = PurePosixPath(path)
        for mount in sorted(self.folders, key=len, reverse=True):
            if wanted.is_relative_to(mount):
                return self.folders[mount] / wanted.relative_to(mount)
        return None


def prepare_volumes(
    pod: Manifest,
    *,
    space: VolumeSpace,
    references: References,
    allocatable: Mapping[str, Decimal],
) -> dict[str, Path]:
    """Make a pod's volumes and fill them; returns the path of each by name.

    Raises:
        MissingReferenceError: What a volume refers to is missing.
        InputError: A kind of volume that cannot be had here.
    """
    builder = _Builder(pod, space, references, allocatable)
    return {volume["name"]: builder.build(volume) for volume in pod["spec"].get("volumes") or ()}


def locate_volume(volume: Manifest, space: VolumeSpace) -> Path:
    """Where a volume is, once it is prepared."""
    if source := volume.get("hostPath"):
        return Path(source["path"])
    if source := volume.get("persistentVolumeClaim"):
        return space.claims / str(source["claimName"])
    return space.pod / str(volume["name"])


def resolve_mounts(
    container: Manifest, *, volumes: Mapping[str, Path], env: Mapping[str, str]
) -> Mounts:
    """Where a container's mount paths are; folders of sub-paths are made."""
    folders = {}
    for mount in container.get("volumeMounts") or ():
        path = volumes[mount["name"]]
        if sub_path := expand(mount.get("subPathExpr") or "", env) or mount.get("subPath"):
            path = _inside(path, sub_path)
            if not path.exists():
                path.mkdir(parents=True)
        folders[mount["mountPath"].rstrip("/") or "/"] = path
    return Mounts(folders={path: folder for path, folder in folders.items() if path != "/"})


class _Builder:
    def __init__(
        self,
        pod: Manifest,
        space: VolumeSpace,
        references: References,
        allocatable: Mapping[str, Decimal],
    ) -> None:
        self._pod = pod
        self._space = space
        self._references = references
        self._allocatable = allocatable

    def build(self, volume: Manifest) -> Path:
        builders: dict[str, Callable[[Manifest, Path], Path]] = {
            "emptyDir": self._empty,
            "configMap": self._config_map,
            "secret": self._secret,
            "downwardAPI": self._downward,
            "projected": self._projected,
            "hostPath": self._host_path,
            "persistentVolumeClaim": self._claim,
        }
        name = volume["name"]
        kind = next((key for key in volume if key != "name"), "emptyDir")
        if kind not in builders:
            raise InputError(
                f"volume {name!r} is of kind {kind!r}; supported here are {', '.join(builders)}."
            )
        return builders[kind](volume.get(kind) or {}, self._space.pod / name)

    def _empty(self, source: Manifest, path: Path) -> Path:
        del source
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _config_map(self, source: Manifest, path: Path) -> Path:
        data = self._references.config_map(source["name"], optional=bool(source.get("optional")))
        return _write_files(data, source, path)

    def _secret(self, source: Manifest, path: Path) -> Path:
        name = source.get("secretName") or source["name"]
        data = self._references.secret(name, optional=bool(source.get("optional")))
        return _write_files(data, source, path)

    def _downward(self, source: Manifest, path: Path) -> Path:
        data = {}
        for item in source.get("items") or ():
            if field := item.get("fieldRef"):
                text = read_field(self._pod, field["fieldPath"])
            else:
                field = item["resourceFieldRef"]
                text = read_resource_field(
                    self._pod, field, container="", allocatable=self._allocatable
                )
            data[item["path"]] = text.encode()
        return _write_files(data, {"defaultMode": source.get("defaultMode")}, path)

    def _projected(self, source: Manifest, path: Path) -> Path:
        path.mkdir(parents=True, exist_ok=True)
        builders = {
            "configMap": self._config_map,
            "secret": self._secret,
            "downwardAPI": self._downward,
        }
        for part in source.get("sources") or ():
            for kind, build in builders.items():
                if kind in part:
                    build({"defaultMode": source.get("defaultMode"), **part[kind]}, path)
        return path

    def _host_path(self, source: Manifest, path: Path) -> Path:
        path = Path(source["path"])
        kind = source.get("type") or ""
        if kind in _MAKES_FOLDER:
            path.mkdir(parents=True, exist_ok=True)
        elif kind == "FileOrCreate":
            path.touch()
        elif kind in _MUST_EXIST and not path.exists():
            raise MissingReferenceError(f"hostPath type check failed: {path} is not there")
        return path

    def _claim(self, source: Manifest, path: Path) -> Path:
        name = source["claimName"]
        if name not in self._references.claims:
            raise MissingReferenceError(f'persistentvolumeclaim "{name}" not found')
        path = self._space.claims / name
        path.mkdir(parents=True, exist_ok=True)
        return path


def _write_files(data: Mapping[str, bytes], source: Manifest, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    items: Sequence[Manifest] = source.get("items") or [{"key": key, "path": key} for key in data]
    for item in items:
        if item["key"] not in data:
            if source.get("optional"):
                continue
            raise MissingReferenceError(f"references non-existent config key: {item['key']}")
        path = _inside(folder, item["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # a mode without write permission would forbid a second round
        path.write_bytes(data[item["key"]])
        path.chmod(item.get("mode") or source.get("defaultMode") or _DEFAULT_MODE)
    return folder


def _inside(folder: Path, relative: str) -> Path:
    """A path below `folder`.

    Raises:
        InputError: It would lead out of the folder.
    """
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts:
        raise InputError(f"path {relative!r} must be relative and must not contain '..'.")
    return folder / path
