"""What a cluster lacks for a pipeline: the objects its steps name, and a KFP that knows its SDK."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from kubeloop.cli.options import Session
from kubeloop.errors import KubeloopError
from kubeloop.local.pipelines.spec.checking import CheckReport, check_sdk_version
from kubeloop.local.pipelines.spec.faults import Fault
from kubeloop.pipelines.packages import PipelinePackage

_REFERENCES = (
    ("secretAsEnv", "secretName", "secret"),
    ("secretAsVolume", "secretName", "secret"),
    ("imagePullSecret", "secretName", "secret"),
    ("configMapAsEnv", "configMapName", "config_map"),
    ("configMapAsVolume", "configMapName", "config_map"),
    ("pvcMount", "constant", "persistent_volume_claim"),
)
_NOT_FOUND = 404


def check_cluster(
    session: Session, package: PipelinePackage, report: CheckReport
) -> tuple[list[Fault], list[Fault]]:
    """Problems and notes about what a cluster has; what cannot be asked becomes a note."""
    problems: list[Fault] = []
    notes: list[Fault] = []
    try:
        found, told = check_server(session, report)
        problems += found
        notes += told
    except KubeloopError as error:
        notes.append(Fault(message=f"The version of KFP was not checked: {error}", where="KFP"))
    for ask in (check_references, check_images):
        found, told = ask(session, package, report)
        problems += found
        notes += told
    return problems, notes


def check_server(session: Session, report: CheckReport) -> tuple[list[Fault], list[Fault]]:
    """Whether the cluster's KFP is as new as the SDK that compiled the pipeline."""
    from packaging.version import InvalidVersion, Version

    from kubeloop.pipelines.run_control import read_server_version

    written = read_server_version(session.connect_pipelines())
    try:
        server = Version(written)
    except InvalidVersion:
        message = f"The cluster's KFP does not say its version, but {written!r}."
        return [], [Fault(message=message, where="KFP")]
    return check_sdk_version(
        report.sdk_version, newest=server, reader=f"the cluster's KFP {server}"
    )


def check_references(
    session: Session, package: PipelinePackage, report: CheckReport
) -> tuple[list[Fault], list[Fault]]:
    """Whether the secrets, config maps and claims that steps name exist."""
    from kubernetes.client import ApiException, CoreV1Api

    del report
    problems: list[Fault] = []
    notes: list[Fault] = []
    references = sorted(set(list_references(package)))
    if not references:
        return [], []
    core = CoreV1Api(session.kubernetes)
    for kind, name, where in references:
        read: Callable[..., Any] = getattr(core, f"read_namespaced_{kind}")
        title = kind.replace("_", " ")
        try:
            read(name, session.namespace)
        except ApiException as error:
            place = f"{title} {session.namespace}/{name}"
            if error.status == _NOT_FOUND:
                message = f"{where}: {place} does not exist; create it before the run."
                problems.append(Fault(message=message, where=where))
            else:
                message = f"{where}: {place} was not checked: {error.reason}."
                notes.append(Fault(message=message, where=where))
    return problems, notes


def list_references(package: PipelinePackage) -> Iterator[tuple[str, str, str]]:
    """(kind, name, executor) of what steps cannot start without; names known only later are out."""
    kubernetes = package.platform_spec.get("platforms", {}).get("kubernetes", {})
    executors = kubernetes.get("deploymentSpec", {}).get("executors", {})
    for label, config in executors.items():
        for setting, key, kind in _REFERENCES:
            for item in config.get(setting, ()):
                if not item.get("optional") and isinstance(item.get(key), str):
                    yield kind, item[key], label


def check_images(
    session: Session, package: PipelinePackage, report: CheckReport
) -> tuple[list[Fault], list[Fault]]:
    """Which images no node has: whether they can be pulled is seen when a Pod starts."""
    from kubernetes.client import ApiException, CoreV1Api

    del package
    try:
        nodes = CoreV1Api(session.kubernetes).list_node().items
    except ApiException as error:
        message = f"Images were not looked for on the nodes: {error.reason}."
        return [], [Fault(message=message, where="images")]
    held = {
        short_image(name)
        for node in nodes
        for image in node.status.images or ()
        for name in image.names or ()
    }
    absent = [image for image in report.images if short_image(image) not in held]
    return [], [
        Fault(message=f"No node has image {image} yet; it must be pullable.", where=image)
        for image in absent
    ]


def short_image(name: str) -> str:
    """An image without the registry that Kubernetes adds to short names."""
    name = re.sub(r"^docker\.io/(library/)?", "", name)
    return name if ":" in name.rsplit("/", 1)[-1] or "@" in name else f"{name}:latest"
