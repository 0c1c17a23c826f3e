"""How a client watches objects. A part of the clients' contract."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from kubeloop.errors import (
    ExpiredError,
)
from kubeloop.local.api.events import EventLogConfig
from kubeloop.local.api.resources import CONFIG_MAPS
from kubeloop.local.client import (
    Client,
    EventType,
    WatchEvent,
)
from kubeloop.testing.client_harness import ClientHarness
from kubeloop.testing.manifests import build_config_map


class WatchingContract(ClientHarness):
    """Tests of one part of the contract."""

    def test_watch_starts_with_what_exists(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            await client.create(build_config_map("a"))
            await client.create(build_config_map("b"))
            async with aclosing(client.watch(CONFIG_MAPS)) as events:  # type: ignore[type-var]  # an async generator
                seen = [await anext(events), await anext(events)]
                await client.create(build_config_map("c"))
                seen.append(await anext(events))
            assert [_brief(event) for event in seen] == [
                (EventType.ADDED, "a"),
                (EventType.ADDED, "b"),
                (EventType.ADDED, "c"),
            ]

        self.run(tmp_path, test)

    def test_watch_from_a_list_misses_and_repeats_nothing(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            created = await client.create(build_config_map("a"))
            listed = await client.list(CONFIG_MAPS)
            await client.replace({**created, "data": {}})
            await client.delete(CONFIG_MAPS, "a", namespace="default")
            await client.create(build_config_map("b"))
            seen = await _take(client, 3, resource_version=listed.resource_version)
            assert [_brief(event) for event in seen] == [
                (EventType.MODIFIED, "a"),
                (EventType.DELETED, "a"),
                (EventType.ADDED, "b"),
            ]
            versions = [int(event.object["metadata"]["resourceVersion"]) for event in seen]
            assert versions == sorted(set(versions))
            assert versions[0] > int(listed.resource_version)

        self.run(tmp_path, test)

    def test_watch_of_a_selection_sees_objects_enter_and_leave(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            listed = await client.list(CONFIG_MAPS)
            await client.create(build_config_map("a"))
            for color in ("red", "red2", "blue"):
                body = {"metadata": {"labels": {"color": color}}}
                await client.patch(CONFIG_MAPS, "a", namespace="default", body=body)
            await client.delete(CONFIG_MAPS, "a", namespace="default")
            await client.create(build_config_map("end", labels={"color": "red"}))
            seen = await _take(
                client,
                4,
                resource_version=listed.resource_version,
                label_selector="color in (red,red2)",
            )
            assert [_brief(event) for event in seen] == [
                (EventType.ADDED, "a"),
                (EventType.MODIFIED, "a"),
                (EventType.DELETED, "a"),
                (EventType.ADDED, "end"),
            ]

        self.run(tmp_path, test)

    def test_watch_from_a_forgotten_version_expires(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            listed = await client.list(CONFIG_MAPS)
            for index in range(5):
                await client.create(build_config_map(f"a{index}"))
            with pytest.raises(ExpiredError, match="too old resource version"):
                await _take(client, 1, resource_version=listed.resource_version)

        self.run(tmp_path, test, log_config=EventLogConfig(max_events=3))

    def test_watchers_see_every_event_of_a_busy_time(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            listed = await client.list(CONFIG_MAPS)

            async def watch() -> list[str]:
                seen = await _take(client, 300, resource_version=listed.resource_version)
                return [event.object["metadata"]["name"] for event in seen]

            watchers = [asyncio.create_task(watch()) for _ in range(3)]
            names = [f"a{index}" for index in range(300)]
            for start in range(0, 300, 30):
                batch = names[start : start + 30]
                await asyncio.gather(*(client.create(build_config_map(name)) for name in batch))
            for watcher in watchers:
                assert sorted(await watcher) == sorted(names)

        self.run(tmp_path, test)


def _brief(event: WatchEvent) -> tuple[EventType, str]:
    return event.type, event.object["metadata"]["name"]


async def _take(
    client: Client, count: int, *, resource_version: str = "", label_selector: str = ""
) -> list[WatchEvent]:
    seen = []
    events = client.watch(
        CONFIG_MAPS, resource_version=resource_version, label_selector=label_selector
    )
    async with aclosing(events):  # type: ignore[type-var]  # an async generator
        async for event in events:
            seen.append(event)
            if len(seen) == count:
                break
    return seen
