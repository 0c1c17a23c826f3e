"""The condition rules, one test a rule, on lists as clients read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from kubeloop.local.client import Manifest
from kubeloop.local.operators.conditions import (
    find_condition,
    format_time,
    is_condition_true,
    parse_time,
    write_condition,
    write_job_condition,
)

NOON = datetime(2026, 3, 1, 12, 0, 0, 654321, tzinfo=UTC)
LATER = NOON + timedelta(seconds=90)


def write(
    conditions: list[Manifest],
    condition_type: str,
    *,
    reason: str = "Because",
    message: str = "It is so.",
    status: str = "True",
    now: datetime = NOON,
) -> list[Manifest]:
    return write_job_condition(
        conditions, condition_type, reason=reason, message=message, status=status, now=now
    )


def types(conditions: list[Manifest]) -> list[tuple[str, str]]:
    return [(entry["type"], entry["status"]) for entry in conditions]


def test_time_is_written_in_whole_utc_seconds_and_read_back() -> None:
    text = format_time(NOON)

    assert text == "2026-03-01T12:00:00Z"
    assert parse_time(text) == NOON.replace(microsecond=0)


def test_first_write_stamps_both_times() -> None:
    assert write([], "Created", reason="PyTorchJobCreated", message="made") == [
        {
            "type": "Created",
            "status": "True",
            "reason": "PyTorchJobCreated",
            "message": "made",
            "lastUpdateTime": "2026-03-01T12:00:00Z",
            "lastTransitionTime": "2026-03-01T12:00:00Z",
        }
    ]


def test_same_status_and_reason_change_nothing_even_with_another_message() -> None:
    before = write([], "Running", message="one")

    assert write(before, "Running", message="two", now=LATER) == before


def test_another_reason_keeps_the_transition_time_and_renews_the_update_time() -> None:
    after = write(write([], "Running"), "Running", reason="Other", now=LATER)

    assert after[0]["lastTransitionTime"] == "2026-03-01T12:00:00Z"
    assert after[0]["lastUpdateTime"] == "2026-03-01T12:01:30Z"


def test_another_status_renews_the_transition_time() -> None:
    after = write(write([], "Suspended"), "Suspended", status="False", now=LATER)

    assert after[0]["lastTransitionTime"] == "2026-03-01T12:01:30Z"


def test_a_written_entry_moves_to_the_end() -> None:
    before = write(write([], "Created"), "Running")

    after = write(before, "Created", reason="Again")

    assert types(after) == [("Running", "True"), ("Created", "True")]


def test_nothing_is_written_once_failed() -> None:
    failed = write(write([], "Created"), "Failed")

    assert write(failed, "Running") == failed
    assert write(failed, "Failed", reason="Another") == failed


def test_restarting_and_running_exclude_each_other() -> None:
    restarting = write(write(write([], "Created"), "Running"), "Restarting")
    running = write(restarting, "Running")

    assert types(restarting) == [("Created", "True"), ("Restarting", "True")]
    assert types(running) == [("Created", "True"), ("Running", "True")]


def test_success_turns_running_false_in_place_with_its_times_untouched() -> None:
    running = write(write([], "Created"), "Running")

    done = write(running, "Succeeded", now=LATER)

    assert types(done) == [("Created", "True"), ("Running", "False"), ("Succeeded", "True")]
    assert done[1] == {**running[1], "status": "False"}


def test_shared_rules_leave_other_types_alone() -> None:
    running = write_condition([], "Running", reason="R", message="m", now=NOON)

    done = write_condition(running, "Succeeded", reason="S", message="m", now=LATER)

    assert done[0] == running[0]


def test_the_given_list_is_not_changed() -> None:
    given = write([], "Running")
    before = [dict(entry) for entry in given]

    write(given, "Failed")

    assert given == before


def test_condition_is_true_only_when_its_entry_says_so() -> None:
    conditions = write(write([], "Created"), "Suspended", status="False")

    assert is_condition_true(conditions, "Created")
    assert not is_condition_true(conditions, "Suspended")
    assert not is_condition_true(conditions, "Failed")
    assert find_condition(conditions, "Failed") is None
