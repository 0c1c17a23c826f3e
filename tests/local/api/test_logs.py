"""Parts of logs, and logs that go on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kubeloop.errors import ApiError
from kubeloop.local.api.logs import LogOptions, PodLogs, choose_container
from kubeloop.local.api.queries import Query
from kubeloop.local.log_times import LogNotes

RUNNING = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}


def build_pod(*, restarts: int = 0, state: dict[str, Any] | None = None) -> dict[str, Any]:
    entry = {"name": "main", "restartCount": restarts, "state": RUNNING if state is None else state}
    return {
        "metadata": {"name": "p", "uid": "u"},
        "spec": {"containers": [{"name": "main"}]},
        "status": {"containerStatuses": [entry]},
    }


def write(folder: Path, text: str, *, restart: int = 0) -> Path:
    path = folder / "u" / "logs" / "main" / f"{restart}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "num_lines", "expected"),
    [
        ("a\nb\nc\n", 2, "b\nc\n"),
        ("a\nb\nc", 2, "b\nc"),
        ("a\nb\n", 9, "a\nb\n"),
        ("a\nb\n", 0, ""),
        ("", 3, ""),
        ("\n\n\n", 2, "\n\n"),
        ("x" * 200_000 + "\nlast\n", 1, "last\n"),
        ("first\n" + "x" * 200_000 + "\n", 1, "x" * 200_000 + "\n"),
        ("a\n" * 100_000, 99_999, "a\n" * 99_999),
    ],
)
def test_tails_are_whole_lines(tmp_path: Path, text: str, num_lines: int, expected: str) -> None:
    write(tmp_path, text)
    read = PodLogs(tmp_path).read(build_pod(), LogOptions(tail_lines=num_lines))
    assert read.decode() == expected


def test_a_limit_cuts_after_so_many_bytes(tmp_path: Path) -> None:
    write(tmp_path, "a\nbcd\n")
    logs = PodLogs(tmp_path)
    assert logs.read(build_pod(), LogOptions(limit_bytes=3)) == b"a\nb"
    assert logs.read(build_pod(), LogOptions(limit_bytes=2, tail_lines=1)) == b"bc"


def test_lines_carry_the_time_at_which_they_were_noted(tmp_path: Path) -> None:
    notes = LogNotes(write(tmp_path, "one\ntw"))
    notes.note(now=10.0)
    write(tmp_path, "one\ntwo\nthree\n")
    notes.note(now=11.5)
    options = LogOptions(timestamps=True)

    read = PodLogs(tmp_path).read(build_pod(), options).decode()

    assert read.splitlines() == [
        "1970-01-01T00:00:10.000000000Z one",
        "1970-01-01T00:00:10.000000000Z two",
        "1970-01-01T00:00:11.500000000Z three",
    ]


@pytest.mark.parametrize(
    ("since", "expected"),
    [(9.0, "one\ntwo\nthree\nfour\n"), (11.0, "two\nthree\nfour\n"), (12.0, "four\n")],
)
def test_only_what_was_written_since_is_given(tmp_path: Path, since: float, expected: str) -> None:
    notes = LogNotes(write(tmp_path, "one\ntw"))
    notes.note(now=10.0)
    write(tmp_path, "one\ntwo\nthree\n")
    notes.note(now=11.5)
    write(tmp_path, "one\ntwo\nthree\nfour\n")

    read = PodLogs(tmp_path).read(build_pod(), LogOptions(since=since)).decode()

    assert read == expected


def test_the_log_before_a_restart_is_the_previous_one(tmp_path: Path) -> None:
    write(tmp_path, "first\n")
    write(tmp_path, "second\n", restart=1)
    logs = PodLogs(tmp_path)
    assert logs.read(build_pod(restarts=1), LogOptions()) == b"second\n"
    assert logs.read(build_pod(restarts=1), LogOptions(previous=True)) == b"first\n"
    with pytest.raises(ApiError, match='previous terminated container "main" in pod "p" not found'):
        logs.read(build_pod(), LogOptions(previous=True))


def test_the_last_life_of_a_container_that_waits_to_be_started_again_is_the_previous_one(
    tmp_path: Path,
) -> None:
    write(tmp_path, "first\n")
    pod = build_pod(state={"waiting": {"reason": "CrashLoopBackOff"}})
    pod["status"]["containerStatuses"][0]["lastState"] = {"terminated": {"exitCode": 1}}
    logs = PodLogs(tmp_path)
    assert logs.read(pod, LogOptions(previous=True)) == b"first\n"
    assert logs.read(pod, LogOptions()) == b"first\n"


def test_a_container_that_has_written_nothing_has_an_empty_log(tmp_path: Path) -> None:
    assert PodLogs(tmp_path).read(build_pod(), LogOptions()) == b""


def test_a_container_that_waits_says_why(tmp_path: Path) -> None:
    pod = build_pod(state={"waiting": {"reason": "PodInitializing"}})
    with pytest.raises(ApiError, match='"main" in pod "p" is waiting to start: PodInitializing'):
        PodLogs(tmp_path).read(pod, LogOptions())


def test_one_of_several_containers_must_be_named() -> None:
    pod = build_pod()
    pod["spec"]["containers"].append({"name": "side"})
    with pytest.raises(
        ApiError, match=r"must be specified for pod p, choose one of: \[main side\]"
    ):
        choose_container(pod, "")
    pod["metadata"]["annotations"] = {"kubectl.kubernetes.io/default-container": "side"}
    assert choose_container(pod, "") == "side"


def test_a_followed_log_ends_with_the_last_words(tmp_path: Path) -> None:
    path = write(tmp_path, "one\n")
    over = False

    async def main() -> bytes:
        nonlocal over
        text = b""
        follower = PodLogs(tmp_path).follow(build_pod(), LogOptions(), is_over=lambda: over)
        async for chunk in follower:
            text += chunk
            if text == b"one\n":
                with path.open("a") as file:
                    file.write("two\n")
                over = True
        return text

    assert asyncio.run(asyncio.wait_for(main(), 10)) == b"one\ntwo\n"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"sinceSeconds": "5", "sinceTime": "2026-01-01T00:00:00Z"}, "at most one of"),
        ({"sinceTime": "yesterday"}, "sinceTime='yesterday' must be a time, RFC 3339"),
    ],
)
def test_times_that_say_nothing_are_refused(query: dict[str, str], message: str) -> None:
    with pytest.raises(ApiError, match=message):
        Query(query).since(now=0.0)


def test_seconds_count_back_from_now() -> None:
    assert Query({"sinceSeconds": "5"}).since(now=12.0) == 7.0
    assert Query({"sinceTime": "1970-01-01T01:00:05+01:00"}).since(now=12.0) == 5.0
    assert Query({}).since(now=12.0) is None
