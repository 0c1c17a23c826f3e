r"""Metrics in a training program's output, and what a trial observed of them.

A line counts when it contains a wanted metric's name; values are then found by regular expressions
with two groups, name and value. A match without a value (the default expression finds one in
`accuracy=NaN`) is no report here, where Katib would store an empty text.

Source: katib v0.19 `file-metricscollector.go`, `trial_controller_util.go`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from kubeloop.katib.suggestion.manifests import UNAVAILABLE
from kubeloop.local.client import Manifest

DEFAULT_FILTER = r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)"
NO_TIME = "0001-01-01T00:00:00Z"
"""Time stamp of a report without one."""

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:[.,](\d+))?(Z|[+-]\d\d:\d\d)")
_NAME_AND_VALUE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricLog:
    """One report of a metric."""

    time_stamp: str
    name: str
    value: str


def parse_text(
    text: str, *, metrics: Sequence[str], filters: Sequence[str] = ()
) -> tuple[MetricLog, ...]:
    """The reports in a log.

    Args:
        text: The log.
        metrics: Wanted metrics, the objective first.
        filters: Regular expressions with two groups; the default one when there are none.

    Returns:
        The reports in the log's order; one that says "unavailable" when the objective is not among
        them.
    """
    expressions = [re.compile(pattern, re.ASCII) for pattern in filters or [DEFAULT_FILTER]]
    logs = tuple(
        log
        for line in text.split("\n")
        if any(metric in line for metric in metrics)
        for log in _parse_line(line, expressions, metrics)
    )
    return require_objective(logs, objective=metrics[0])


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


def _parse_line(
    line: str, expressions: Sequence[re.Pattern[str]], metrics: Sequence[str]
) -> Iterator[MetricLog]:
    first, blank, _ = line.partition(" ")
    time_stamp = first if blank and find_time(first) else NO_TIME
    for expression in expressions:
        if expression.groups < _NAME_AND_VALUE:
            continue
        for match in expression.finditer(line):
            name, value = (match[1] or "").strip(), (match[2] or "").strip()
            if name in metrics and value:
                yield MetricLog(time_stamp=time_stamp, name=name, value=value)


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
