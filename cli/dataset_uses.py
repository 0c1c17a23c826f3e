"""Who still uses a version of a dataset: runs that go on, and endpoints."""

from __future__ import annotations

from kubeloop.cli.endpoints import list_endpoints
from kubeloop.cli.options import Session
from kubeloop.datasets import Commit

_ENDED = frozenset({"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"})


def find_uses(session: Session, commit: Commit) -> list[str]:
    """Name the runs and endpoints that use a commit.

    Raises:
        PermanentError: No control plane answers that could tell.
        TransientError: The record cannot be reached.
    """
    from kubeloop.kserve.endpoints import EndpointAnnotation

    uses = [
        f"endpoint {endpoint.name}"
        for endpoint in list_endpoints(session)
        if endpoint.annotations.get(EndpointAnnotation.VERSION_HASH) == commit.version_hash
    ]
    with session.connect_metadata() as record:
        artifacts = record.find_artifacts([commit.uri])
        used = record.list_uses([artifact.artifact_id for artifact in artifacts])
        for run_id in dict.fromkeys(use.run_id for use in used):
            run = record.get_run(run_id)
            if run.state.upper() not in _ENDED:
                uses.append(f"run {run.name} ({run_id})")
    return uses
