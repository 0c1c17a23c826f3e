from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from kubeloop.errors import InputError
from kubeloop.pipelines.schedules import ScheduleConfig, find_schedule, parse_interval

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("1h30m", 5400), ("1d", 86400), ("1h1s", 3601)]
)
def test_intervals_are_read(text: str, seconds: int) -> None:
    assert parse_interval(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "1 h", "h", "-1h", "0s", "1h30", "1w"])
def test_what_is_no_interval_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no interval"):
        parse_interval(text)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({}, "cron expression or an interval"),
        ({"cron": "@daily", "every_seconds": 5}, "not both"),
        ({"every_seconds": -5}, "not -5"),
        ({"cron": "@daily", "max_concurrency": 11}, "1 to 10, not 11"),
        ({"cron": "@daily", "start": datetime(2026, 1, 1)}, "no time zone"),  # noqa: DTZ001
        ({"cron": "@daily", "start": NOON, "end": NOON - timedelta(1)}, "is before the start"),
    ],
)
def test_schedules_that_cannot_be_are_refused(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        ScheduleConfig(**options)


class Client:
    """A KFP client that knows some recurring runs, a page of one at a time."""

    def __init__(self, *known: tuple[str, str]) -> None:
        self._known = known

    def list_recurring_runs(self, *, page_token: str, **_: Any) -> Any:
        number = int(page_token or 0)
        shown = [
            SimpleNamespace(
                recurring_run_id=identifier,
                display_name=name,
                status="ENABLED",
                trigger=None,
                max_concurrency="1",
                no_catchup=None,
                created_at=NOON,
                runtime_config=None,
                error=None,
            )
            for identifier, name in self._known[number : number + 1]
        ]
        token = str(number + 1) if number + 1 < len(self._known) else None
        return SimpleNamespace(recurring_runs=shown, next_page_token=token)


def test_a_schedule_is_found_by_its_name_its_id_or_the_start_of_it() -> None:
    client = Client(("1a", "nightly"), ("2b", "hourly"))
    assert find_schedule(client, "nightly").schedule_id == "1a"
    assert find_schedule(client, "2b").schedule_id == "2b"
    assert find_schedule(client, "2").name == "hourly"


def test_a_name_that_is_unknown_or_shared_is_refused_with_those_there_are() -> None:
    client = Client(("1a", "nightly"), ("1b", "nightly"))
    with pytest.raises(InputError, match=r"Several .* nightly \(1a\), nightly \(1b\)"):
        find_schedule(client, "nightly")
    with pytest.raises(InputError, match=r"No schedule 'weekly'; there are: nightly \(1a\)"):
        find_schedule(client, "weekly")
