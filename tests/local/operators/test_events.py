"""What `kubectl describe` finds about an object."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from kubeloop.local.api.resources import EVENTS
from kubeloop.local.client import Client, Manifest
from kubeloop.local.operators.events import record_event
from kubeloop.testing.api import memory_api

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ABOUT = {
    "apiVersion": "kubeflow.org/v1",
    "kind": "PyTorchJob",
    "metadata": {"name": "digits", "namespace": "default", "uid": "u-1", "resourceVersion": "7"},
}


async def say(
    client: Client, message: str = "Created pod: digits-master-0", *, now: datetime = NOON
) -> None:
    await record_event(
        client,
        ABOUT,
        type="Normal",
        reason="SuccessfulCreatePod",
        message=message,
        component="pytorchjob-controller",
        now=now,
    )


async def list_events(client: Client, *, field_selector: str = "") -> list[Manifest]:
    return (await client.list(EVENTS, namespace="default", field_selector=field_selector)).items


def test_an_event_says_about_what_by_whom_and_when() -> None:
    async def scenario() -> None:
        async with memory_api() as client:
            await say(client)
            [event] = await list_events(client)

        assert event["metadata"]["name"].startswith("digits.")
        assert event["involvedObject"] == {
            "apiVersion": "kubeflow.org/v1",
            "kind": "PyTorchJob",
            "name": "digits",
            "namespace": "default",
            "uid": "u-1",
            "resourceVersion": "7",
        }
        assert (event["type"], event["reason"]) == ("Normal", "SuccessfulCreatePod")
        assert event["message"] == "Created pod: digits-master-0"
        assert event["source"] == {"component": "pytorchjob-controller"}
        assert event["firstTimestamp"] == event["lastTimestamp"] == "2026-03-01T12:00:00Z"
        assert event["count"] == 1

    asyncio.run(scenario())


def test_a_repeated_event_is_counted_and_keeps_its_first_time() -> None:
    async def scenario() -> None:
        async with memory_api() as client:
            await say(client)
            await say(client, now=NOON + timedelta(minutes=5))
            await say(client, now=NOON + timedelta(minutes=9))
            [event] = await list_events(client)

        assert event["count"] == 3
        assert event["firstTimestamp"] == "2026-03-01T12:00:00Z"
        assert event["lastTimestamp"] == "2026-03-01T12:09:00Z"

    asyncio.run(scenario())


def test_concurrent_repeats_are_all_counted() -> None:
    async def scenario() -> None:
        async with memory_api() as client:
            await asyncio.gather(*(say(client) for _ in range(4)))
            [event] = await list_events(client)

        assert event["count"] == 4

    asyncio.run(scenario())


def test_another_message_is_another_event() -> None:
    async def scenario() -> None:
        async with memory_api() as client:
            await say(client, "Created pod: digits-master-0")
            await say(client, "Created pod: digits-worker-0")

            assert len(await list_events(client)) == 2

    asyncio.run(scenario())


def test_describe_finds_events_by_the_object_they_are_about() -> None:
    async def scenario() -> None:
        async with memory_api() as client:
            await say(client)
            selector = "involvedObject.name=digits,involvedObject.uid={}"

            assert len(await list_events(client, field_selector=selector.format("u-1"))) == 1
            assert await list_events(client, field_selector=selector.format("u-2")) == []

    asyncio.run(scenario())


def test_an_event_that_cannot_be_written_fails_nobody() -> None:
    async def scenario() -> None:
        async with memory_api() as client:
            await record_event(
                client,
                {**ABOUT, "metadata": {**ABOUT["metadata"], "namespace": "no-such"}},  # type: ignore[dict-item]  # a manifest
                type="Warning",
                reason="Lost",
                message="Nobody will read this.",
                component="test",
            )

            assert await list_events(client) == []

    asyncio.run(scenario())
