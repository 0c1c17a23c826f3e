"""Recognises the command that KFP's compiler writes for a lightweight Python component.

It is a chain of shells: one installs packages with pip and runs the rest, the next writes the
component's source to a file and runs KFP's executor on it. When everything that pip is asked for is
installed already, the executor can run in a forked interpreter and the shells are not needed; what
is missing is installed once for all pods that ask for it (`requirement_sets`).

The scripts are taken apart into words and compared with the few forms that KFP 2.x writes (2.13
to 2.17 were checked); whatever else is in them means that the command is run as it stands.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version

EXECUTOR_MODULE = "kfp.dsl.executor_main"
SOURCE_NAME = "ephemeral_component.py"
_ARTIFACT_MOUNTS = {
    "_GCS_LOCAL_MOUNT_PREFIX": "/gcs",
    "_MINIO_LOCAL_MOUNT_PREFIX": "/minio",
    "_S3_LOCAL_MOUNT_PREFIX": "/s3",
}
_RUN_EXECUTOR = f"from {EXECUTOR_MODULE} import executor_main; executor_main()"

_OPTIONS = frozenset({"--quiet", "-q", "--no-warn-script-location", "--no-deps"})
_OPTIONS_WITH_VALUE = frozenset({"--index-url", "--extra-index-url", "--trusted-host"})
_RUN_THE_REST = ["$0", "$@"]
_ENSURE_PIP = re.compile(
    r'if ! \[ -x "\$\(command -v pip\)" \]; then\n'
    r"\s*python3 -m ensurepip [^\n;&`$]*\n"
    r"fi\n"
)
_PRELUDES = frozenset(
    {
        "export PIP_DISABLE_PIP_VERSION_CHECK=1",
        "PIP_DISABLE_PIP_VERSION_CHECK=1",
        "tmp=$(mktemp -d)",
        "python3 -m venv $tmp/venv --system-site-packages",
        ". $tmp/venv/bin/activate",
    }
)
"""What `use_venv=True` adds: an environment that sees the one around it."""
_WRITE_AND_RUN = [
    "program_path=$(mktemp -d)",
    "printf %s $0 > $program_path/ephemeral_component.py",
    f"_KFP_RUNTIME=true python3 -m {EXECUTOR_MODULE}"
    " --component_module_path $program_path/ephemeral_component.py $@",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PipInstall:
    """One call of pip."""

    requirements: tuple[str, ...]
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LightweightComponent:
    """What a component's command comes down to."""

    source: str
    """Text of the module that holds the function."""
    arguments: tuple[str, ...]
    """What follows the module's path on the executor's command line."""
    installs: tuple[PipInstall, ...]
    """What pip is asked to install, in this order."""


def parse_lightweight_command(argv: Sequence[str]) -> LightweightComponent | None:
    """Take a component's command apart; None when it is anything else."""
    installs: list[PipInstall] = []
    rest = list(argv)
    while len(rest) > 3 and rest[:2] == ["sh", "-c"]:
        found = _parse_install_script(rest[2])
        if found is None:
            return None
        installs += found
        rest = rest[3:]
    if len(rest) < 4 or rest[:2] != ["sh", "-ec"] or not _writes_and_runs(rest[2]):
        return None
    return LightweightComponent(source=rest[3], arguments=tuple(rest[4:]), installs=tuple(installs))


def build_executor_start(python: str, *, mounted: Callable[[str], Path | None]) -> list[str]:
    """How to start KFP's executor, before its own arguments.

    Args:
        python: The interpreter.
        mounted: Where a path is really, None where nothing is mounted. The executor has the paths
            in its code at which artifacts of object stores are mounted.
    """
    places = {
        name: f"{folder}/"
        for name, path in _ARTIFACT_MOUNTS.items()
        if (folder := mounted(path)) is not None
    }
    if not places:
        return [python, "-m", EXECUTOR_MODULE]
    lines = [f"artifact_types.{name} = {place!r}" for name, place in places.items()]
    code = ["from kfp.dsl.types import artifact_types", *lines, _RUN_EXECUTOR]
    return [python, "-c", "\n".join(code)]


