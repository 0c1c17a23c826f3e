"""Metrics found in logs, what is observed of them, and the store that keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from kubeloop.errors import PermanentError
from kubeloop.local.operators.katib.metrics import (
    NO_TIME,
    MetricLog,
    TextParser,
    find_time,
    observe,
    parse_number,
    require_objective,
)
from kubeloop.local.operators.katib.observations import ObservationStore


def parse_text(
    text: str, *, metrics: Sequence[str], filters: Sequence[str] = ()
) -> tuple[MetricLog, ...]:
    parser = TextParser(metrics=metrics, filters=filters)
    logs = [log for line in text.split("\n") for log in parser.parse(line)]
    return require_objective(logs, objective=metrics[0])


def values(text: str, *metrics: str, filters: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    logs = parse_text(text, metrics=metrics or ("accuracy",), filters=filters)
    return [(log.name, log.value) for log in logs]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("accuracy=0.97", "0.97"),
        ("accuracy = 0.97", "0.97"),
        ("epoch 3: accuracy=0.97, loss=0.2", "0.97"),
        ("accuracy=-1", "-1"),
        ("accuracy=+1e-3", "+1e-3"),
        ("accuracy=.5", ".5"),
        ("accuracy=1E5", "1E5"),
        ("{accuracy=0.5}", "0.5"),
        ("accuracy=0.5\r", "0.5"),
    ],
)
def test_the_default_expression_reads_numbers(line: str, value: str) -> None:
    assert values(line) == [("accuracy", value)]


@pytest.mark.parametrize(
    "line", ["", "accuracy: 0.97", "val_accuracy=0.9", "accuracy=NaN", "accuracy=inf", "accuracy"]
)
def test_what_is_no_report_makes_the_objective_unavailable(line: str) -> None:
    assert parse_text(line, metrics=["accuracy"]) == (
        MetricLog(time_stamp=NO_TIME, name="accuracy", value="unavailable"),
    )


def test_reports_keep_the_order_of_the_log() -> None:
    text = "loss=2 accuracy=0.1\nnothing here\nloss=1 accuracy=0.2"

    assert values(text, "accuracy", "loss") == [
        ("loss", "2"),
        ("accuracy", "0.1"),
        ("loss", "1"),
        ("accuracy", "0.2"),
    ]


def test_without_the_objective_no_other_metric_is_kept() -> None:
    assert values("loss=2", "accuracy", "loss") == [("accuracy", "unavailable")]


def test_names_with_bars_and_dashes_are_names() -> None:
    assert values("val|top-1=0.5", "val|top-1") == [("val|top-1", "0.5")]


def test_filters_replace_the_default() -> None:
    filters = (r"(\w+) is ([0-9.]+)", r"\[(\w+)\] ([0-9.]+)")

    assert values("accuracy is 0.5\naccuracy=0.6\n[accuracy] 0.7", filters=filters) == [
        ("accuracy", "0.5"),
        ("accuracy", "0.7"),
    ]


def test_a_filter_may_capture_text() -> None:
    assert values("accuracy=high", filters=(r"(\w+)=(\w+)",)) == [("accuracy", "high")]


@pytest.mark.parametrize(
    ("line", "time_stamp"),
    [
        ("2024-05-01T10:00:00Z accuracy=1", "2024-05-01T10:00:00Z"),
        ("2024-05-01T10:00:00.123456789+02:00 accuracy=1", "2024-05-01T10:00:00.123456789+02:00"),
        ("2024-05-01 accuracy=1", NO_TIME),
        ("2024-13-01T10:00:00Z accuracy=1", NO_TIME),
        ("accuracy=1", NO_TIME),
    ],
)
def test_the_first_word_is_the_time_when_it_is_one(line: str, time_stamp: str) -> None:
    assert parse_text(line, metrics=["accuracy"])[0].time_stamp == time_stamp


def log(value: str, *, at: str = NO_TIME, name: str = "accuracy") -> MetricLog:
    return MetricLog(time_stamp=at, name=name, value=value)


def test_least_greatest_and_newest_are_observed() -> None:
    logs = [log("0.5"), log("0.9"), log("0.10"), log("0.7")]

    assert observe(logs, metrics=["accuracy"]) == {
        "metrics": [{"name": "accuracy", "min": "0.10", "max": "0.9", "latest": "0.7"}]
    }


def test_the_newest_is_so_by_time_not_by_order() -> None:
    logs = [
        log("1", at="2024-05-01T10:00:00+00:00"),
        log("2", at="2024-05-01T11:00:00+02:00"),  # an hour earlier
        log("3", at="2024-05-01T09:59:59Z"),
    ]

    assert observe(logs, metrics=["accuracy"])["metrics"][0]["latest"] == "1"


def test_a_text_is_the_newest_but_no_extreme() -> None:
    metric = observe([log("0.5"), log("high")], metrics=["accuracy"])["metrics"][0]

    assert (metric["min"], metric["max"], metric["latest"]) == ("0.5", "0.5", "high")


def test_a_metric_without_reports_is_unavailable() -> None:
    metric = observe([log("1")], metrics=["accuracy", "loss"])["metrics"][1]

    assert metric == {
        "name": "loss",
        "min": "unavailable",
        "max": "unavailable",
        "latest": "unavailable",
    }


def test_nan_is_no_number() -> None:
    assert parse_number("nan") is None
    assert parse_number("1e3") == 1000.0


def test_time_is_read_to_the_microsecond() -> None:
    moment = find_time("2024-05-01T10:00:00.123456789Z")

    assert moment is not None
    assert moment.microsecond == 123456


def test_the_store_gives_reports_by_time_and_then_as_they_came() -> None:
    with ObservationStore() as store:
        late, early = "2024-05-01T11:00:00Z", "2024-05-01T10:00:00.5Z"
        store.report("t", [log("1", at=late), log("2", at=early), log("3", at=early)])

        assert [(entry.time_stamp, entry.value) for entry in store.read("t")] == [
            (early, "2"),
            (early, "3"),
            (late, "1"),
        ]


def test_the_store_selects_by_metric_and_time() -> None:
    with ObservationStore() as store:
        hours = [f"2024-05-01T1{hour}:00:00Z" for hour in range(4)]
        store.report("t", [log(str(hour), at=at) for hour, at in enumerate(hours)])
        store.report("t", [log("9", at=hours[1], name="loss")])

        selected = store.read("t", metric_name="accuracy", start_time=hours[1], end_time=hours[2])
        assert [entry.value for entry in selected] == ["1", "2"]


def test_reports_without_a_time_stamp_are_left_out() -> None:
    with ObservationStore() as store:
        store.report("t", [log("1", at=""), log("2", at="yesterday"), log("3")])

        assert [entry.value for entry in store.read("t")] == ["3"]
        assert store.read("t")[0].time_stamp == NO_TIME


def test_replacing_leaves_nothing_of_before_and_nothing_of_others() -> None:
    with ObservationStore() as store:
        store.report("t", [log("1")])
        store.report("u", [log("2")])

        store.replace("t", [log("3"), log("4")])

        assert [entry.value for entry in store.read("t")] == ["3", "4"]
        assert [entry.value for entry in store.read("u")] == ["2"]
        store.delete("t")
        assert store.read("t") == ()


def test_the_store_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state" / "metrics.db"
    with ObservationStore(path) as store:
        store.report("t", [log("1")])

    with ObservationStore(path) as store:
        assert [entry.value for entry in store.read("t")] == ["1"]
    assert path.stat().st_mode & 0o077 == 0


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.db"
    path.write_text("not a database, whatever its name says" * 100)

    with pytest.raises(PermanentError, match=r"Failed to open the metrics' database .*metrics\.db"):
        ObservationStore(path)
