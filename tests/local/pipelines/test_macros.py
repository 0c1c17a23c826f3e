"""Macros in parameters."""

import pytest

from kubeloop.local.pipelines.schedules.macros import MacroValues, fill_macros

_VALUES = MacroValues(run_id="r-1", now=1_700_000_100, scheduled_at=1_700_000_000, index=7)


@pytest.mark.parametrize(
    ("written", "filled"),
    [
        ("[[ScheduledTime]]", "20231114221320"),
        ("[[CurrentTime]]", "20231114221500"),
        ("[[Index]] of [[RunUUID]]", "7 of r-1"),
        ("data/[[ScheduledTime.2006-01-02]]/x", "data/2023-11-14/x"),
        ("[[CurrentTime.Mon Jan 02 15:04:05 MST 2006]]", "Tue Nov 14 22:15:00 UTC 2023"),
        ("{{$.scheduledTime.strftime('%Y/%m/%d')}}", "2023/11/14"),
        ("{{$.currentTime.strftime('%s')}}", "1700000100"),
        ("[[Other]] {{$.inputs.parameters['x']}}", "[[Other]] {{$.inputs.parameters['x']}}"),
    ],
)
def test_macros_are_filled_in_and_other_text_stays(written: str, filled: str) -> None:
    assert fill_macros(written, _VALUES) == filled


def test_macros_are_filled_in_at_any_depth() -> None:
    value = {"list": ["[[Index]]", 3, None], "flag": True}
    assert fill_macros(value, _VALUES) == {"list": ["7", 3, None], "flag": True}


def test_a_run_of_its_own_has_no_index() -> None:
    values = MacroValues(run_id="r", now=0, scheduled_at=0)
    assert fill_macros("[[Index]]", values) == "[[Index]]"
