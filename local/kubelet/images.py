"""What an image stands for on this machine: a Python environment and an entry point.

Nothing is pulled. Unless a table says otherwise, every image means the environment that kubeloop
itself runs in. A few images bring an entry point that manifests rely on.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from kubeloop.errors import InputError
from kubeloop.local.client import Manifest

_PYTHON = re.compile(r"python(3(\.\d+)?)?")
_IMAGE_FOLDERS = frozenset(
    {"", "/bin", "/usr/bin", "/usr/local/bin", "/opt/conda/bin", "/opt/venv/bin"}
)
_STORAGE_INITIALIZER = ("python", "-m", "kubeloop.kserve.storage_initializer")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesConfig:
    """What images stand for; patterns are shell patterns, and the first that matches counts."""

    pythons: Mapping[str, Path] = field(default_factory=dict)
    """Pattern to Python interpreter; images that match none have kubeloop's own."""
    entry_points: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {"*storage-initializer*": _STORAGE_INITIALIZER}
    )
    """Pattern to what runs when a container gives no command."""

    def find_python(self, image: str) -> str:
        """The interpreter of an image's environment."""
        for pattern, python in self.pythons.items():
            if fnmatchcase(image, pattern):
                return str(python)
        return sys.executable

    def find_entry_point(self, image: str) -> tuple[str, ...]:
        """What an image runs by itself.

        Raises:
            InputError: Nothing is known of it.
        """
        for pattern, argv in self.entry_points.items():
            if fnmatchcase(image, pattern):
                return argv
        raise InputError(
            f"image {image!r} is not run as a container here, so its own entry point is not known; "
            "give the container a command"
        )


def is_own_python(python: str) -> bool:
    """Whether an interpreter is the one that the warm parent runs in."""
    return python == sys.executable


def resolve_program(argv: list[str], *, python: str) -> list[str]:
    """Have a command that starts the image's Python start `python`.

    A script that the environment installed, such as `torchrun`, starts through `python` too.
    """
    program = Path(argv[0])
    folder = "" if str(program.parent) == "." and "/" not in argv[0] else str(program.parent)
    if folder in _IMAGE_FOLDERS and _PYTHON.fullmatch(program.name):
        return [python, *argv[1:]]
    if not folder:
        installed = Path(python).parent / program.name
        if _is_script_of(installed, python):
            return [python, str(installed), *argv[1:]]
    return argv


def choose_command(container: Manifest, config: ImagesConfig) -> list[str]:
    """A container's command, or its image's entry point; without the arguments.

    Raises:
        InputError: Neither is known.
    """
    command = container.get("command")
    return list(command) if command else list(config.find_entry_point(container.get("image", "")))


def _is_script_of(path: Path, python: str) -> bool:
    try:
        with path.open("rb") as file:
            first = file.readline(512)
    except OSError:
        return False
    return first.startswith(b"#!") and Path(first[2:].split()[0].decode()) in _names_of(python)


def _names_of(python: str) -> set[Path]:
    folder = Path(python).parent
    return {folder / name for name in ("python", "python3", Path(python).name)}
