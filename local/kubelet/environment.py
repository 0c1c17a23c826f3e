"""Builds a container's environment, command and arguments from its spec, as Kubernetes does.

Nothing of the daemon's own environment gets in. What a container image would bring (a PATH, a home)
is replaced by a small base that points into the pod's private folder.
"""

from __future__ import annotations

import math
import re
import site
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from kubeloop.local.client import Manifest
from kubeloop.local.kubelet.references import (
    MissingReferenceError,
    References,
    read_field,
    read_resource_field,
)
from kubeloop.local.quantities import parse_quantity

_VARIABLE_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_REFERENCE = re.compile(r"\$\$|\$\(([^()$]*)\)")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFolders:
    """Where a pod's processes work."""

    work: Path
    home: Path
    temporary: Path
    packages: Path
    """Takes what a container installs with pip, so that it never gets into the environment."""

    @classmethod
    def below(cls, folder: Path) -> PodFolders:
        """The usual layout in a pod's folder."""
        work = folder / "work"
        return cls(
            work=work,
            home=work / "home",
            temporary=work / "tmp",
            packages=work / "site-packages",
        )

    def create(self) -> None:
        """Make those that a process expects to find."""
        for path in (self.work, self.home, self.temporary):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)


def build_shared_env(*, kubeconfig: Path | None) -> dict[str, str]:
    """What the environments of all pods on this machine have in common."""
    env = {
        "PATH": f"{Path(sys.executable).parent}:{_SYSTEM_PATH}",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
    }
    if kubeconfig is not None:
        env["KUBECONFIG"] = str(kubeconfig)
    if site.ENABLE_USER_SITE and site.USER_BASE:  # packages of a `pip install --user`
        env["PYTHONUSERBASE"] = site.USER_BASE
    return env


def build_base_env(
    shared: Mapping[str, str], *, python: str, hostname: str, folders: PodFolders
) -> dict[str, str]:
    """What a container finds in its environment before its own variables."""
    return {
        **shared,
        "PATH": f"{Path(python).parent}:{_SYSTEM_PATH}",
        "HOSTNAME": hostname,
        "HOME": str(folders.home),
        "TMPDIR": str(folders.temporary),
        "PIP_TARGET": str(folders.packages),
        "PYTHONPATH": str(folders.packages),
    }


def build_env(
    container: Manifest,
    *,
    pod: Manifest,
    references: References,
    allocatable: Mapping[str, Decimal],
) -> dict[str, str]:
    """The variables that a container sets.

    Raises:
        MissingReferenceError: A config map, a secret or a key is missing that must be there.
        InputError: A reference to a field that does not exist.
    """
    own: dict[str, str] = {}
    for entry in container.get("envFrom") or ():
        own |= _read_all(entry, references)
    for entry in container.get("env") or ():
        if source := entry.get("valueFrom"):
            value = _read_one(source, pod, container, references, allocatable)
        else:
            value = expand(entry.get("value") or "", own)
        if value is not None:
            own[entry["name"]] = value
    num_threads = count_threads(container)
    if num_threads is not None:
        own.setdefault("OMP_NUM_THREADS", str(num_threads))
    return own


def merge_env(base: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Put a container's own variables over the base; a PYTHONPATH keeps the base's folders."""
    merged = {**base, **own}
    if own.get("PYTHONPATH"):
        merged["PYTHONPATH"] = f"{own['PYTHONPATH']}:{base['PYTHONPATH']}"
    return merged


def expand(text: str, env: Mapping[str, str]) -> str:
    """Put in `$(NAME)` what `env` holds; unknown names stay, `$$` stands for a dollar sign."""

    def replace(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return env.get(found[1], found[0])

    return _REFERENCE.sub(replace, text)


def expand_command(words: Sequence[str] | None, env: Mapping[str, str]) -> list[str]:
    """`expand` each word of a command or of its arguments."""
    return [expand(str(word), env) for word in words or ()]


def count_threads(container: Manifest) -> int | None:
    """Threads that fit a container's CPU limit, or else request; None when it sets neither."""
    resources = container.get("resources") or {}
    for kind in ("limits", "requests"):
        amount = (resources.get(kind) or {}).get("cpu")
        if amount is not None:
            return max(1, math.floor(parse_quantity(amount)))
    return None


def _read_all(entry: Manifest, references: References) -> dict[str, str]:
    """Variables of an `envFrom`; keys that cannot name a variable are left out."""
    if source := entry.get("configMapRef"):
        data = references.config_map(source["name"], optional=bool(source.get("optional")))
    else:
        source = entry["secretRef"]
        data = references.secret(source["name"], optional=bool(source.get("optional")))
    prefix = entry.get("prefix") or ""
    return {
        prefix + key: value.decode()
        for key, value in data.items()
        if _VARIABLE_NAME.fullmatch(prefix + key)
    }


def _read_one(
    source: Manifest,
    pod: Manifest,
    container: Manifest,
    references: References,
    allocatable: Mapping[str, Decimal],
) -> str | None:
    if field := source.get("fieldRef"):
        return read_field(pod, field["fieldPath"])
    if field := source.get("resourceFieldRef"):
        return read_resource_field(pod, field, container=container["name"], allocatable=allocatable)
    kind = "configMapKeyRef" if source.get("configMapKeyRef") else "secretKeyRef"
    reference = source[kind]
    optional = bool(reference.get("optional"))
    read = references.config_map if kind == "configMapKeyRef" else references.secret
    data = read(reference["name"], optional=optional)
    if reference["key"] in data:
        return data[reference["key"]].decode()
    if optional:
        return None
    what = "ConfigMap" if kind == "configMapKeyRef" else "Secret"
    name = f"{pod['metadata']['namespace']}/{reference['name']}"
    raise MissingReferenceError(f"couldn't find key {reference['key']} in {what} {name}")
