"""Who still uses a version of a dataset: runs that go on, and endpoints."""

from __future__ import annotations

from collections.abc import Mapping

from kubeloop.cli.endpoints import list_endpoints
from kubeloop.cli.options import Session
from kubeloop.datasets import VersionHash

_ENDED = frozenset({"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"})


def find_uses(session: Session, versions: Mapping[str, VersionHash]) -> list[str]:
    """Name the runs and endpoints that use one of some commits.

    Args:
        session: Says where to look.
        versions: Version hashes of the commits by their URI.

    Raises:
        PermanentError: No control plane answers that could tell.
        TransientError: The record cannot be reached.
    """
    from kubeloop.kserve.endpoints import EndpointAnnotation

    hashes = set(versions.values())
    uses = [
        f"endpoint {endpoint.name}"
        for endpoint in list_endpoints(session)
        if endpoint.annotations.get(EndpointAnnotation.VERSION_HASH) in hashes
    ]
    with session.connect_metadata() as record:
        artifacts = record.find_artifacts(list(versions))
        used = record.list_uses([artifact.artifact_id for artifact in artifacts])
        for run_id in dict.fromkeys(use.run_id for use in used):
            run = record.get_run(run_id)
            if run.state.upper() not in _ENDED:
                uses.append(f"run {run.name} ({run_id})")
    return uses
