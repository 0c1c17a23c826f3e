"""Recognises command lines of the Python interpreter that a forked child can run in its stead.

Only the forms that need no special interpreter are taken: `python [-u] -m MODULE`, `-c CODE`,
`FILE.py` and the scripts that packages install. Anything else, such as a flag or a variable that
only a new interpreter honours, yields None and is started plainly.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum


class ProgramKind(Enum):
    """How the interpreter is told what to run."""

    MODULE = "-m"
    CODE = "-c"
    SCRIPT = "file"


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonProgram:
    """A parsed interpreter command line."""

    kind: ProgramKind
    target: str
    """Module name, source text or path of the script."""
    arguments: tuple[str, ...]
    unbuffered: bool


def parse_python_command(argv: Sequence[str]) -> PythonProgram | None:
    """Parse what follows the interpreter's own name (`argv[0]`); None when unsure."""
    unbuffered = False
    position = 1
    while position < len(argv) and argv[position] == "-u":
        unbuffered = True
        position += 1
    if position >= len(argv):
        return None
    option, rest = argv[position], tuple(argv[position + 1 :])
    if option in ("-m", "-c"):
        return (
            PythonProgram(
                kind=ProgramKind(option), target=rest[0], arguments=rest[1:], unbuffered=unbuffered
            )
            if rest and rest[0]
            else None
        )
    if option.startswith("-") or not (option.endswith(".py") or _is_installed_script(option)):
        return None
    return PythonProgram(
        kind=ProgramKind.SCRIPT, target=option, arguments=rest, unbuffered=unbuffered
    )


def _is_installed_script(path: str) -> bool:
    """Whether a path without a suffix is text; it could also be an archive or a folder."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # in every forked child, where imports cost
            return os.path.isabs(path) and file.read(2) == b"#!"  # noqa: PTH117
    except OSError:
        return False


_FIXED_AT_START = ("PYTHON", "LD_", "MALLOC_", "GLIBC_", "OMP_", "GOMP_", "KMP_", "MKL_")
_HONOURED = frozenset(
    {
        "PYTHONUNBUFFERED",
        "PYTHONPATH",
        "PYTHONDONTWRITEBYTECODE",
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
    }
)
_LOCALE = ("LANG", "LC_ALL", "LC_CTYPE")


def needs_new_interpreter(env: Mapping[str, str], *, parent: Mapping[str, str]) -> bool:
    """Whether `env` differs from `parent`'s in what a process reads only when it starts."""
    for name in {*env, *parent}:
        if env.get(name) == parent.get(name) or name in _HONOURED:
            continue
        if name.startswith(_FIXED_AT_START):
            return True
        if name in _LOCALE and not _is_utf8(env.get(name, "")):
            return True
    return False


def _is_utf8(locale: str) -> bool:
    return locale.lower().replace("-", "").endswith(".utf8")


def read_thread_limit(env: Mapping[str, str], *names: str) -> int | None:
    """The first of `names` that holds a positive number."""
    for name in names:
        value = env.get(name, "").split(",")[0].strip()
        if value.isdecimal() and int(value) > 0:
            return int(value)
    return None


def split_python_path(env: Mapping[str, str], *, cwd: str) -> list[str]:
    """Entries of PYTHONPATH as absolute paths."""
    value = env.get("PYTHONPATH", "")
    return [os.path.join(cwd, entry) for entry in value.split(os.pathsep)] if value else []  # noqa: PTH118