def are_satisfied(requirements: Sequence[str]) -> bool:
    """Whether this environment has everything that `requirements` names, with its own needs."""
    try:
        return all(_is_satisfied(Requirement(text), seen=set()) for text in requirements)
    except InvalidRequirement:  # a path, a URL, an option
        return False


def _parse_install_script(script: str) -> list[PipInstall] | None:
    """What a script installs with pip before it runs its arguments."""
    text = _ENSURE_PIP.sub("", script.strip() + "\n", count=1)
    installs: list[PipInstall] = []
    commands = _split_commands(text)
    if not commands or commands.pop() != _RUN_THE_REST:
        return None
    for command in commands:
        if " ".join(command) in _PRELUDES:
            continue
        found = _parse_pip_install(command)
        if found is None:
            return None
        installs.append(found)
    return installs


def _split_commands(text: str) -> list[list[str]]:
    """Commands joined by `&&` or newlines; empty when there is more to the script than that."""
    commands = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
        lexer.whitespace_split = True
        lexer.commenters = ""
        try:
            words = list(lexer)
        except ValueError:  # a quote that is not closed
            return []
        if any(set(word) <= set("|;<>&") and word != "&&" for word in words):
            return []
        command: list[str] = []
        for word in words:
            if word == "&&":
                commands.append(command)
                command = []
            else:
                command.append(word)
        commands += [command] if command else []
    return commands


def _parse_pip_install(command: list[str]) -> PipInstall | None:
    words = iter(command[1:] if command[:1] == ["PIP_DISABLE_PIP_VERSION_CHECK=1"] else command)
    if [next(words, "") for _ in range(4)] != ["python3", "-m", "pip", "install"]:
        return None
    requirements: list[str] = []
    options: list[str] = []
    for word in words:
        if word in _OPTIONS_WITH_VALUE:
            options += [word, next(words, "")]
        elif not word.startswith("-"):
            requirements.append(word)
        elif word in _OPTIONS:
            options.append(word)
        else:
            return None
    return PipInstall(requirements=tuple(requirements), options=tuple(options))


def _writes_and_runs(script: str) -> bool:
    lines = re.sub(r"\\\n", " ", script).splitlines()
    try:
        return [" ".join(shlex.split(line)) for line in lines if line.strip()] == _WRITE_AND_RUN
    except ValueError:
        return False


def _is_satisfied(requirement: Requirement, *, seen: set[tuple[str, str]]) -> bool:
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return True
    if requirement.url is not None:
        return False
    try:
        found = distribution(requirement.name)
    except PackageNotFoundError:
        return False
    if not _fits(found, requirement):
        return False
    return all(
        _is_satisfied(need, seen=seen) for need in _needs_of_extras(found, requirement, seen=seen)
    )


def _fits(found: Distribution, requirement: Requirement) -> bool:
    if requirement.specifier.contains(found.version, prereleases=True):
        return True
    # The compiler pins its own version of kfp; a later one of the same line runs what it wrote.
    pins = [item.version for item in requirement.specifier if item.operator == "=="]
    if requirement.name != "kfp" or len(pins) != 1 or pins[0].endswith("*"):
        return False
    pinned, installed = Version(pins[0]), Version(found.version)
    return installed.major == pinned.major and installed >= pinned


def _needs_of_extras(
    found: Distribution, requirement: Requirement, *, seen: set[tuple[str, str]]
) -> Iterator[Requirement]:
    for extra in requirement.extras:
        if (requirement.name, extra) in seen:
            continue
        seen.add((requirement.name, extra))
        for text in found.requires or ():
            need = Requirement(text)
            if need.marker is not None and need.marker.evaluate({"extra": extra}):
                need.marker = None
                yield need
