"""Defaults and rules of an experiment's metrics collector.

All kinds are checked by Katib's rules. PrometheusMetric is refused after that, as Katib's own
installation refuses it, so that no trial runs whose metrics nobody reads.

Source: katib v0.19 `experiment_defaults.go`, `validator.go` (validateMetricsCollector).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from kubeloop.errors import InputError
from kubeloop.local.api.refusals import FieldError, value_invalid, value_required
from kubeloop.local.client import Manifest
from kubeloop.local.operators.katib.expressions import compile_filter
from kubeloop.local.operators.katib.terms import CUSTOM, FILE, PUSH, STDOUT, TENSORFLOW_EVENT

_PATH = "spec.metricsCollectorSpec"
_SOURCE = f"{_PATH}.source"
_PROMETHEUS = "PrometheusMetric"
_SERVED = (STDOUT, FILE, TENSORFLOW_EVENT, CUSTOM, PUSH)
_KINDS = (*_SERVED, _PROMETHEUS)
_FORMATS = ("TEXT", "JSON")


def default_collector(spec: Manifest) -> None:
    """Fill in the collector, StdOut when none is named."""
    collector_spec = spec["metricsCollectorSpec"] = spec.get("metricsCollectorSpec") or {}
    collector = collector_spec["collector"] = collector_spec.get("collector") or {}
    kind = collector["kind"] = collector.get("kind") or STDOUT
    if kind == FILE:
        path = _part(collector_spec, "fileSystemPath")
        _fill(path, kind="File", path="/var/log/katib/metrics.log", format="TEXT")
    elif kind == TENSORFLOW_EVENT:
        path = _part(collector_spec, "fileSystemPath")
        _fill(path, kind="Directory", path="/var/log/katib/tfevent/")
    elif kind == _PROMETHEUS:
        _fill(_part(collector_spec, "httpGet"), path="/metrics", port=8080)


def find_collector_faults(collector_spec: Manifest) -> Iterator[FieldError]:
    """The faults of a collector with its defaults."""
    kind, source = collector_spec["collector"]["kind"], collector_spec.get("source") or {}
    if kind not in _KINDS:
        yield value_invalid(
            f"{_PATH}.collector.kind", kind, f"invalid metrics collector kind: {kind}"
        )
        return
    path = source.get("fileSystemPath") or {}
    if kind == FILE:
        yield from _find_file_faults(path, has_filter=source.get("filter") is not None)
    elif kind == TENSORFLOW_EVENT:
        yield from _find_directory_faults(path)
    elif kind == _PROMETHEUS:
        yield from _find_http_faults(source.get("httpGet") or {})
    elif kind == CUSTOM:
        yield from _find_custom_faults(collector_spec["collector"], path)
    yield from _find_filter_faults((source.get("filter") or {}).get("metricsFormat") or ())
    if kind not in _SERVED:
        yield value_invalid(
            f"{_PATH}.collector.kind",
            kind,
            "GetMetricsCollectorConfigData failed: failed to find metrics collector config for "
            f"kind: {kind}; known are {', '.join(_SERVED)}",
        )


def _part(collector_spec: Manifest, name: str) -> Manifest:
    source = collector_spec["source"] = collector_spec.get("source") or {}
    part: Manifest = source.get(name) or {}
    source[name] = part
    return part


def _fill(part: Manifest, **defaults: Any) -> None:  # any JSON
    for key, value in defaults.items():
        if not part.get(key):
            part[key] = value


def _find_file_faults(path: Manifest, *, has_filter: bool) -> Iterator[FieldError]:
    if path.get("kind") != "File" or not _is_absolute(path):
        yield value_required(
            f"{_SOURCE}.fileSystemPath.path", "file path where metrics file exists is required"
        )
    if path.get("format") not in _FORMATS:
        yield value_required(
            f"{_SOURCE}.fileSystemPath.format",
            "format of metrics file is required for metrics collector",
        )
    if path.get("format") == "JSON" and has_filter:
        yield value_invalid(
            f"{_SOURCE}.filter", "", "filter must be nil when format of metrics file is json"
        )


def _find_directory_faults(path: Manifest) -> Iterator[FieldError]:
    if path.get("kind") != "Directory" or not _is_absolute(path):
        yield value_required(
            _SOURCE, "directory path where tensorflow event files exist is required"
        )
    if path.get("format"):
        yield value_invalid(f"{_SOURCE}.fileSystemPath.format", path["format"], "must be empty")


def _find_http_faults(http_get: Manifest) -> Iterator[FieldError]:
    port, path = str(http_get.get("port", "")), str(http_get.get("path", ""))
    if not port.isdecimal() or int(port) == 0:
        yield value_invalid(
            f"{_SOURCE}.httpGet.port",
            port,
            "must be a positive integer value for metrics collector kind: PrometheusMetric",
        )
    if not path.startswith("/"):
        yield value_invalid(
            f"{_SOURCE}.httpGet.path",
            path,
            "path is invalid for metrics collector kind: PrometheusMetric",
        )


def _find_custom_faults(collector: Manifest, path: Manifest) -> Iterator[FieldError]:
    if not collector.get("customCollector"):
        yield value_required(
            f"{_PATH}.collector.customCollector", "metrics collector kind: Custom is required"
        )
    if path and (path.get("kind") not in ("File", "Directory") or not _is_absolute(path)):
        yield value_invalid(
            f"{_SOURCE}.fileSystemPath", "", ".spec.metricsCollectorSpec.source is invalid"
        )


def _find_filter_faults(expressions: Iterable[str]) -> Iterator[FieldError]:
    where = f"{_SOURCE}.filter.metricsFormat"
    for expression in expressions:
        try:
            compile_filter(expression)
        except InputError as error:
            yield value_invalid(where, expression, str(error))


def _is_absolute(path: Manifest) -> bool:
    return str(path.get("path", "")).startswith("/")
