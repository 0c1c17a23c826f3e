"""Cron expressions as KFP reads them, which is not as crontab does.

KFP's fields start with seconds, and the sixth, the day of the week, may be left out: what crontab
reads as every five minutes is every five seconds there, and so it is here. The grammar is checked
strictly, since a cluster would refuse what only this machine accepts; which times match is decided
by cronsim. Times are UTC, as in KFP's containers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from kubeloop.errors import InputError

_DESCRIPTORS = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}
_EVERY = "@every "
_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d{1,12}\.?\d{0,9}|\.\d{1,9})(ns|us|µs|ms|s|m|h)")
_RANGE = re.compile(
    r"(?:(?P<star>[*?])|(?P<first>\w{1,3})(?:-(?P<last>\w{1,3}))?)(?:/(?P<step>\d{1,9}))?", re.ASCII
)
_NEXT_STEP = "give SECOND MINUTE HOUR DAY MONTH [WEEKDAY], @daily or the like, or @every 1h30m"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()

    def number(self, text: str) -> int:
        """The number that a digit or word stands for; -1 where it is neither."""
        if text in self.words:
            return self.low + self.words.index(text)
        return int(text) if text.isdecimal() else -1

    @property
    def accepted(self) -> str:
        words = f" or {self.words[0]}-{self.words[-1]}" if self.words else ""
        return f"{self.low}-{self.high}{words}"


_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_FIELDS = (
    _Field(name="second", low=0, high=59),
    _Field(name="minute", low=0, high=59),
    _Field(name="hour", low=0, high=23),
    _Field(name="day of the month", low=1, high=31),
    _Field(name="month", low=1, high=12, words=_MONTHS),
    _Field(
        name="day of the week",
        low=0,
        high=6,
        words=("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """A checked expression: six fields, or an interval."""

    fields: str = ""
    every_seconds: int = 0

    def next_after(self, seconds: int) -> int | None:
        """The first time after `seconds`; None where there is none in fifty years."""
        if self.every_seconds:
            return seconds + self.every_seconds
        return self._first(seconds, is_reverse=False)

    def last_until(self, seconds: int, *, since: int) -> int:
        """The last time not after `seconds`; `since` is one that matches."""
        if self.every_seconds:
            return since + (seconds - since) // self.every_seconds * self.every_seconds
        return self._first(seconds + 1, is_reverse=True) or since

    def _first(self, seconds: int, *, is_reverse: bool) -> int | None:
        moments = CronSim(self.fields, datetime.fromtimestamp(seconds, UTC), reverse=is_reverse)
        try:
            found = next(moments, None)
        except OverflowError:  # beyond the year 9999
            return None
        return int(found.timestamp()) if found is not None else None


def parse_cron(expression: str) -> Cron:
    """Read a cron expression.

    Raises:
        InputError: KFP does not accept it, or it matches no time.
    """
    text = expression.strip()
    if text.startswith(_EVERY):
        return Cron(every_seconds=_parse_duration(text.removeprefix(_EVERY).strip(), expression))
    text = _DESCRIPTORS.get(text, text)
    parts = text.upper().split()
    if len(parts) == len(_FIELDS) - 1:
        parts.append("*")
    if len(parts) != len(_FIELDS):
        raise _refuse(expression, f"it has {len(parts)} fields")
    fields = " ".join(
        ",".join(_rewrite(item, field, expression) for item in part.split(","))
        for part, field in zip(parts, _FIELDS, strict=True)
    )
    try:
        CronSim(fields, datetime.fromtimestamp(0, UTC))
    except CronSimError as error:
        raise _refuse(expression, "no day matches it") from error
    return Cron(fields=fields)


def _rewrite(item: str, field: _Field, expression: str) -> str:
    """Check one range of a field, and write it so that cronsim reads it as KFP does."""
    match = _RANGE.fullmatch(item)
    step = match["step"] if match else None
    if match is None or (step is not None and int(step) == 0):
        raise _refuse(expression, f"its {field.name} {item!r} is not understood")
    by = f"/{step}" if step else ""
    if match["star"]:
        return f"*{by}"
    first = field.number(match["first"])
    last = field.number(match["last"]) if match["last"] else field.high if step else first
    if not field.low <= first <= last <= field.high:
        raise _refuse(expression, f"its {field.name} {item!r} is not within {field.accepted}")
    return f"{first}-{last}{by}" if last > first else str(first)


def _parse_duration(text: str, expression: str) -> int:
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise _refuse(expression, f"{text!r} is no duration such as 90s or 1h30m")
    return max(1, int(sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)))


def _refuse(expression: str, fault: str) -> InputError:
    return InputError(f"The cron expression {expression!r} is not valid: {fault}; {_NEXT_STEP}.")
