"""Folders of installed packages, one for each set of requirements that components ask for.

A component with `packages_to_install` wants packages that the environment lacks, and must not have
them put there. They are installed into a folder of the set's own, once, by the first pod that
needs it (`requirement_installer`); every later pod, of any run, finds the folder and starts at
once. What is asked for decides which folder it is: the requirements, pip's options and variables,
the interpreter and the packages of its environment. A requirement without a version therefore
keeps the version that was first installed, until the folder is removed.

The folders lie in `requirement-sets/` of the state folder. When the control plane starts, those not
used for the longest time go until the rest fits `max_bytes`; while it is down, any may be removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement

from kubeloop.errors import InputError
from kubeloop.local.kubelet.lightweight import PipInstall

INSTALLER_MODULE = "kubeloop.local.kubelet.requirement_installer"
NOTE_NAME = "requirements.json"
PARTIAL_SUFFIX = ".partial"
_SITE_PACKAGES = "lib/python3*/site-packages"
_NOT_OF_A_SET = frozenset({"PIP_TARGET", "PIP_CACHE_DIR", "PIP_NO_CACHE_DIR", "PIP_LOG"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RequirementSetsConfig:
    """How much installed packages may take."""

    max_bytes: int = 20 * 1024**3
    """Beyond, sets not used for the longest time are removed when the control plane starts."""

    def __post_init__(self) -> None:
        if self.max_bytes < 0:
            raise InputError(f"max_bytes is {self.max_bytes}; give 0 or more.")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequirementSet:
    """One set of requirements, and the folder that has or will have it."""

    folder: Path
    python: str
    installs: tuple[PipInstall, ...]

    @property
    def is_ready(self) -> bool:
        """Whether it is installed: the folder gets its name when it is complete."""
        return self.folder.is_dir()

    def extend_env(self, env: Mapping[str, str]) -> dict[str, str]:
        """The environment of a program that uses the set."""
        packages = str(self.folder / "site-packages")
        return {
            **env,
            "PATH": f"{self.folder / 'bin'}:{env['PATH']}",
            "PYTHONPATH": f"{packages}:{env['PYTHONPATH']}" if env.get("PYTHONPATH") else packages,
        }

    def build_installing_command(self, command: Sequence[str]) -> list[str]:
        """A command that installs the set if nobody has meanwhile, and then becomes `command`."""
        task = {
            "folder": str(self.folder),
            "python": self.python,
            "installs": [[list(item.options), list(item.requirements)] for item in self.installs],
        }
        return [sys.executable, "-m", INSTALLER_MODULE, json.dumps(task), *command]

    def mark_used(self) -> None:
        """Remember that a program uses it now."""
        with suppress(OSError):
            os.utime(self.folder / NOTE_NAME)


class RequirementSets:
    """All sets of a state folder."""

    def __init__(self, root: Path, *, config: RequirementSetsConfig | None = None) -> None:
        self._root = root
        self._config = config or RequirementSetsConfig()

    def find(
        self, installs: Sequence[PipInstall], *, python: str, env: Mapping[str, str]
    ) -> RequirementSet | None:
        """The set for what pip is asked to install; None where it must not be shared.

        Args:
            installs: The calls of pip, in their order.
            python: The interpreter whose environment the packages come on top of.
            env: The container's environment; pip's variables in it count.
        """
        wanted = []
        for install in installs:
            identities = [_identify(requirement) for requirement in install.requirements]
            if None in identities:
                return None
            wanted.append([list(install.options), sorted(identities, key=str)])
        pip = {key: value for key, value in env.items() if key.startswith("PIP_")}
        facts = {
            "installs": wanted,
            "pip": {key: pip[key] for key in sorted(pip) if key not in _NOT_OF_A_SET},
            "python": os.path.realpath(python),
            "environment": _list_packages(python),
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return RequirementSet(
            folder=self._root / digest[:32], python=python, installs=tuple(installs)
        )

    def prune(self) -> None:
        """Remove what was left half done, and sets beyond the limit. No pod may be running."""
        if not self._root.is_dir():
            return
        kept: list[tuple[float, int, Path]] = []
        for folder in self._root.iterdir():
            note = _read_note(folder)
            if folder.is_file():
                folder.unlink()  # a lock
            elif note is None:
                shutil.rmtree(folder, ignore_errors=True)
            else:
                used_at = (folder / NOTE_NAME).stat().st_mtime
                kept.append((used_at, int(note["bytes"]), folder))
        room = self._config.max_bytes
        for _, size, folder in sorted(kept, reverse=True):
            room -= size
            if room < 0:
                shutil.rmtree(folder, ignore_errors=True)


def _identify(requirement: str) -> str | list[Any] | None:
    """What tells a requirement from others; of a local file also its state, None for a folder."""
    try:
        url = Requirement(requirement).url
    except InvalidRequirement:
        url = requirement
    if url is None or urlsplit(url).scheme not in ("", "file"):
        return requirement
    path = Path(unquote(urlsplit(url).path))
    try:
        if not path.is_absolute() or not path.is_file():
            return None
        state = path.stat()
    except OSError:
        return None
    return [requirement, state.st_size, state.st_mtime_ns]


def _list_packages(python: str) -> list[str]:
    """Names and versions in an interpreter's environment, by the folders that describe them."""
    return sorted(
        path.name
        for folder in Path(python).parent.parent.glob(_SITE_PACKAGES)
        for path in folder.glob("*.dist-info")
    )


def _read_note(folder: Path) -> dict[str, Any] | None:
    if folder.name.endswith(PARTIAL_SUFFIX):
        return None
    try:
        note: dict[str, Any] = json.loads((folder / NOTE_NAME).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return note
