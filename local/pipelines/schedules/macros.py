"""Macros in a run's text parameters, such as `[[ScheduledTime]]`, which KFP fills in at the start.

Known are `[[RunUUID]]`, `[[Index]]`, `[[ScheduledTime]]`, `[[CurrentTime]]`, the last two also with
a format: `[[ScheduledTime.2006-01-02]]` in Go's way of writing one, and
`{{$.scheduledTime.strftime('%Y-%m-%d')}}` in C's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from kubeloop.local.pipelines.spec.values import JsonValue

_MACRO = re.compile(
    r"\[\[(?P<name>RunUUID|Index|ScheduledTime|CurrentTime)(?:\.(?P<layout>.*?))?\]\]"
    r"|\{\{\$\.(?P<clock>scheduledTime|currentTime)\.strftime\('(?P<format>.*?)'\)\}\}"
)
_GO_LAYOUT = {
    "2006": "%Y",
    "January": "%B",
    "Jan": "%b",
    "Monday": "%A",
    "Mon": "%a",
    "MST": "%Z",
    "-0700": "%z",
    "01": "%m",
    "02": "%d",
    "15": "%H",
    "03": "%I",
    "04": "%M",
    "05": "%S",
    "06": "%y",
    "PM": "%p",
}
_GO_TOKEN = re.compile("|".join(_GO_LAYOUT))
_DEFAULT_FORMAT = "%Y%m%d%H%M%S"


@dataclass(frozen=True, slots=True, kw_only=True)
class MacroValues:
    """What the macros of one run stand for."""

    run_id: str
    now: float
    scheduled_at: float
    index: int | None = None
    """Counts the runs of a recurring run from 1; other runs have none."""


def fill_macros(value: JsonValue, values: MacroValues) -> JsonValue:
    """Fill in the macros in all texts of a parameter; what is no macro stays as it is."""
    if isinstance(value, str):
        return _MACRO.sub(lambda match: _expand(match, values), value)
    if isinstance(value, list):
        return [fill_macros(item, values) for item in value]
    if isinstance(value, dict):
        return {key: fill_macros(item, values) for key, item in value.items()}
    return value


def _expand(match: re.Match[str], values: MacroValues) -> str:
    name = match["name"] or match["clock"]
    if name == "RunUUID":
        return values.run_id
    if name == "Index":
        return match[0] if values.index is None else str(values.index)
    is_scheduled = name.lower().startswith("scheduled")
    moment = datetime.fromtimestamp(values.scheduled_at if is_scheduled else values.now, UTC)
    layout = match["format"]
    if layout is None:
        layout = _translate(match["layout"]) if match["layout"] else _DEFAULT_FORMAT
    return moment.strftime(layout.replace("%s", str(int(moment.timestamp()))))


def _translate(layout: str) -> str:
    """Go's layout, an example of a time, as a format of strftime."""
    return _GO_TOKEN.sub(lambda match: _GO_LAYOUT[match[0]], layout.replace("%", "%%"))
