"""Turns a container of a pod into a process to start."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from kubeloop.local.client import Manifest
from kubeloop.local.kubelet.environment import (
    PodFolders,
    build_base_env,
    build_env,
    expand_command,
    merge_env,
)
from kubeloop.local.kubelet.images import (
    ImagesConfig,
    choose_command,
    is_own_python,
    resolve_program,
)
from kubeloop.local.kubelet.lightweight import (
    SOURCE_NAME,
    LightweightComponent,
    are_satisfied,
    build_executor_start,
    parse_lightweight_command,
)
from kubeloop.local.kubelet.network import Translation
from kubeloop.local.kubelet.process import ProcessSpec
from kubeloop.local.kubelet.python_command import parse_python_command
from kubeloop.local.kubelet.references import References
from kubeloop.local.kubelet.requirement_sets import RequirementSets
from kubeloop.local.kubelet.volumes import Mounts, resolve_mounts
from kubeloop.local.operators.katib.terms import TRIAL_NAME_VARIABLE

_SHIMS = Path(__file__).parent / "shims"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodContext:
    """What the containers of one pod have in common."""

    pod: Manifest
    folders: PodFolders
    shared_env: Mapping[str, str]
    volumes: Mapping[str, Path]
    references: References
    translation: Translation
    allocatable: Mapping[str, Decimal]
    devices: Mapping[str, str]
    """Variables that say which GPUs the pod may use."""
    requirement_sets: RequirementSets


def build_process_spec(
    container: Manifest, *, context: PodContext, images: ImagesConfig, log: Path
) -> ProcessSpec:
    """What to start for a container.

    Raises:
        MissingReferenceError: Something that the container refers to is missing.
        InputError: The container asks for what cannot be had here.
    """
    pod, folders = context.pod, context.folders
    python = images.find_python(container.get("image", ""))
    own = build_env(
        container, pod=pod, references=context.references, allocatable=context.allocatable
    )
    mounts = resolve_mounts(container, volumes=context.volumes, env=own)
    words = [*choose_command(container, images), *(container.get("args") or ())]
    argv = _translate_words(expand_command(words, own), context, mounts)
    own = {
        name: mounts.translate(value)
        for name, value in context.translation.translate_env(own).items()
    }
    base = build_base_env(
        context.shared_env, python=python, hostname=pod["metadata"]["name"], folders=folders
    )
    env = merge_env({**base, **context.devices}, own)
    if TRIAL_NAME_VARIABLE in own:
        env["PYTHONPATH"] += f":{_SHIMS}"
    argv = resolve_program(argv, python=python)
    is_warm = is_own_python(python)
    if component := parse_lightweight_command(argv):
        start = build_executor_start(python, mounted=mounts.locate)
        argv, env = _shorten_component(component, argv, env, start=start, context=context)
    return ProcessSpec(
        name=f"{pod['metadata']['name']}/{container['name']}",
        argv=tuple(argv),
        env=env,
        cwd=_working_directory(container, mounts, folders),
        log=log,
        warm=is_warm and argv[0] == python and parse_python_command(argv) is not None,
    )


def _translate_words(words: list[str], context: PodContext, mounts: Mounts) -> list[str]:
    return [mounts.translate(word) for word in context.translation.translate_words(words)]


def _shorten_component(
    component: LightweightComponent,
    argv: list[str],
    env: dict[str, str],
    *,
    start: list[str],
    context: PodContext,
) -> tuple[list[str], dict[str, str]]:
    """Run KFP's executor without the shells around it, with the packages that it needs."""
    python = start[0]
    missing = [
        install
        for install in component.installs
        if not (is_own_python(python) and are_satisfied(install.requirements))
    ]
    needed = context.requirement_sets.find(missing, python=python, env=env) if missing else None
    if missing and needed is None:
        return argv, env
    source = Path(tempfile.mkdtemp(dir=context.folders.temporary)) / SOURCE_NAME
    source.write_text(component.source, "utf-8", "surrogatepass")
    command = [*start, "--component_module_path", str(source), *component.arguments]
    env = {**env, "_KFP_RUNTIME": "true"}
    if needed is None:
        return command, env
    env = needed.extend_env(env)
    if not needed.is_ready:
        return needed.build_installing_command(command), env
    needed.mark_used()
    return command, env


def _working_directory(container: Manifest, mounts: Mounts, folders: PodFolders) -> Path:
    """The directory that the container asks for, if that is in a volume, else the pod's own."""
    asked = container.get("workingDir") or ""
    located = mounts.locate(asked) if asked else None
    if located is None:
        return folders.work
    located.mkdir(parents=True, exist_ok=True)
    return located
