"""Reads what a trial's program reports, bit by bit while it writes.

A reader keeps its place, so that each look costs what was written since the last. It keeps a log
open too: who deletes a pod as soon as it has ended does not take its last words away.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path, PurePosixPath

from kubeloop.errors import InputError
from kubeloop.local.client import Manifest
from kubeloop.local.kubelet.pod_files import PodFiles
from kubeloop.local.operators.katib.metrics import (
    JsonParser,
    LineParser,
    MetricLog,
    TextParser,
    format_moment,
)
from kubeloop.local.operators.katib.tensorflow_events import (
    BrokenRecordError,
    Scalar,
    read_scalars,
    split_records,
)
from kubeloop.local.operators.katib.terms import FILE, STDOUT, TENSORFLOW_EVENT

_CHUNK = 1 << 20
_MAX_LINE_BYTES = 1 << 20
_BROKEN = sys.maxsize


class ReportReader(ABC):
    """Reads the reports of one run of a program."""

    @abstractmethod
    def read(self, *, is_final: bool) -> Iterator[MetricLog]:
        """The reports since the last look; `is_final` when nothing more will be written.

        Raises:
            InputError: What is written breaks the format; nothing of it counts.
        """

    @abstractmethod
    def pending_bytes(self) -> int:
        """How much there is to read."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files."""


class LineReader(ReportReader):
    """Reads the lines of one file, which need not exist yet."""

    def __init__(self, path: Path, parser: LineParser) -> None:
        self._path = path
        self._parser = parser
        self._file: BufferedReader | None = None
        self._begun = b""

    def read(self, *, is_final: bool) -> Iterator[MetricLog]:
        """The reports in the lines that are complete, or at the end in all."""
        file = self._open()
        while file is not None and (chunk := file.read(_CHUNK)):
            *lines, self._begun = (self._begun + chunk).split(b"\n")
            for line in lines:
                yield from self._parser.parse(line.decode("utf-8", "replace"))
            self._begun = self._begun[:_MAX_LINE_BYTES]  # what prints no line ends has no metrics
        if is_final and self._begun:
            line, self._begun = self._begun, b""
            yield from self._parser.parse(line.decode("utf-8", "replace"))

    def pending_bytes(self) -> int:
        """How much there is to read."""
        file = self._open()
        return 0 if file is None else os.fstat(file.fileno()).st_size - file.tell()

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    def _open(self) -> BufferedReader | None:
        if self._file is None:
            try:
                self._file = self._path.open("rb")
            except OSError:
                return None
        return self._file


class EventsReader(ReportReader):
    """Reads the TensorFlow event files below one folder.

    The metric `train/accuracy` is the tag `accuracy` in a folder `train`; a metric without a slash
    is a tag of any file. As in Katib, a tag counts when it starts with the metric's name.
    """

    def __init__(self, folder: Path, *, metrics: Sequence[str]) -> None:
        self._folder = folder
        self._metrics = tuple(PurePosixPath(metric) for metric in metrics)
        self._positions: dict[Path, int] = {}

    def read(self, *, is_final: bool) -> Iterator[MetricLog]:
        """The reports in the records that are complete."""
        del is_final
        for path in self._list_files():
            start = self._positions.get(path, 0)
            if start == _BROKEN:
                continue
            with path.open("rb") as file:
                file.seek(start)
                data = file.read()
            try:
                for record, end in split_records(data):
                    self._positions[path] = start + end
                    for scalar in read_scalars(record):
                        yield from self._match(path, scalar)
            except BrokenRecordError:  # no event file, or damaged from here on
                self._positions[path] = _BROKEN

    def pending_bytes(self) -> int:
        """How much there is to read."""
        return sum(
            max(0, path.stat().st_size - self._positions.get(path, 0))
            for path in self._list_files()
        )

    def close(self) -> None:
        """Nothing is kept open."""

    def _list_files(self) -> list[Path]:
        return sorted(path for path in self._folder.rglob("*") if path.is_file())

    def _match(self, path: Path, scalar: Scalar) -> Iterator[MetricLog]:
        for metric in self._metrics:
            folder = str(metric.parent)
            is_there = folder == "." or str(path.parent).endswith(folder)
            if is_there and scalar.tag.startswith(metric.name):
                yield MetricLog(
                    time_stamp=format_moment(scalar.wall_time),
                    name=str(metric),
                    value=scalar.value,
                )


def wanted_metrics(trial: Manifest) -> list[str]:
    """The metrics to look for, the objective first."""
    objective = trial["spec"]["objective"]
    return [objective["objectiveMetricName"], *(objective.get("additionalMetricNames") or [])]


def collector_kind(trial: Manifest) -> str:
    """How the trial's metrics come in."""
    collector = (trial["spec"].get("metricsCollector") or {}).get("collector") or {}
    return str(collector.get("kind") or STDOUT)


def open_reader(
    trial: Manifest, pod: Manifest, *, files: PodFiles, restart_count: int
) -> ReportReader | None:
    """The reader of one incarnation of a trial's primary container; None when it reports itself.

    Raises:
        InputError: The collector's settings cannot be used.
    """
    kind, metrics = collector_kind(trial), wanted_metrics(trial)
    container = trial["spec"].get("primaryContainerName") or ""
    source = (trial["spec"].get("metricsCollector") or {}).get("source") or {}
    filters = (source.get("filter") or {}).get("metricsFormat") or ()
    if kind == STDOUT:
        log = files.log(pod, container, restart_count=restart_count)
        return LineReader(log, TextParser(metrics=metrics, filters=filters))
    place = source.get("fileSystemPath") or {}
    if kind not in (FILE, TENSORFLOW_EVENT):
        return None
    path = files.locate(pod, container, str(place.get("path", "")))
    if kind == TENSORFLOW_EVENT:
        return EventsReader(path, metrics=metrics)
    if place.get("format") == "JSON":
        return LineReader(path, JsonParser(metrics=metrics))
    return LineReader(path, TextParser(metrics=metrics, filters=filters))


def read_all(reader: ReportReader, *, is_final: bool) -> tuple[list[MetricLog], str]:
    """What is there to read, and what is wrong with it; empty when nothing is."""
    logs: list[MetricLog] = []
    try:
        logs.extend(reader.read(is_final=is_final))
    except InputError as error:
        return logs, str(error)
    return logs, ""
