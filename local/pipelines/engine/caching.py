"""When a task may take the outputs of an earlier one instead of running.

The fingerprint is made of what upstream's is made of: names of the input artifacts, values of the
input parameters, the declared outputs, the container, the mounted claims; or of the component and
a cache key that the author chose. One thing is stricter: an input artifact counts by its content
and not by its URI, so a file that changed in place misses, and equal content at another place hits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from kubeloop.local.pipelines.engine.executor import Plan
from kubeloop.local.pipelines.engine.outputs import digest_uri
from kubeloop.local.pipelines.spec.uris import is_local
from kubeloop.local.pipelines.spec.values import JsonValue
from kubeloop.local.pipelines.storage.records import Artifact

_SHOWN_LENGTH = 200  # of a parameter's JSON; what is longer is shown as a digest


def fingerprint_parts(plan: Plan, *, claims: Iterable[str]) -> dict[str, str]:
    """What goes into a task's fingerprint, each part by name: short as it is, long as a digest.

    People read the parts (`kubeloop runs why`), so what can change by itself is a part of its own.
    Reads the input artifacts' content where it is local; may run in a thread.
    """
    component, container = plan.component, plan.container
    outputs = {
        name: [spec.schema_title, spec.schema_version, dict(spec.metadata)]
        for name, spec in component.output_artifacts.items()
    }
    parts = {f"input parameter {name}": _shorten(value) for name, value in plan.parameters.items()}
    for name, given in plan.artifacts.items():
        parts[f"input artifact {name}"] = _join([_content(artifact) for artifact in given])
        parts[f"metadata of input artifact {name}"] = _digest(
            [[artifact.schema_title, artifact.metadata] for artifact in given]
        )
    return {
        **parts,
        "output artifacts": _digest(outputs),
        "output parameters": _digest(
            {name: spec.type for name, spec in component.output_parameters.items()}
        ),
        "image": container.image,
        "command": _digest(container.command),
        "arguments": _digest(container.args),
        "persistent volume claims": ", ".join(sorted(claims)),
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


def _content(artifact: Artifact) -> str:
    """What tells an artifact from another: its content, or its URI where that cannot be read."""
    content = digest_uri(artifact.uri) if is_local(artifact.uri) else artifact.digest
    return content or artifact.uri


def _join(items: Sequence[str]) -> str:
    """One item as it is; a list by its length and digest."""
    return items[0] if len(items) == 1 else f"{len(items)} artifacts, {_digest(items)}"


def _shorten(value: JsonValue) -> str:
    text = _canonical_json(value).decode()
    return text if len(text) <= _SHOWN_LENGTH else _digest(value)


def _digest(value: Any) -> str:
    return f"sha256:{hashlib.sha256(_canonical_json(value)).hexdigest()}"


def _canonical_json(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode(errors="surrogatepass")
