"""Renders trial templates: a job's manifest with `${trialParameters.x}` in place of values.

The template is treated as JSON text, and values are put in as they are, as Katib does: a value with
a quote in it would break the text, so that it is escaped here, which for every other value is the
same.

Source: katib v0.19 `experiment/manifest/generator.go`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kubeloop.errors import InputError
from kubeloop.local.client import Manifest

PLACEHOLDER = re.compile(r"\$\{trialParameters\..+?\}")
_META_REFERENCE = re.compile(r"\$\{trialSpec\.(.+?)\}")
_META_ENTRY = re.compile(r"(.+)\[(.+)\]")
_META_KEYS = ("Name", "Namespace", "Kind", "APIVersion")
_META_MAPPINGS = {"Annotations": "annotations", "Labels": "labels"}

FindConfigMap = Callable[[str, str], Manifest | None]
"""A ConfigMap by namespace and name, None when there is none."""


def placeholder(name: str) -> str:
    """What stands for a trial parameter in a template."""
    return f"${{trialParameters.{name}}}"


def is_meta_reference(reference: str) -> bool:
    """Whether a trial parameter takes its value from the trial itself, such as its name."""
    key = _meta_key(reference)
    if key is None:
        return False
    entry = _META_ENTRY.fullmatch(key)
    return key in _META_KEYS or (entry is not None and entry[1] in _META_MAPPINGS)


def read_template(template: Manifest, find_config_map: FindConfigMap) -> str:
    """The text of a trial template, inline or from a ConfigMap.

    Raises:
        InputError: The ConfigMap or its entry is missing.
    """
    if template.get("trialSpec") is not None:
        return json.dumps(template["trialSpec"], separators=(",", ":"), ensure_ascii=False)
    source = template.get("configMap") or {}
    namespace, name = source.get("configMapNamespace", ""), source.get("configMapName", "")
    config_map = find_config_map(namespace, name)
    if config_map is None:
        raise InputError(f"ConfigMap {namespace}/{name} was not found")
    path = source.get("templatePath", "")
    text = (config_map.get("data") or {}).get(path)
    if not isinstance(text, str):
        raise InputError(f"ConfigMap {namespace}/{name} has no entry {path!r}")
    return text


def render_trial(
    template: Manifest,
    assignments: Iterable[Mapping[str, str]],
    *,
    text: str,
    trial_name: str,
    namespace: str,
) -> Manifest:
    """The job of one trial.

    Args:
        template: `spec.trialTemplate` of the experiment.
        assignments: Values by parameter, each with `name` and `value`.
        text: The template's text (`read_template`).
        trial_name: Name of the trial and of its job.
        namespace: Namespace of both.

    Raises:
        InputError: Assignments and parameters do not fit, or the result is no manifest.
    """
    values = {entry["name"]: entry["value"] for entry in assignments}
    parameters = template.get("trialParameters") or []
    references = [p["reference"] for p in parameters if not is_meta_reference(p["reference"])]
    if len(values) != len(references):
        raise InputError(
            f"the algorithm assigned {len(values)} parameters and the template takes "
            f"{len(references)}"
        )
    for reference in references:
        if reference not in values:
            raise InputError(f"the algorithm assigned no value to parameter {reference}")
    metadata, original = {"name": trial_name, "namespace": namespace}, text
    for parameter in parameters:
        value = values.get(parameter["reference"])
        if value is None:
            value = _read_meta(parameter["reference"], original, metadata)
        text = text.replace(placeholder(parameter["name"]), _escape(value))
    job = parse_manifest(text)
    job["metadata"] = {**(job.get("metadata") or {}), **metadata}
    return job


def parse_manifest(text: str) -> Manifest:
    """A manifest's JSON or YAML text as an object.

    Raises:
        InputError: It is neither.
    """
    try:
        manifest = json.loads(text)
    except ValueError:
        manifest = _parse_yaml(text)
    if not isinstance(manifest, dict):
        raise InputError("the template is not an object")
    return manifest


def _parse_yaml(text: str) -> Any:  # any YAML
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"the template is neither JSON nor YAML: {error}") from error


def _meta_key(reference: str) -> str | None:
    match = _META_REFERENCE.fullmatch(reference)
    return None if match is None else match[1]


def _read_meta(reference: str, text: str, metadata: Mapping[str, str]) -> str:
    key = _meta_key(reference) or ""
    if key in ("Name", "Namespace"):
        return metadata[key.lower()]
    source = parse_manifest(text)
    if key in ("Kind", "APIVersion"):
        return str(source.get("kind" if key == "Kind" else "apiVersion", ""))
    entry = _META_ENTRY.fullmatch(key)
    assert entry is not None
    values = (source.get("metadata") or {}).get(_META_MAPPINGS[entry[1]]) or {}
    if entry[2] not in values:
        raise InputError(f"the template has no {_META_MAPPINGS[entry[1]]} entry {entry[2]!r}")
    return str(values[entry[2]])


def _escape(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)[1:-1]
