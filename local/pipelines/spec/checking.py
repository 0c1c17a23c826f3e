"""What is wrong with a pipeline before it runs: all that the API refuses, and what it lets pass.

The API refuses what cannot run anywhere. Beside that there is what KFP's compiler would have
refused, what one sees only when a Pod starts, and what has no effect on this machine. Nothing here
starts anything or needs a control plane.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from kubeloop.errors import InputError
from kubeloop.local.kubelet.images import ImagesConfig
from kubeloop.local.kubelet.lightweight import PipInstall, are_satisfied, parse_lightweight_command
from kubeloop.local.pipelines.spec import ir
from kubeloop.local.pipelines.spec.conditions import check_condition
from kubeloop.local.pipelines.spec.documents import PipelineDocument
from kubeloop.local.pipelines.spec.faults import Fault, Faults
from kubeloop.local.pipelines.spec.kubernetes_config import build_pod_settings
from kubeloop.local.pipelines.spec.parameters import find_parameter_faults
from kubeloop.local.pipelines.spec.parsing import read_pipeline
from kubeloop.local.pipelines.spec.values import JsonValue
from kubeloop.local.pipelines.spec.wiring import find_mismatches

NEWEST_SDK = Version("2.17")
"""The newest line of KFP's SDK whose files this version was tested with."""

_IMAGE = re.compile(
    r"((?:[a-zA-Z0-9](?:[-a-zA-Z0-9.]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::\d+)?/)?"
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
    r"(?::[\w][\w.-]{0,127})?(?:@[A-Za-z][\w.+-]*:[0-9a-fA-F]{32,})?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """The outcome of a check."""

    name: str
    """The pipeline's, empty where it could not be read."""
    problems: tuple[Fault, ...]
    notes: tuple[Fault, ...]
    """What is no problem, and good to know."""
    images: Mapping[str, str] = field(default_factory=dict)
    """Image to the interpreter that it stands for here; empty text: for itself."""
    sdk_version: str = ""


def check_run(
    document: PipelineDocument,
    parameters: Mapping[str, JsonValue],
    *,
    images: ImagesConfig | None = None,
) -> CheckReport:
    """Check a compiled pipeline and the parameters it is to run with.

    Args:
        document: The pipeline.
        parameters: As a run would get them.
        images: What images stand for on this machine; None for a cluster.
    """
    faults = Faults()
    pipeline = read_pipeline(document, faults)
    if pipeline is None:
        return CheckReport(name=document.name, problems=tuple(faults.found), notes=())
    version_problems, version_notes = check_sdk_version(
        pipeline.sdk_version, newest=NEWEST_SDK, reader="this kubeloop"
    )
    problems = [
        *faults.found,
        *find_parameter_faults(pipeline, parameters),
        *find_mismatches(pipeline),
        *version_problems,
        *_check_conditions(pipeline),
    ]
    notes = [*version_notes]
    for label, executor in _containers(pipeline):
        problems += _check_container(label, executor)
        if images is not None:
            problems += _check_entry_point(label, executor, images)
            notes += _explain_packages(label, executor)
    if images is not None:
        notes += [
            Fault(message=f"{note}.", where=note.partition(":")[0]) for note in pipeline.notes
        ]
    return CheckReport(
        name=pipeline.name,
        problems=tuple(problems),
        notes=tuple(notes),
        images={
            executor.image: images.find_python(executor.image) if images is not None else ""
            for _, executor in _containers(pipeline)
        },
        sdk_version=pipeline.sdk_version,
    )


def check_sdk_version(
    written: str, *, newest: Version, reader: str
) -> tuple[list[Fault], list[Fault]]:
    """Problems and notes about the SDK that compiled a pipeline.

    Args:
        written: `sdkVersion` of the pipeline, such as `kfp-2.13.0`.
        newest: The newest version that the reader knows.
        reader: What would run the pipeline, for messages.
    """
    where = "sdkVersion"
    try:
        version = Version(written.removeprefix("kfp-"))
    except InvalidVersion:
        message = f"The pipeline does not say which SDK compiled it (sdkVersion is {written!r})."
        return [], [Fault(message=message, where=where)]
    if version.major != 2:
        message = (
            f"The pipeline was compiled by kfp {version}, and {reader} runs those of kfp 2; compile"
            " it with the KFP v2 SDK."
        )
        return [Fault(message=message, where=where)], []
    if version.release[:2] > newest.release[:2]:
        message = (
            f"The pipeline was compiled by kfp {version}, which is newer than {reader} knows "
            f"({newest}): what is new in it may have no effect."
        )
        return [], [Fault(message=message, where=where)]
    return [], []


def _containers(pipeline: ir.Pipeline) -> Iterator[tuple[str, ir.ContainerSpec]]:
    for component in pipeline.components.values():
        if isinstance(component.executor, ir.ContainerSpec):
            yield component.name, component.executor


def _check_conditions(pipeline: ir.Pipeline) -> Iterator[Fault]:
    for component in (pipeline.root, *pipeline.components.values()):
        for task in component.dag.tasks.values() if component.dag else ():
            where = f"task {task.name!r} of {component.name!r}"
            for expression in (
                task.condition,
                *(given.selector for given in task.parameters.values()),
            ):
                try:
                    check_condition(expression)
                except InputError as error:
                    yield Fault(message=f"The pipeline cannot run: {where}: {error}.", where=where)


def _check_container(label: str, container: ir.ContainerSpec) -> Iterator[Fault]:
    """What a Pod would be refused for, or would fail of at once."""
    if "{{$" not in container.image and not _IMAGE.fullmatch(container.image):
        message = (
            f"{label}: image {container.image!r} is no name of an image; give one such as "
            "'registry.example/team/name:tag'."
        )
        yield Fault(message=message, where=label)
    try:
        build_pod_settings(container.kubernetes, lambda _: "known when it runs")
    except (InputError, KeyError, TypeError, AttributeError, ValueError) as error:
        message = f"{label}: its platform configuration cannot be read: {error!s}."
        yield Fault(message=message, where=label)
    for install in _installs(container):
        for text in install.requirements:
            try:
                if "/" not in text:  # a path or URL is for pip alone to judge
                    Requirement(text)
            except InvalidRequirement as error:
                message = f"{label}: packages_to_install has {text!r}, which pip refuses: {error}."
                yield Fault(message=message, where=label)


def _check_entry_point(
    label: str, container: ir.ContainerSpec, images: ImagesConfig
) -> Iterator[Fault]:
    if not container.command:
        try:
            images.find_entry_point(container.image)
        except InputError as error:
            yield Fault(message=f"{label}: {error}.", where=label)


def _explain_packages(label: str, container: ir.ContainerSpec) -> Iterator[Fault]:
    wanted = [text for install in _installs(container) for text in install.requirements]
    if wanted and not are_satisfied(wanted):
        message = (
            f"{label}: {', '.join(wanted)} will be installed into a folder of their own before the "
            "first start."
        )
        yield Fault(message=message, where=label)


def _installs(container: ir.ContainerSpec) -> tuple[PipInstall, ...]:
    lightweight = parse_lightweight_command([*container.command, *container.args])
    return lightweight.installs if lightweight is not None else ()
