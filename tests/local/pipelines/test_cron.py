"""Cron expressions mean here what they mean to KFP."""

from datetime import UTC, datetime
from itertools import pairwise

import pytest

from kubeloop.errors import InputError
from kubeloop.local.pipelines.schedules.cron import parse_cron

_START = "2026-03-04T05:06:07"  # a Wednesday


def _seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def _next(expression: str, *, after: str = _START) -> str:
    found = parse_cron(expression).next_after(_seconds(after))
    assert found is not None
    return datetime.fromtimestamp(found, UTC).isoformat().removesuffix("+00:00")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 0 9 ? * 2-6", "2026-03-04T09:00:00"),
        ("0 0 9 ? * MON", "2026-03-09T09:00:00"),
        ("*/10 * * * * *", "2026-03-04T05:06:10"),
        ("7 6 5 4 mar *", "2027-03-04T05:06:07"),
        ("0 0/10 * * * ?", "2026-03-04T05:10:00"),
        ("0 50/7 * * * *", "2026-03-04T05:50:00"),
        ("0 0 0 1,15 * *", "2026-03-15T00:00:00"),
        ("0 0 0 13 * FRI", "2026-03-06T00:00:00"),  # either day, where both are given
        ("0 0 0 */2 * MON", "2026-03-09T00:00:00"),  # both days, where one is a star
        ("0 0 0 ? * 5/2", "2026-03-06T00:00:00"),
        ("0 0 0 29 2 *", "2028-02-29T00:00:00"),
        ("@hourly", "2026-03-04T06:00:00"),
        ("@daily", "2026-03-05T00:00:00"),
        ("@midnight", "2026-03-05T00:00:00"),
        ("@weekly", "2026-03-08T00:00:00"),
        ("@monthly", "2026-04-01T00:00:00"),
        ("@yearly", "2027-01-01T00:00:00"),
        ("@annually", "2027-01-01T00:00:00"),
        ("@every 1h30m", "2026-03-04T06:36:07"),
        ("@every 1.5s", "2026-03-04T05:06:08"),
        ("@every 10ms", "2026-03-04T05:06:08"),
    ],
)
def test_the_next_time_is_the_one_that_kfp_would_take(expression: str, expected: str) -> None:
    assert _next(expression) == expected


def test_five_fields_begin_with_the_second_as_in_kfp() -> None:
    assert _next("*/5 * * * *") == "2026-03-04T05:06:10"
    assert _next("0 30 4 * *") == "2026-03-05T04:30:00"


def test_a_step_from_a_weekday_ends_with_saturday() -> None:
    cron = parse_cron("0 0 0 ? * 1/2")
    times = [_seconds(_START)]
    for _ in range(6):
        following = cron.next_after(times[-1])
        assert following is not None
        times.append(following)
    days = [datetime.fromtimestamp(time, UTC).strftime("%a") for time in times[1:]]
    assert days == ["Fri", "Mon", "Wed", "Fri", "Mon", "Wed"]


@pytest.mark.parametrize("expression", ["0 0 9 ? * 2-6", "@every 7s", "*/7 3 * * * *"])
def test_the_last_time_is_one_of_the_next_times(expression: str) -> None:
    cron = parse_cron(expression)
    times = [_seconds(_START)]
    for _ in range(8):
        following = cron.next_after(times[-1])
        assert following is not None
        times.append(following)
    for earlier, later in pairwise(times[1:]):
        assert cron.last_until(later, since=times[1]) == later
        assert cron.last_until(later - 1, since=times[1]) == earlier


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("", "0 fields"),
        ("* * * *", "4 fields"),
        ("* * * * * * *", "7 fields"),
        ("60 * * * * *", "second '60'"),
        ("* 60 * * * *", "minute '60'"),
        ("* * 24 * * *", "hour '24'"),
        ("* * * 0 * *", "day of the month '0'"),
        ("* * * * 13 *", "month '13'"),
        ("* * * * * 7", "day of the week '7'"),
        ("* * * * FEBR *", "month 'FEBR'"),
        ("* 5-3 * * * *", "minute '5-3'"),
        ("*/0 * * * * *", "second '*/0'"),
        ("1,,2 * * * * *", "second ''"),
        ("* * * L * *", "day of the month 'L'"),
        ("* * * * * MON#1", "day of the week 'MON#1'"),
        ("0 0 0 30 2 *", "no day"),
        ("@reboot", "1 fields"),
        ("@every", "1 fields"),
        ("@every soon", "'soon' is no duration"),
        ("@every -5s", "'-5s' is no duration"),
    ],
)
def test_what_kfp_refuses_is_refused_with_the_fault(expression: str, fault: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_cron(expression)
    assert fault in str(refused.value)
    assert "give SECOND MINUTE HOUR" in str(refused.value)


def test_times_end_with_the_calendar() -> None:
    assert parse_cron("0 0 0 1 1 *").next_after(_seconds("9999-12-31T00:00:00")) is None
