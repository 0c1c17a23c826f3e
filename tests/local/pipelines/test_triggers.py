"""When a recurring run is due."""

from typing import Any

import pytest

from kubeloop.errors import KubeloopError
from kubeloop.local.pipelines.schedules.triggers import parse_trigger

_BASE = 1_700_000_000  # 2023-11-14T22:13:20Z


def _periodic(**fields: Any) -> dict[str, Any]:
    return {"periodic_schedule": {"interval_second": "60", **fields}}


def _cron(**fields: Any) -> dict[str, Any]:
    return {"cron_schedule": {"cron": "0 * * * * *", **fields}}


def _tick(trigger: dict[str, Any], **options: Any) -> int | None:
    """The next tick, as seconds after `_BASE`."""
    moments = {"last": None, "created": 0, "now": 0, "catches_up": True, **options}
    for name in ("last", "created", "now"):
        moments[name] = None if moments[name] is None else moments[name] + _BASE
    found = parse_trigger(trigger).next_tick(**moments)
    return None if found is None else found - _BASE


@pytest.mark.parametrize("trigger", [_periodic(), _cron()])
def test_the_first_tick_follows_the_creation(trigger: dict[str, Any]) -> None:
    first = _tick(trigger, created=0, now=0)
    assert first is not None
    assert 0 < first <= 60


@pytest.mark.parametrize("trigger", [_periodic(), _cron()])
def test_ticks_follow_each_other_where_missed_ones_are_caught_up_on(
    trigger: dict[str, Any],
) -> None:
    first = _tick(trigger, now=1000)
    assert first is not None
    assert _tick(trigger, last=first, now=1000) == first + 60
    assert _tick(trigger, last=first + 60, now=1000) == first + 120


def test_an_interval_starts_at_its_start_time() -> None:
    trigger = _periodic(start_time="2023-11-14T23:13:20Z")
    assert _tick(trigger, now=0) == 3660
    assert _tick(trigger, last=3660, now=4000) == 3720


def test_a_cron_expression_counts_from_its_start_time_on() -> None:
    assert _tick(_cron(start_time="2023-11-14T23:13:20Z"), now=0) == 3640
    assert _tick(_cron(start_time="2023-11-15T00:13:20+01:00"), now=0) == 3640


def test_a_late_interval_without_catch_up_starts_anew_now() -> None:
    assert _tick(_periodic(), last=0, now=59, catches_up=False) == 60
    assert _tick(_periodic(), last=0, now=100, catches_up=False) == 60
    assert _tick(_periodic(), last=0, now=1000, catches_up=False) == 1000


def test_a_late_cron_expression_without_catch_up_takes_its_latest_time() -> None:
    assert _tick(_cron(), last=40, now=99, catches_up=False) == 100
    assert _tick(_cron(), last=40, now=100, catches_up=False) == 100
    assert _tick(_cron(), last=40, now=1000, catches_up=False) == 1000
    assert _tick(_cron(), last=40, now=1030, catches_up=False) == 1000
    every = {"cron_schedule": {"cron": "@every 1m"}}
    assert _tick(every, last=40, now=1039, catches_up=False) == 1000


def test_nothing_is_due_after_the_end_time() -> None:
    end = "2023-11-14T22:15:20Z"  # 120
    for trigger in (_periodic(end_time=end), _cron(end_time=end)):
        assert _tick(trigger, last=40, now=1000) == 100
        assert _tick(trigger, last=100, now=1000) is None
    assert _tick(_periodic(end_time=end), last=60, now=1000) == 120
    assert _tick(_cron(end_time=end), last=-20, now=1000, catches_up=False) == 100
    assert _tick(_periodic(end_time=end), last=0, now=1000, catches_up=False) == 120


def test_a_trigger_is_read_back_from_what_it_writes() -> None:
    bounds = {"start_time": "2023-11-14T22:15:20.5+00:00", "end_time": "2023-11-15T00:00:00Z"}
    for written in (_periodic(**bounds), _cron(**bounds)):
        trigger = parse_trigger(written)
        assert trigger.start == _BASE + 120
        assert parse_trigger(trigger.to_json()) == trigger


@pytest.mark.parametrize(
    ("trigger", "fault"),
    [
        ({}, "cron_schedule or a periodic_schedule"),
        ({**_periodic(), **_cron()}, "not both"),
        ({"weekly": {}}, "no field 'weekly'"),
        ({"cron_schedule": {}}, "0 fields"),
        (_cron(cron="never"), "1 fields"),
        (_periodic(interval_second=0), "interval_second of a trigger is 0"),
        (_periodic(interval_second="-5"), "interval_second of a trigger is -5"),
        (_periodic(interval_second=1.5), "whole number, not 1.5"),
        (_periodic(interval_second="soon"), "whole number, not 'soon'"),
        (_periodic(start_time="tomorrow"), "'tomorrow' is no time"),
        (_periodic(start_time="2026-01-01T00:00:00"), "with its zone"),
        (
            _cron(start_time="2026-01-02T00:00:00Z", end_time="2026-01-01T00:00:00Z"),
            "is before its start_time",
        ),
    ],
)
def test_triggers_that_are_not_valid_are_refused(trigger: dict[str, Any], fault: str) -> None:
    with pytest.raises(KubeloopError) as refused:
        parse_trigger(trigger)
    assert fault in str(refused.value)
