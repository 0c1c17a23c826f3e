"""Metrics in a training program's output, and what a trial observed of them.

A line of text counts when it contains a wanted metric's name; values are then found by regular
expressions with two groups, name and value. A match without a value (the default expression finds
one in `accuracy=NaN`) is no report here, where Katib would store an empty text.

Source: katib v0.19 `file-metricscollector.go`, `trial_controller_util.go`.
"""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from kubeloop.errors import InputError
from kubeloop.katib.suggestion.manifests import UNAVAILABLE
from kubeloop.local.client import Manifest
from kubeloop.local.operators.katib.expressions import DEFAULT_FILTER, compile_filter

NO_TIME = "0001-01-01T00:00:00Z"
"""Time stamp of a report without one."""

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:[.,](\d+))?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricLog:
    """One report of a metric."""

    time_stamp: str
    name: str
    value: str


class LineParser(ABC):
    """Finds reports in the lines of a log."""

    @abstractmethod
    def parse(self, line: str) -> Iterator[MetricLog]:
        """The reports in one line.

        Raises:
            InputError: The line breaks the format, so that nothing of the file counts.
        """


class TextParser(LineParser):
    """Reports such as `accuracy=0.97`, or what a user's expressions find."""

    def __init__(self, *, metrics: Sequence[str], filters: Sequence[str] = ()) -> None:
        """Look for `metrics`, with expressions of two groups or the default one.

        Raises:
            InputError: An expression cannot be used.
        """
        self._metrics = tuple(metrics)
        self._expressions = [compile_filter(text) for text in filters or [DEFAULT_FILTER]]

    def parse(self, line: str) -> Iterator[MetricLog]:
        """The reports in one line."""
        if not any(metric in line for metric in self._metrics):
            return
        first, blank, _ = line.partition(" ")
        time_stamp = first if blank and find_time(first) else NO_TIME
        for expression in self._expressions:
            for match in expression.finditer(line):
                name, value = (match[1] or "").strip(), (match[2] or "").strip()
                if name in self._metrics and value:
                    yield MetricLog(time_stamp=time_stamp, name=name, value=value)


class JsonParser(LineParser):
    """One JSON object a line, metrics as texts in it, the time as `timestamp`."""

    def __init__(self, *, metrics: Sequence[str]) -> None:
        """Look for `metrics`."""
        self._metrics = tuple(metrics)

    def parse(self, line: str) -> Iterator[MetricLog]:
        """The reports in one line."""
        if not line:
            return
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise InputError(f"failed to parse the json object {line[:80]!r}: {error}") from error
        if not isinstance(entry, dict):
            raise InputError(f"failed to parse the json object: {line[:80]!r} is none")
        time_stamp = _read_time(entry.get("timestamp"))
        for metric in self._metrics:
            value = entry.get(metric)
            if isinstance(value, str):
                yield MetricLog(time_stamp=time_stamp, name=metric, value=value)


def require_objective(logs: Sequence[MetricLog], *, objective: str) -> tuple[MetricLog, ...]:
    """The reports, or one that says "unavailable" where the objective never appears."""
    if any(log.name == objective for log in logs):
        return tuple(logs)
    return (MetricLog(time_stamp=NO_TIME, name=objective, value=UNAVAILABLE),)


def find_time(text: str) -> datetime | None:
    """The moment that an RFC 3339 text names, to the microsecond; None when it is none."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    fraction = (match[2] or "0")[:6].ljust(6, "0")
    zone = "+00:00" if match[3] == "Z" else match[3]
    try:
        return datetime.fromisoformat(f"{match[1]}.{fraction}{zone}").astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def format_moment(seconds: float) -> str:
    """RFC 3339 of seconds since the epoch, without needless zeros; NO_TIME when out of range."""
    try:
        moment = datetime.fromtimestamp(seconds, tz=UTC)
    except (ValueError, OverflowError, OSError):
        return NO_TIME
    whole, _, fraction = moment.replace(tzinfo=None).isoformat().partition(".")
    fraction = fraction.rstrip("0")
    return f"{whole}.{fraction}Z" if fraction else f"{whole}Z"


def observe(logs: Iterable[MetricLog], *, metrics: Sequence[str]) -> Manifest:
    """`status.observation` of a trial: least, greatest and newest value of each metric."""
    by_name: dict[str, list[MetricLog]] = {name: [] for name in metrics}
    for log in logs:
        if log.name in by_name:
            by_name[log.name].append(log)
    return {"metrics": [_summarise(name, reports) for name, reports in by_name.items()]}


def parse_number(text: str) -> float | None:
    """The number that a metric's text names; None for text and for NaN."""
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) else value


def _read_time(value: object) -> str:
    """The time in a JSON report: RFC 3339, or seconds since the epoch."""
    if isinstance(value, str):
        return value if find_time(value) else NO_TIME
    if isinstance(value, bool) or not isinstance(value, int | float):
        return NO_TIME
    return format_moment(value)


def _summarise(name: str, reports: Sequence[MetricLog]) -> Manifest:
    numbers = [(number, r.value) for r in reports if (number := parse_number(r.value)) is not None]
    newest = None
    for report in reports:
        moment = find_time(report.time_stamp) or find_time(NO_TIME)
        assert moment is not None
        if newest is None or moment >= newest[0]:
            newest = (moment, report.value)
    return {
        "name": name,
        "min": min(numbers, key=_first)[1] if numbers else UNAVAILABLE,
        "max": max(numbers, key=_first)[1] if numbers else UNAVAILABLE,
        "latest": UNAVAILABLE if newest is None else newest[1],
    }


def _first(pair: tuple[float, str]) -> float:
    return pair[0]
