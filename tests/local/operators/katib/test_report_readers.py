"""Reports read from files while programs write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubeloop.errors import InputError
from kubeloop.local.operators.katib.metrics import NO_TIME, JsonParser, TextParser
from kubeloop.local.operators.katib.report_readers import EventsReader, LineReader
from kubeloop.testing.tensorflow_events import PLAIN_EVENTS, TENSOR_EVENTS


def read_lines(reader: LineReader | EventsReader, *, is_final: bool = False) -> list[str]:
    return [log.value for log in reader.read(is_final=is_final)]


def follow_text(path: Path) -> LineReader:
    return LineReader(path, TextParser(metrics=["accuracy"]))


def test_lines_are_read_once_and_when_they_are_complete(tmp_path: Path) -> None:
    path = tmp_path / "log"
    reader = follow_text(path)
    assert read_lines(reader) == []

    with path.open("a") as file:
        file.write("accuracy=0.1\naccur")
        file.flush()
        assert read_lines(reader) == ["0.1"]
        file.write("acy=0.2")
        file.flush()
        assert read_lines(reader) == []
        assert read_lines(reader, is_final=True) == ["0.2"]
        assert read_lines(reader, is_final=True) == []
    reader.close()


def test_a_log_that_is_deleted_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("accuracy=0.1\n")
    reader = follow_text(path)
    assert read_lines(reader) == ["0.1"]

    with path.open("a") as file:
        file.write("accuracy=0.2\n")
    path.unlink()

    assert read_lines(reader, is_final=True) == ["0.2"]
    reader.close()


def test_bytes_that_are_no_text_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\xff\x00\xfe" * 1000 + b"\naccuracy=0.1 \xff\n")
    reader = follow_text(path)

    assert read_lines(reader) == ["0.1"]
    reader.close()


def test_a_line_without_end_is_not_kept_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * (3 << 20) + b"\naccuracy=0.1\n")
    reader = follow_text(path)

    assert read_lines(reader) == ["0.1"]
    assert reader.pending_bytes() == 0
    reader.close()


def test_an_expression_that_explodes_elsewhere_is_matched_in_linear_time(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("accuracy " + "a" * 100_000 + "!\naccuracy=1\n")
    filters = [r"(accuracy) (a+)+$", r"(accuracy)=(\d)"]
    reader = LineReader(path, TextParser(metrics=["accuracy"], filters=filters))

    assert read_lines(reader) == ["1"]
    reader.close()


@pytest.mark.parametrize(
    ("line", "time_stamp", "value"),
    [
        ('{"accuracy": "0.5", "timestamp": "2024-05-01T10:00:00Z"}', "2024-05-01T10:00:00Z", "0.5"),
        ('{"accuracy": "0.5", "timestamp": 1714557600.25}', "2024-05-01T10:00:00.25Z", "0.5"),
        ('{"accuracy": "0.5", "timestamp": 1714557600}', "2024-05-01T10:00:00Z", "0.5"),
        ('{"accuracy": "0.5", "timestamp": "yesterday"}', NO_TIME, "0.5"),
        ('{"accuracy": "0.5", "timestamp": 1e300}', NO_TIME, "0.5"),
        ('{"accuracy": "0.5"}', NO_TIME, "0.5"),
    ],
)
def test_json_reports_have_texts_and_times(line: str, time_stamp: str, value: str) -> None:
    (log,) = JsonParser(metrics=["accuracy"]).parse(line)

    assert (log.time_stamp, log.value) == (time_stamp, value)


@pytest.mark.parametrize("line", ["", '{"accuracy": 0.5}', '{"loss": "1"}'])
def test_json_without_a_text_is_no_report(line: str) -> None:
    assert list(JsonParser(metrics=["accuracy"]).parse(line)) == []


@pytest.mark.parametrize("line", ["accuracy=0.5", "[]", "{"])
def test_a_line_that_is_no_json_object_is_refused(line: str) -> None:
    with pytest.raises(InputError, match="failed to parse the json object"):
        list(JsonParser(metrics=["accuracy"]).parse(line))


@pytest.mark.parametrize(
    ("events", "values"),
    [
        (PLAIN_EVENTS, ["0.5", "0.8999999761581421", "0.699999988079071"]),
        (TENSOR_EVENTS, ["0.5", "0.9"]),
    ],
)
def test_event_files_are_read_as_they_grow(
    events: bytes, values: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "events.out.tfevents"
    reader = EventsReader(tmp_path, metrics=["accuracy"])
    found = []

    for end in range(0, len(events) + 1, 7):
        path.write_bytes(events[:end])
        found += read_lines(reader)
    path.write_bytes(events)

    assert found + read_lines(reader, is_final=True) == values


def test_events_carry_their_time(tmp_path: Path) -> None:
    (tmp_path / "events").write_bytes(TENSOR_EVENTS)

    logs = list(EventsReader(tmp_path, metrics=["accuracy"]).read(is_final=True))

    assert [log.time_stamp for log in logs] == [
        "2024-05-01T10:00:00.25Z",
        "2024-05-01T10:00:01.25Z",
    ]


def test_a_metric_with_a_folder_is_that_of_the_folder(tmp_path: Path) -> None:
    for name, events in (("train", TENSOR_EVENTS), ("test", PLAIN_EVENTS)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "events").write_bytes(events)

    logs = EventsReader(tmp_path, metrics=["train/accuracy", "test/loss"]).read(is_final=True)

    assert [(log.name, log.value) for log in logs] == [
        ("test/loss", "nan"),
        ("train/accuracy", "0.5"),
        ("train/accuracy", "0.9"),
    ]


@pytest.mark.parametrize(("position", "values"), [(3, []), (100, []), (200, ["0.5"])])
def test_a_damaged_event_file_is_read_up_to_the_damage(
    position: int, values: list[str], tmp_path: Path
) -> None:
    damaged = bytearray(TENSOR_EVENTS)
    damaged[position] ^= 1
    (tmp_path / "events").write_bytes(damaged)
    reader = EventsReader(tmp_path, metrics=["accuracy"])

    assert read_lines(reader) == values
    assert read_lines(reader) == []


def test_files_that_hold_no_events_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("accuracy=3\n" * 9)
    (tmp_path / "events").write_bytes(TENSOR_EVENTS)

    assert read_lines(EventsReader(tmp_path, metrics=["accuracy"])) == ["0.5", "0.9"]
