"""When a recurring run is due, by the rules of KFP's scheduled workflows.

Everything follows from what is stored: the trigger, the time of the last tick that became a run,
and when the recurring run was made. Times are whole seconds since the epoch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kubeloop.local.pipelines.engine.facts import format_time
from kubeloop.local.pipelines.messages import as_message, text, whole_number
from kubeloop.local.pipelines.rpc_errors import invalid
from kubeloop.local.pipelines.schedules.cron import Cron, parse_cron

_BOUNDS = ("start_time", "end_time")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """A cron expression or an interval, and the time within which it counts."""

    expression: str = ""
    cron: Cron | None = None
    interval_seconds: int = 0
    start: int | None = None
    end: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As the API carries it."""
        bounds = {
            name: format_time(value)
            for name, value in zip(_BOUNDS, (self.start, self.end), strict=True)
            if value is not None
        }
        if self.cron is not None:
            return {"cron_schedule": {**bounds, "cron": self.expression}}
        return {"periodic_schedule": {**bounds, "interval_second": str(self.interval_seconds)}}

    def next_tick(
        self, *, last: int | None, created: int, now: int, catches_up: bool
    ) -> int | None:
        """The time of the next run; it is due where that is not after `now`.

        Args:
            last: The tick that became a run last.
            created: When the recurring run was made: nothing before it is due.
            now: The present.
            catches_up: Whether every missed tick becomes a run; else only the latest does.

        Returns:
            None where no tick follows.
        """
        since = last if last is not None else self.start if self.start is not None else created
        if self.cron is not None:
            return self._next_of_cron(self.cron, since, now=now, catches_up=catches_up)
        return self._next_of_interval(since, now=now, catches_up=catches_up)

    def _next_of_cron(self, cron: Cron, since: int, *, now: int, catches_up: bool) -> int | None:
        tick = cron.next_after(max(since, self.start or since))
        if tick is None or (self.end is not None and tick > self.end):
            return None
        if catches_up or tick > now:
            return tick
        return cron.last_until(min(now, self.end or now), since=tick)

    def _next_of_interval(self, since: int, *, now: int, catches_up: bool) -> int | None:
        tick = since + self.interval_seconds
        if self.end is not None and tick > self.end:
            return None
        if catches_up or now < tick + self.interval_seconds:
            return tick
        # As KFP does it: a run that is late starts the interval anew.
        return min(now, self.end) if self.end is not None else now


def parse_trigger(value: Any) -> Trigger:  # any JSON a client sent
    """Read a `Trigger`.

    Raises:
        RpcError: It names neither a cron expression nor an interval, or one that is not valid.
    """
    fields = ("cron_schedule", "periodic_schedule")
    message = as_message(value, kind="Trigger", fields=fields)
    if len(message) != 1:
        raise invalid("A trigger has a cron_schedule or a periodic_schedule, and not both.")
    ((kind, schedule),) = message.items()
    if kind == "cron_schedule":
        written = as_message(schedule, kind="CronSchedule", fields=(*_BOUNDS, "cron"))
        expression = text(written, "cron")
        cron = parse_cron(expression)
        start, end = _read_bounds(written)
        return Trigger(expression=expression, cron=cron, start=start, end=end)
    written = as_message(schedule, kind="PeriodicSchedule", fields=(*_BOUNDS, "interval_second"))
    interval = whole_number(written, "interval_second")
    if interval < 1:
        raise invalid(f"The interval_second of a trigger is {interval}; give 1 or more.")
    start, end = _read_bounds(written)
    return Trigger(interval_seconds=interval, start=start, end=end)


def _read_bounds(message: Mapping[str, Any]) -> tuple[int | None, int | None]:
    start, end = (_read_time(message, name) for name in _BOUNDS)
    if start is not None and end is not None and end < start:
        raise invalid(
            f"The end_time {message['end_time']!r} of the trigger is before its start_time "
            f"{message['start_time']!r}."
        )
    return start, end


def _read_time(message: Mapping[str, Any], name: str) -> int | None:
    written = message.get(name)
    if written is None:
        return None
    try:
        moment = datetime.fromisoformat(str(written).replace("Z", "+00:00"))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise invalid(
            f"{name} {written!r} is no time with its zone, such as 2026-01-31T06:00:00Z (RFC 3339)."
        )
    return math.floor(moment.timestamp())
