"""Computes the digests of what a lineage reaches again, and compares them with the record."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kubeloop.components.provenance import DatasetKey
from kubeloop.datasets import read_commit
from kubeloop.datasets.stores import open_store
from kubeloop.datasets.verification import verify_commit, verify_source
from kubeloop.digests import digest_path
from kubeloop.errors import InputError, IntegrityError, KubeloopError
from kubeloop.pipelines.lineage.graph import LineageGraph, LineageKind, LineageNode, Relation
from kubeloop.training.code import fetch_code
from kubeloop.training.package import MANIFEST_FILE, opened_package


class Outcome(StrEnum):
    """What came of checking a node."""

    INTACT = "intact"
    CHANGED = "changed"
    UNCHECKED = "not checked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A node that was checked: `reason` says what differs, or why it could not be told."""

    node: LineageNode
    outcome: Outcome
    reason: str = ""


class _NotComparableError(Exception):
    """Nothing can be compared; the message says why."""


def verify(
    graph: LineageGraph, *, on_check: Callable[[Check], None] = lambda _: None
) -> list[Check]:
    """Check everything of a graph that has a digest; runs and tasks have none.

    Args:
        graph: What to check.
        on_check: Called after each, which may take as long as reading all of its data.
    """
    checks = []
    for node in graph.nodes.values():
        if node.kind in _CHECKS:
            checks.append(_check(node, graph))
            on_check(checks[-1])
    return checks


def _check(node: LineageNode, graph: LineageGraph) -> Check:
    try:
        _CHECKS[node.kind](node, graph)
    except (_NotComparableError, KubeloopError, OSError) as error:
        is_change = isinstance(error, IntegrityError)
        outcome = Outcome.CHANGED if is_change else Outcome.UNCHECKED
        return Check(node=node, outcome=outcome, reason=str(error))
    return Check(node=node, outcome=Outcome.INTACT)


def _check_endpoint(node: LineageNode, graph: LineageGraph) -> None:
    recorded = str(node.details.get("model_digest", ""))
    models = [
        graph.nodes[edge.cause]
        for edge in graph.edges
        if edge.effect == node.key and edge.relation is Relation.SERVED
    ]
    if not recorded or not any(model.digest for model in models):
        raise _NotComparableError("it, or its model, has no recorded digest")
    if all(model.digest != recorded for model in models):
        raise IntegrityError(
            f"it names a model of digest {recorded}, the record one of {models[0].digest}"
        )


def _check_dataset(node: LineageNode, graph: LineageGraph) -> None:
    if DatasetKey.VERSION_HASH not in node.details.get("metadata", {}):
        _check_artifact(node, graph)
        return
    with _missing_is_changed():
        commit = verify_commit(node.uri)
    if f"sha256:{commit.version_hash}" != node.digest:
        raise IntegrityError(f"the commit there is {commit.version_hash}")


def _check_model(node: LineageNode, graph: LineageGraph) -> None:
    path = _local_path(node.uri)
    is_package = open_store(node.uri).exists(MANIFEST_FILE) if node.uri else False
    was_package = "training_job" in node.details.get("metadata", {})
    if not is_package and not was_package and path is not None:
        _check_artifact(node, graph)
        return
    if not node.digest:
        raise _NotComparableError("no digest was recorded")
    with _missing_is_changed(), opened_package(node.uri) as package:
        if f"sha256:{package.digest}" != node.digest:
            raise IntegrityError(f"the model package there has digest {package.digest}")


def _check_source(node: LineageNode, graph: LineageGraph) -> None:
    datasets = [graph.nodes[e.effect] for e in graph.edges if e.cause == node.key]
    if not datasets:
        raise _NotComparableError("the dataset made from it is not in this lineage")
    try:
        commit = read_commit(datasets[0].uri)
    except KubeloopError as error:
        msg = f"the dataset made from it says how, and cannot be read: {error}"
        raise _NotComparableError(msg) from error
    verify_source(commit)


def _check_code(node: LineageNode, _: LineageGraph) -> None:
    with _missing_is_changed(), tempfile.TemporaryDirectory() as folder:
        fetch_code(node.uri, Path(folder))


def _check_artifact(node: LineageNode, _: LineageGraph) -> None:
    if not node.digest:
        raise _NotComparableError("no digest was recorded")
    path = _local_path(node.uri)
    if path is None:
        raise _NotComparableError("it does not lie on this machine")
    if not path.exists():
        raise IntegrityError("nothing is there any more")
    found = digest_path(path)
    if found != node.digest:
        raise IntegrityError(f"its content has digest {found}, not the recorded {node.digest}")


def _check_specification(node: LineageNode, _: LineageGraph) -> None:
    what = node.kind.replace("_", " ")
    raise _NotComparableError(f"only the record holds what the {what} was")


@contextmanager
def _missing_is_changed() -> Iterator[None]:
    """What was recorded and is not there any more has changed."""
    try:
        yield
    except InputError as error:
        raise IntegrityError(str(error)) from error


def _local_path(uri: str) -> Path | None:
    parts = urlsplit(uri)
    path = unquote(parts.path) if parts.scheme == "file" else uri
    return Path(path) if path.startswith("/") else None


_CHECKS: dict[LineageKind, Callable[[LineageNode, LineageGraph], None]] = {
    LineageKind.ENDPOINT: _check_endpoint,
    LineageKind.MODEL: _check_model,
    LineageKind.TRAINING_JOB: _check_specification,
    LineageKind.TRIAL: _check_specification,
    LineageKind.DATASET: _check_dataset,
    LineageKind.SOURCE: _check_source,
    LineageKind.CODE: _check_code,
    LineageKind.ARTIFACT: _check_artifact,
}
