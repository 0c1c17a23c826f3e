"""Which algorithms answer at an endpoint of the user's: the part of Katib's configuration that
counts here.

On a cluster `katib-config` names an image for each algorithm, and Katib runs it beside every
experiment. Here the built-in algorithms run in the control plane, and an entry with an `endpoint`
is a service that runs already.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kubeloop.errors import InputError
from kubeloop.local.client import Manifest

CONFIG_NAME, CONFIG_NAMESPACE = "katib-config", "kubeflow"
_KEY = "katib-config.yaml"
_ENDPOINT = re.compile(r"[\w.\-\[\]:]+:\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Where algorithms answer, by name."""

    suggestions: Mapping[str, str] = field(default_factory=dict)
    early_stoppings: Mapping[str, str] = field(default_factory=dict)


def read_endpoints(config_map: Manifest | None) -> Endpoints:
    """Read them from the ConfigMap `katib-config`.

    Raises:
        InputError: It holds no configuration of Katib.
    """
    text = ((config_map or {}).get("data") or {}).get(_KEY)
    if not text:
        return Endpoints()
    runtime = _parse(text).get("runtime") or {}
    return Endpoints(
        suggestions=_find_endpoints(runtime, "suggestions"),
        early_stoppings=_find_endpoints(runtime, "earlyStoppings"),
    )


def _parse(text: str) -> Manifest:
    import yaml

    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{_name('')} is no YAML: {error}") from error
    if not isinstance(config, dict) or config.get("kind") != "KatibConfig":
        raise InputError(f"{_name('')} must hold an object of kind KatibConfig.")
    return config


def _find_endpoints(runtime: Any, part: str) -> dict[str, str]:  # any YAML
    entries = runtime.get(part) or [] if isinstance(runtime, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{_name(f'runtime.{part}')} must be a list of algorithms.")
    endpoints = {}
    for index, entry in enumerate(entries):
        endpoint = entry.get("endpoint")
        if endpoint is None:
            continue
        if not isinstance(endpoint, str) or not _ENDPOINT.fullmatch(endpoint):
            where = _name(f"runtime.{part}[{index}].endpoint")
            raise InputError(f"{where} is {endpoint!r}; write host:port, such as 127.0.0.1:6789.")
        endpoints[str(entry.get("algorithmName"))] = endpoint
    return endpoints


def _name(path: str) -> str:
    where = f"ConfigMap {CONFIG_NAMESPACE}/{CONFIG_NAME}, {_KEY}"
    return f"{where}: {path}" if path else where
