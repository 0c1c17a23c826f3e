"""Streams of logs that break off, or that are another life's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from kubernetes.client import (
    V1ContainerState,
    V1ContainerStateRunning,
    V1ContainerStateTerminated,
    V1ContainerStateWaiting,
    V1ContainerStatus,
    V1ObjectMeta,
    V1Pod,
    V1PodStatus,
)
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import ProtocolError

from kubeloop.training.job_logs import JobLogs

Chunks = Sequence[bytes | Exception]
RUNNING = V1ContainerState(running=V1ContainerStateRunning())
WAITING = V1ContainerState(waiting=V1ContainerStateWaiting(reason="CrashLoopBackOff"))


def ended(container_id: str) -> V1ContainerState:
    return V1ContainerState(
        terminated=V1ContainerStateTerminated(exit_code=137, container_id=container_id)
    )


def build_pod(
    container_id: str,
    *,
    state: V1ContainerState = RUNNING,
    last: V1ContainerState | None = None,
) -> V1Pod:
    status = V1ContainerStatus(
        name="pytorch",
        image="",
        image_id="",
        ready=True,
        restart_count=0,
        container_id=container_id,
        state=state,
        last_state=last or V1ContainerState(),
    )
    phase = "Failed" if state.terminated else "Running"
    return V1Pod(
        metadata=V1ObjectMeta(name="p", uid="u"),
        status=V1PodStatus(phase=phase, container_statuses=[status]),
    )


@dataclass
class Api:
    """Gives one pod, and the answers to requests for its log in turn."""

    pod: V1Pod
    answers: list[Chunks | Exception]
    asked: list[str] = field(default_factory=list)

    def read_namespaced_pod(self, name: str, namespace: str) -> V1Pod:
        return self.pod

    def read_namespaced_pod_log(self, name: str, namespace: str, **options: Any) -> Any:
        self.asked.append("previous" if options["previous"] else "present")
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(stream=lambda: play(answer), close=lambda: None)


def play(chunks: Chunks) -> Iterator[bytes]:
    for chunk in chunks:
        if isinstance(chunk, Exception):
            raise chunk
        yield chunk


def read_all(api: Api) -> list[str]:
    """Follow a pod that has ended, with a clock that every look moves on."""
    looks = iter(range(10_000))
    logs = JobLogs(api, namespace="default", clock=lambda: float(next(looks)))
    return [line.text for line in logs.follow_to_end([api.pod], timeout_seconds=1000)]


def test_lines_are_put_together_from_pieces() -> None:
    api = Api(build_pod("a", state=ended("a")), [[b"one\ntw", b"o\nthree, ", b"\xc3\xa4"]])

    assert read_all(api) == ["one", "two", "three, ä"]


def test_a_stream_that_breaks_off_is_read_on_where_it_broke() -> None:
    answers = [
        [b"one\ntwo\nthr", ProtocolError("cut")],
        [b"one\n", ProtocolError("cut")],
        ApiException(status=503),
        [b"one\ntwo\nthree\nfour\n"],
    ]
    api = Api(build_pod("a", state=ended("a")), [*answers])

    assert read_all(api) == ["one", "two", "three", "four"]
    assert api.asked == ["present"] * 4


def test_the_life_before_is_read_first() -> None:
    pod = build_pod("b", state=ended("b"), last=ended("a"))

    api = Api(pod, [[b"one\n"], [b"two\n"]])

    assert read_all(api) == ["one", "two"]
    assert api.asked == ["previous", "present"]


def test_a_program_that_waits_to_be_started_again_has_one_life() -> None:
    api = Api(build_pod("a", state=WAITING, last=ended("a")), [[b"one\n"]])

    assert read_all(api) == ["one"]


def test_the_log_of_another_life_is_not_taken_for_this_ones() -> None:
    present, later = build_pod("a", state=ended("a")), build_pod("b", last=ended("a"))
    api = Api(later, [[b"two\n"], [b"one\n"], [b"two\n"]])
    looks = iter(range(10_000))
    logs = JobLogs(api, namespace="default", clock=lambda: float(next(looks)))

    first = list(logs.follow_to_end([present], timeout_seconds=2))
    rest = list(logs.follow_to_end([later], timeout_seconds=1000))

    assert first == []
    assert [line.text for line in rest if line.life.container_id == "a"] == ["one"]


def test_a_line_that_is_being_written_when_the_stream_ends_comes_whole() -> None:
    api = Api(build_pod("a"), [[b"one\nhal"], [b"one\nhalf\n"]])
    looks = iter(range(10_000))
    logs = JobLogs(api, namespace="default", clock=lambda: float(next(looks)))
    lines = []
    while len(api.asked) < 2:
        lines += [line.text for line in logs.follow([api.pod])]
    api.pod = build_pod("a", state=ended("a"))

    lines += [line.text for line in logs.follow_to_end([api.pod], timeout_seconds=1000)]

    assert lines == ["one", "half"]


def test_a_log_that_must_not_be_read_says_so() -> None:
    refusal = ApiException(status=403, reason="Forbidden")

    assert read_all(Api(build_pod("a", state=ended("a")), [refusal])) == [
        "Failed to read the log of pod default/p: Forbidden"
    ]


def test_the_log_of_a_pod_that_is_gone_is_not_waited_for() -> None:
    assert read_all(Api(build_pod("a", state=ended("a")), [ApiException(status=404)])) == []
