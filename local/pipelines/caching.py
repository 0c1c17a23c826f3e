"""When a task may take the outputs of an earlier one instead of running.

The fingerprint is made of what upstream's is made of: names of the input artifacts, values of the
input parameters, the declared outputs, the container, the mounted claims; or of the component and
a cache key that the author chose. One thing is stricter: an input artifact counts by its content
and not by its URI, so a file that changed in place misses, and equal content at another place hits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from kubeloop.local.pipelines.executor import Plan, is_local
from kubeloop.local.pipelines.outputs import digest_uri
from kubeloop.local.pipelines.records import Artifact


def fingerprint_parts(plan: Plan, *, claims: Iterable[str]) -> dict[str, str]:
    """What goes into a task's fingerprint, each part as a digest or a short text.

    Reads the input artifacts' content where it is local; may run in a thread.
    """
    component = plan.component
    artifacts = {
        name: [_identity(artifact) for artifact in given] for name, given in plan.artifacts.items()
    }
    outputs = {
        name: [spec.schema_title, spec.schema_version, dict(spec.metadata)]
        for name, spec in component.output_artifacts.items()
    }
    container = plan.container
    return {
        **{f"input parameter {name}": _digest(value) for name, value in plan.parameters.items()},
        **{f"input artifact {name}": _digest(given) for name, given in artifacts.items()},
        "output artifacts": _digest(outputs),
        "output parameters": _digest(
            {name: spec.type for name, spec in component.output_parameters.items()}
        ),
        "image": container.image,
        "command and arguments": _digest([*container.command, *container.args]),
        "persistent volume claims": _digest(sorted(claims)),
    }


def fingerprint_of_key(component: str, key: str) -> str:
    """The fingerprint of a task whose author set a cache key."""
    return hashlib.sha256(f"{component}\0{key}".encode()).hexdigest()


def fingerprint_of_parts(parts: dict[str, str]) -> str:
    """The fingerprint made of these parts."""
    return hashlib.sha256(_canonical_json(parts)).hexdigest()


def are_intact(artifacts: Iterable[Artifact]) -> bool:
    """Whether recorded artifacts still hold what they held when they were recorded.

    Those in object stores are believed to: nothing is written there twice.
    """
    return all(
        not artifact.digest
        or not is_local(artifact.uri)
        or digest_uri(artifact.uri) == artifact.digest
        for artifact in artifacts
    )


def _identity(artifact: Artifact) -> list[Any]:
    content = digest_uri(artifact.uri) if is_local(artifact.uri) else artifact.digest
    return [artifact.schema_title, content or artifact.uri, artifact.metadata]


def _digest(value: Any) -> str:
    return hashlib.sha256(_canonical_json(value)).hexdigest()


def _canonical_json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
