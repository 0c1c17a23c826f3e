"""Where a trial's metrics come from, and Katib's collector for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath

from kubeflow.katib import (
    V1beta1CollectorSpec,
    V1beta1FileSystemPath,
    V1beta1FilterSpec,
    V1beta1MetricsCollectorSpec,
    V1beta1SourceSpec,
)

from kubeloop.errors import InputError

_NUM_GROUPS = 2


class FileFormat(StrEnum):
    """What the lines of a metrics file are."""

    TEXT = "TEXT"
    JSON = "JSON"


@dataclass(frozen=True, slots=True, kw_only=True)
class StdOut:
    """The primary container prints them, as lines such as `accuracy=0.97`."""

    metrics_format: tuple[str, ...] = ()
    """Regular expressions with two groups, name and value; empty: Katib's own for such lines."""

    def __post_init__(self) -> None:
        """Refuse expressions that Katib would refuse."""
        _check_expressions(self.metrics_format)


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """The program appends them to a file."""

    path: str = "/var/log/katib/metrics.log"
    """Absolute path of the file."""
    format: FileFormat = FileFormat.TEXT
    """TEXT: lines as for `StdOut`; JSON: one object a line, such as {"accuracy": "0.97"}, with
    `timestamp` if there is one."""
    metrics_format: tuple[str, ...] = ()
    """As for `StdOut`; of TEXT only."""

    def __post_init__(self) -> None:
        """Refuse what Katib would refuse."""
        _check_path(self.path)
        if self.format not in tuple(FileFormat):
            raise InputError(f"collector.format must be TEXT or JSON, not {self.format!r}.")
        if self.metrics_format and self.format == FileFormat.JSON:
            raise InputError("collector.metrics_format must be empty where format is JSON.")
        _check_expressions(self.metrics_format)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFlowEvents:
    """The program writes scalars as TensorFlow (or TensorBoard) events."""

    path: str = "/var/log/katib/tfevent/"
    """Absolute path of the folder."""

    def __post_init__(self) -> None:
        """Refuse what Katib would refuse."""
        _check_path(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """The program reports them itself, with `report_metrics` of Katib's SDK; none is collected."""


MetricsCollector = StdOut | File | TensorFlowEvents | Push


def build_collector(collector: MetricsCollector) -> V1beta1MetricsCollectorSpec:
    """Katib's collector.

    Raises:
        InputError: It is none.
    """
    if type(collector) not in _KINDS:
        names = ", ".join(kind.__name__ for kind in _KINDS)
        raise InputError(f"collector must be one of {names}, not {collector!r}.")
    source = V1beta1SourceSpec()
    if isinstance(collector, StdOut | File) and collector.metrics_format:
        source.filter = V1beta1FilterSpec(metrics_format=list(collector.metrics_format))
    if isinstance(collector, File):
        source.file_system_path = V1beta1FileSystemPath(
            kind="File", path=collector.path, format=str(collector.format)
        )
    elif isinstance(collector, TensorFlowEvents):
        source.file_system_path = V1beta1FileSystemPath(kind="Directory", path=collector.path)
    return V1beta1MetricsCollectorSpec(
        collector=V1beta1CollectorSpec(kind=_KINDS[type(collector)]),
        source=source if source.filter or source.file_system_path else None,
    )


_KINDS: dict[type[MetricsCollector], str] = {
    StdOut: "StdOut",
    File: "File",
    TensorFlowEvents: "TensorFlowEvent",
    Push: "Push",
}


def _check_path(path: str) -> None:
    if not PurePosixPath(path).is_absolute():
        raise InputError(f"collector.path must be an absolute path, not {path!r}.")


def _check_expressions(expressions: tuple[str, ...]) -> None:
    if not isinstance(expressions, list | tuple):
        raise InputError(
            f"collector.metrics_format must be a list of expressions, not {expressions!r}."
        )
    for expression in expressions:
        try:
            num_groups = re.compile(expression).groups
        except re.error as error:
            raise InputError(
                f"collector.metrics_format has {expression!r}, which is no regular expression: "
                f"{error}."
            ) from error
        if num_groups < _NUM_GROUPS:
            raise InputError(
                f"collector.metrics_format has {expression!r}, which lacks two groups, for name "
                "and value."
            )
