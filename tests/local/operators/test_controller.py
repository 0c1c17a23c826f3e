"""The controller runtime: who is looked at, when, and by how many at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest

from kubeloop.errors import ConflictError, ExpiredError, PermanentError, TransientError
from kubeloop.local.api.resources import CONFIG_MAPS, PODS, SECRETS, Resource
from kubeloop.local.client import Client, Manifest, WatchEvent
from kubeloop.local.operators.controller import (
    Controller,
    Reconciler,
    Request,
    Result,
    build_owner_reference,
    controller_owner,
)
from kubeloop.testing.api import memory_api
from kubeloop.testing.waiting import wait_until


class Recorder(Reconciler):
    """Notes every look, and does in it what the test says."""

    resource: ClassVar[Resource] = CONFIG_MAPS
    owns: ClassVar[tuple[Resource, ...]] = (SECRETS,)

    def __init__(self, act: Callable[[Request, int], Awaitable[Result | None]]) -> None:
        self._act = act
        self.looks: list[str] = []

    async def reconcile(self, request: Request) -> Result:
        self.looks.append(request.name)
        return await self._act(request, self.looks.count(request.name)) or Result()


async def do_nothing(request: Request, look: int) -> None:
    return None


@asynccontextmanager
async def running(client: Client, reconciler: Reconciler) -> AsyncIterator[Controller]:
    controller = Controller(client, reconciler)
    task = asyncio.create_task(controller.run())
    try:
        yield controller
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def build(kind: str, name: str, **metadata: object) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "default", **metadata},
    }


def request(name: str) -> Request:
    return Request(namespace="default", name=name)


def test_what_exists_and_what_comes_is_looked_at() -> None:
    async def scenario() -> None:
        recorder = Recorder(do_nothing)
        async with memory_api() as client:
            await client.create(build("ConfigMap", "old"))
            async with running(client, recorder):
                await wait_until(lambda: recorder.looks == ["old"])
                await client.create(build("ConfigMap", "new"))
                await wait_until(lambda: recorder.looks == ["old", "new"])
                await client.delete(CONFIG_MAPS, "old", namespace="default")
                await wait_until(lambda: recorder.looks == ["old", "new", "old"])

    asyncio.run(scenario())


def test_an_owned_objects_change_wakes_its_controller_owner_only() -> None:
    async def scenario() -> None:
        recorder = Recorder(do_nothing)
        async with memory_api() as client:
            owner = await client.create(build("ConfigMap", "owner"))
            async with running(client, recorder):
                await wait_until(lambda: recorder.looks == ["owner"])
                reference = build_owner_reference(owner)
                await client.create(
                    build("Secret", "loose", ownerReferences=[{**reference, "controller": False}])
                )
                await client.create(build("Secret", "free"))
                await client.create(build("Secret", "owned", ownerReferences=[reference]))
                await wait_until(lambda: len(recorder.looks) > 1)

                assert recorder.looks == ["owner", "owner"]

    asyncio.run(scenario())


def test_one_key_is_looked_at_by_one_worker_and_once_more_when_it_changed_meanwhile() -> None:
    async def scenario() -> None:
        at_work, most_at_work = 0, 0
        gate = asyncio.Event()

        async def work(asked: Request, look: int) -> None:
            nonlocal at_work, most_at_work
            at_work += 1
            most_at_work = max(most_at_work, at_work)
            await gate.wait()
            at_work -= 1

        recorder = Recorder(work)
        async with memory_api() as client, running(client, recorder) as controller:
            controller.enqueue(request("a"))
            await wait_until(lambda: at_work == 1)
            for _ in range(5):
                controller.enqueue(request("a"))
            gate.set()
            await wait_until(lambda: recorder.looks == ["a", "a"] and at_work == 0)

            controller.enqueue(request("b"))
            await wait_until(lambda: "b" in recorder.looks)
            assert recorder.looks == ["a", "a", "b"]
            assert most_at_work == 1

    asyncio.run(scenario())


def test_different_keys_are_looked_at_in_parallel() -> None:
    async def scenario() -> None:
        gate = asyncio.Barrier(3)

        async def meet(asked: Request, look: int) -> None:
            await gate.wait()

        recorder = Recorder(meet)
        async with memory_api() as client, running(client, recorder) as controller:
            for name in "abc":
                controller.enqueue(request(name))
            await wait_until(lambda: sorted(recorder.looks) == ["a", "b", "c"])
            await wait_until(lambda: gate.n_waiting == 0)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "error", [TransientError("later"), PermanentError("never"), ValueError("a bug")]
)
def test_an_error_is_tried_again_and_stops_nobody_else(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async def fail_twice(asked: Request, look: int) -> None:
            if asked.name == "bad" and look < 3:
                raise error

        recorder = Recorder(fail_twice)
        async with memory_api() as client, running(client, recorder) as controller:
            controller.enqueue(request("bad"))
            controller.enqueue(request("good"))
            await wait_until(lambda: recorder.looks.count("bad") == 3)

            assert recorder.looks.count("good") == 1

    asyncio.run(scenario())

    attempts = [record.__dict__["attempt"] for record in caplog.records]
    assert attempts == [1, 2]


def test_the_delay_after_errors_grows_and_success_resets_it() -> None:
    async def scenario() -> list[float]:
        times: list[float] = []

        async def fail(asked: Request, look: int) -> None:
            times.append(asyncio.get_running_loop().time())
            if look not in (3, 4):
                raise TransientError("later")

        recorder = Recorder(fail)
        async with memory_api() as client, running(client, recorder) as controller:
            controller.enqueue(request("a"))
            await wait_until(lambda: len(times) == 3)
            controller.enqueue(request("a"))
            await wait_until(lambda: len(times) == 4)
            controller.enqueue(request("a"))
            await wait_until(lambda: len(times) == 6)
        return times

    times = asyncio.run(scenario())

    assert times[1] - times[0] >= 0.09
    assert times[2] - times[1] >= 0.19
    assert 0.09 <= times[5] - times[4] < 0.19


def test_a_conflict_is_tried_again_without_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async def conflict_once(asked: Request, look: int) -> None:
            if look == 1:
                raise ConflictError("somebody wrote first")

        recorder = Recorder(conflict_once)
        async with memory_api() as client, running(client, recorder) as controller:
            controller.enqueue(request("a"))
            await wait_until(lambda: recorder.looks == ["a", "a"])

    asyncio.run(scenario())

    assert caplog.records == []


def test_a_result_asks_for_another_look_later() -> None:
    async def scenario() -> None:
        async def look_again_once(asked: Request, look: int) -> Result:
            return Result(requeue_after_seconds=0.02 if look == 1 else None)

        recorder = Recorder(look_again_once)
        async with memory_api() as client, running(client, recorder) as controller:
            controller.enqueue(request("a"))
            await wait_until(lambda: recorder.looks == ["a", "a"])

    asyncio.run(scenario())


def test_the_latest_result_replaces_an_earlier_appointment() -> None:
    async def scenario() -> None:
        async def far_then_near(asked: Request, look: int) -> Result:
            return Result(requeue_after_seconds={1: 3600.0, 2: 0.02}.get(look))

        recorder = Recorder(far_then_near)
        async with memory_api() as client, running(client, recorder) as controller:
            controller.enqueue(request("a"))
            await wait_until(lambda: len(recorder.looks) == 1)
            controller.enqueue(request("a"))
            await wait_until(lambda: len(recorder.looks) == 3)

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [ExpiredError("too old"), TransientError("no connection")])
def test_an_interrupted_watch_starts_again_from_what_exists(error: Exception) -> None:
    class Interrupted:
        def __init__(self, client: Client) -> None:
            self._client = client
            self.num_watches = 0

        async def watch(self, resource: Resource) -> AsyncIterator[WatchEvent]:
            self.num_watches += resource is CONFIG_MAPS
            if self.num_watches == 1:
                raise error
            async for event in self._client.watch(resource):
                yield event

    async def scenario() -> None:
        recorder = Recorder(do_nothing)
        async with memory_api() as client:
            await client.create(build("ConfigMap", "old"))
            interrupted: Any = Interrupted(client)  # has the one verb that a controller calls
            async with running(interrupted, recorder):
                await wait_until(lambda: recorder.looks == ["old"])
                assert interrupted.num_watches == 2

    asyncio.run(scenario())


def test_the_controller_owner_is_the_reference_that_says_so() -> None:
    owner = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "owner", "namespace": "default", "uid": "u-1"},
    }
    reference = build_owner_reference(owner)

    assert controller_owner(build("Pod", "p", ownerReferences=[reference])) == reference
    assert controller_owner(build("Pod", "p")) is None
    assert reference["blockOwnerDeletion"] is True
    other = {**reference, "kind": "Secret"}
    recorder = Recorder(do_nothing)
    assert recorder.map_event(PODS, build("Pod", "p", ownerReferences=[other])) == []
