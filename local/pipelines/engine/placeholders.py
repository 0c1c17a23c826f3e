"""Placeholders: `{{$…}}` inside text, and the two structures `Concat` and `IfPresent`.

KFP resolves some placeholders in its driver, some in its launcher and some not at all; the SDK
writes all of them. Here each is resolved wherever it stands. Text that a placeholder brought in is
never looked at again, so a parameter whose value looks like a placeholder stays what it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kubeloop.errors import InputError
from kubeloop.local.pipelines.spec.uris import local_path
from kubeloop.local.pipelines.spec.values import JsonValue, to_text

_PLACEHOLDER = re.compile(r"\{\{\$(?P<path>(?:\.[^{}]+)?)\}\}")
_KEYED = re.compile(
    r"""\.(?P<side>inputs|outputs)\.(?P<kind>parameters|artifacts)"""
    r"""\[(?P<quote>['"])(?P<name>.+?)(?P=quote)\](?P<rest>.*)"""
)
_METADATA = re.compile(r"""\.metadata(?:\[(?P<quote>['"])(?P<key>.+?)(?P=quote)\])?""")
_STRUCTURES = ('{"Concat"', '{"IfPresent"')

WORKSPACE_PATH = "/kfp-workspace"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What placeholders may name."""

    parameters: Mapping[str, JsonValue]
    facts: Mapping[str, str] = field(default_factory=dict)
    """Values of the placeholders about the run and the task, by name: `pipeline_job_uuid`…"""
    input_artifacts: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    output_artifacts: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    output_files: Mapping[str, str] = field(default_factory=dict)
    executor_input: str = ""


def resolve_value(value: JsonValue, scope: Scope) -> JsonValue:
    """Resolve the placeholders in all texts of a value.

    A text that is one placeholder of a parameter and nothing else takes the parameter's value,
    with its type.

    Raises:
        InputError: A placeholder names an input that has no value.
    """
    if isinstance(value, dict):
        return {key: resolve_value(item, scope) for key, item in value.items()}
    if isinstance(value, list):
        return [resolve_value(item, scope) for item in value]
    if not isinstance(value, str) or "{{$" not in value:
        return value
    whole = _PLACEHOLDER.fullmatch(value)
    keyed = _KEYED.fullmatch(whole["path"]) if whole else None
    if keyed and (keyed["side"], keyed["kind"], keyed["rest"]) == ("inputs", "parameters", ""):
        return _parameter(keyed["name"], scope)
    return resolve_text(value, scope)


def resolve_text(text: str, scope: Scope) -> str:
    """Resolve the placeholders in a text; those that mean nothing here are left as they are.

    Raises:
        InputError: A placeholder names an input or output that has no value.
    """
    if "{{$" not in text:
        return text
    return _PLACEHOLDER.sub(lambda match: _replace(match, scope), text)


def resolve_arguments(arguments: Sequence[str], scope: Scope) -> list[str]:
    """Resolve the words of a command line; a structure may yield no word, one, or several.

    Raises:
        InputError: A structure is malformed, or a placeholder names something without a value.
    """
    resolved: list[str] = []
    for argument in arguments:
        if argument.startswith(_STRUCTURES):
            resolved += _resolve_structure(_parse_structure(argument), scope)
        else:
            resolved.append(resolve_text(argument, scope))
    return resolved


def _parse_structure(argument: str) -> JsonValue:
    try:
        return json.loads(argument)
    except ValueError as error:
        raise InputError(f"the argument {argument!r} is not JSON: {error}") from error


def _resolve_structure(structure: JsonValue, scope: Scope) -> list[str]:
    if isinstance(structure, str):
        return [resolve_text(structure, scope)]
    if isinstance(structure, list):
        return [word for item in structure for word in _resolve_structure(item, scope)]
    if isinstance(structure, dict) and "Concat" in structure:
        return ["".join(_resolve_structure(structure["Concat"], scope))]
    if isinstance(structure, dict) and "IfPresent" in structure:
        choice = structure["IfPresent"]
        name = choice.get("InputName")
        present = scope.parameters.get(name) is not None or bool(scope.input_artifacts.get(name))
        chosen = choice.get("Then") if present else choice.get("Else")
        return [] if chosen is None else _resolve_structure(chosen, scope)
    raise InputError(f"the argument {structure!r} is neither text, Concat nor IfPresent")


def _replace(match: re.Match[str], scope: Scope) -> str:
    path = match["path"]
    if not path:
        return scope.executor_input or match[0]
    if path == ".workspace_path":
        return WORKSPACE_PATH
    if path[1:] in scope.facts:
        return scope.facts[path[1:]]
    keyed = _KEYED.fullmatch(path)
    if keyed is None:
        return match[0]
    name, rest = keyed["name"], keyed["rest"]
    if keyed["kind"] == "artifacts":
        of = scope.input_artifacts if keyed["side"] == "inputs" else scope.output_artifacts
        return _artifact(name, rest, of) if of or scope.executor_input else match[0]
    if keyed["side"] == "inputs":
        return to_text(_parameter(name, scope)) if not rest else match[0]
    if rest == ".output_file":
        return str(_known(name, scope.output_files, "output parameter"))
    return match[0]


def _parameter(name: str, scope: Scope) -> JsonValue:
    value = scope.parameters.get(name)
    if value is None:
        raise InputError(f"input parameter {name!r} is used in a text and has no value")
    return value


def _artifact(name: str, rest: str, of: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    artifacts = _known(name, of, "artifact")
    if not artifacts:
        raise InputError(f"artifact {name!r} is used in a text and has no value")
    artifact = artifacts[0]
    if not rest:
        return to_text([dict(item) for item in artifacts])
    if rest == ".uri":
        return str(artifact.get("uri", ""))
    if rest == ".path":
        return local_path(str(artifact.get("uri", "")))
    metadata = _METADATA.fullmatch(rest)
    if metadata is None:
        raise InputError(f"artifact {name!r} has no {rest[1:]!r}; it has uri, path and metadata")
    values = artifact.get("metadata") or {}
    return to_text(values.get(metadata["key"]) if metadata["key"] else values)


def _known(name: str, values: Mapping[str, Any], what: str) -> Any:
    if name not in values:
        held = ", ".join(map(repr, values)) or "none"
        raise InputError(f"{what} {name!r} does not exist; there are {held}")
    return values[name]
