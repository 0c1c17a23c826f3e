"""Reads what a container task left behind: its output parameters and artifacts.

The output file wins over parameter files, and what it says of an artifact (name, URI, metadata)
over what was planned. A parameter that is in neither fails the task; an artifact that was never
written does not, as in KFP.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubeloop.digests import digest_path
from kubeloop.errors import InputError
from kubeloop.local.pipelines.engine.executor import Plan
from kubeloop.local.pipelines.spec import ir
from kubeloop.local.pipelines.spec.uris import is_local, local_path
from kubeloop.local.pipelines.spec.values import JsonValue, canonical, describe_type, parse_text

EXECUTOR_LOGS = "executor-logs"
"""Name of the artifact that holds what a step printed; followed by the index of a retry."""

_MAX_OUTPUT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputArtifact:
    """An artifact that a task left, not recorded yet."""

    name: str
    spec: ir.ArtifactSpec
    uri: str
    metadata: dict[str, JsonValue]
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """All that a task left; artifacts by the name of the output."""

    parameters: dict[str, JsonValue]
    artifacts: dict[str, tuple[OutputArtifact, ...]]


NOTHING = Outputs(parameters={}, artifacts={})


def keep_log(plan: Plan, log: str, *, retry_index: int) -> Outputs:
    """Keep what an attempt printed as an artifact beside its others, as KFP's launcher does."""
    if not log:
        return NOTHING
    name = f"{EXECUTOR_LOGS}-{retry_index}" if retry_index else EXECUTOR_LOGS
    (plan.folder / name).write_text(log, "utf-8", "surrogateescape")
    artifact = OutputArtifact(
        name=name,
        spec=ir.ArtifactSpec(schema_title="system.Artifact"),
        uri=plan.artifact_uri(name),
        metadata={},
        digest="",
    )
    return Outputs(parameters={}, artifacts={name: (artifact,)})


def read_outputs(plan: Plan) -> Outputs:
    """Read the outputs of an attempt that exited with 0. Touches files only; may run in a thread.

    Raises:
        InputError: An output parameter is missing or not of its type, or the output file is no
            JSON.
    """
    reported = _read_output_file(plan.output_file)
    values = reported.get("parameterValues") or {}
    parameters = {
        name: _read_parameter(name, spec, values=values, file=plan.parameter_file(name))
        for name, spec in plan.component.output_parameters.items()
    }
    described = reported.get("artifacts") or {}
    artifacts = {
        name: _read_artifacts(plan, name, described.get(name) or {})
        for name in plan.component.output_artifacts
    }
    return Outputs(parameters=parameters, artifacts=artifacts)


def _read_output_file(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return {}
    if not text.strip():
        return {}
    try:
        reported = canonical(json.loads(text))
    except ValueError as error:
        raise InputError(f"its output file {path} is not JSON: {error}") from error
    if not isinstance(reported, dict):
        raise InputError(f"its output file {path} holds no JSON object")
    return reported


def _read_parameter(
    name: str, spec: ir.ParameterSpec, *, values: Mapping[str, JsonValue], file: Path
) -> JsonValue:
    if name in values:
        return values[name]
    try:
        if file.stat().st_size > _MAX_OUTPUT_BYTES:
            raise InputError(f"output parameter {name!r} is larger than {_MAX_OUTPUT_BYTES} bytes")
        return parse_text(file.read_text(), spec.type)
    except FileNotFoundError:
        raise InputError(
            f"it exited without writing output parameter {name!r}, {describe_type(spec.type)}"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(f"output parameter {name!r} is not text: {error}") from error
    except InputError as error:
        raise InputError(f"output parameter {name!r}: {error}") from error


def _read_artifacts(plan: Plan, name: str, described: Any) -> tuple[OutputArtifact, ...]:
    spec = plan.component.output_artifacts[name]
    found = described.get("artifacts") if isinstance(described, dict) else None
    if found is None:
        found = [{}]
    artifacts = []
    for item in found:
        uri = item.get("uri") or plan.artifact_uri(name)
        metadata = item.get("metadata")
        artifacts.append(
            OutputArtifact(
                name=item.get("name") or name,
                spec=spec,
                uri=uri,
                metadata=dict(spec.metadata) if metadata is None else metadata,
                digest=digest_path(path) if (path := plan.locate(uri)) else "",
            )
        )
    return tuple(artifacts)


def digest_uri(uri: str) -> str:
    """A digest of the content at a URI; empty where nothing is there or it is not local."""
    return digest_path(Path(local_path(uri))) if is_local(uri) else ""
