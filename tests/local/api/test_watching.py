"""Watchers read a shared log at their own pace."""

from __future__ import annotations

import asyncio

import pytest

from kubeloop.errors import ExpiredError
from kubeloop.local.api.events import EventLogConfig
from kubeloop.local.api.resources import CONFIG_MAPS, PODS
from kubeloop.local.api.selectors import Selection, parse_selection
from kubeloop.local.api.storage import ObjectStorage
from kubeloop.local.api.watching import Watch
from kubeloop.local.client import Manifest


def manifest(name: str, *, data: str = "") -> Manifest:
    metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}"}
    return {"metadata": metadata, "data": {"key": data}}


def test_a_slow_watcher_is_told_and_costs_no_memory() -> None:
    storage = ObjectStorage(log_config=EventLogConfig(max_events=10))
    slow = Watch(storage, CONFIG_MAPS, selection=Selection(), resource_version=0)
    quick = Watch(storage, CONFIG_MAPS, selection=Selection(), resource_version=0)
    num_seen = 0
    for index in range(25):
        storage.put(CONFIG_MAPS, manifest(f"c{index}"))
        num_seen += len(quick.read())
    assert num_seen == 25
    with pytest.raises(ExpiredError):
        slow.read()


def test_a_log_is_bounded_by_bytes_too() -> None:
    storage = ObjectStorage(log_config=EventLogConfig(max_bytes=6000))
    for index in range(10):
        storage.put(CONFIG_MAPS, manifest(f"c{index}", data="x" * 500))
    log = storage.logs[CONFIG_MAPS]
    assert 1 <= len(log.read(log.position_after(log.floor))) <= 4
    storage.put(CONFIG_MAPS, manifest("big", data="x" * 5000))
    assert [event.object.name for event in log.read(log.position_after(log.floor))] == ["big"]


def test_a_busy_kind_does_not_expire_the_watches_of_another() -> None:
    storage = ObjectStorage(log_config=EventLogConfig(max_events=3))
    storage.put(PODS, manifest("p"))
    for index in range(10):
        storage.put(CONFIG_MAPS, manifest(f"c{index}"))
    watch = Watch(storage, PODS, selection=Selection(), resource_version=0)
    assert [event.object.name for event in watch.read()] == ["p"]


def test_a_version_from_the_future_expires() -> None:
    storage = ObjectStorage()
    with pytest.raises(ExpiredError):
        Watch(storage, CONFIG_MAPS, selection=Selection(), resource_version=7)


def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    async def main() -> None:
        storage = ObjectStorage()
        watch = Watch(storage, CONFIG_MAPS, selection=Selection())
        waiting = asyncio.create_task(watch.wait())
        await asyncio.sleep(0)
        assert storage.logs[CONFIG_MAPS]._waiters
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert not storage.logs[CONFIG_MAPS]._waiters

    asyncio.run(main())


def test_a_wait_ends_with_the_next_event() -> None:
    async def main() -> None:
        storage = ObjectStorage()
        watch = Watch(storage, CONFIG_MAPS, selection=Selection())
        waiting = asyncio.create_task(watch.wait())
        await asyncio.sleep(0)
        storage.put(CONFIG_MAPS, manifest("a"))
        await asyncio.wait_for(waiting, 5)
        assert [event.object.name for event in watch.read()] == ["a"]
        assert watch.read() == []

    asyncio.run(main())


def test_an_object_that_leaves_the_selection_is_deleted_as_it_was() -> None:
    storage = ObjectStorage()
    selection = parse_selection(CONFIG_MAPS, label_selector="x=y")
    watch = Watch(storage, CONFIG_MAPS, selection=selection, resource_version=0)
    inside = manifest("a", data="inside")
    inside["metadata"]["labels"] = {"x": "y"}
    storage.put(CONFIG_MAPS, inside)
    storage.put(CONFIG_MAPS, manifest("a", data="outside"))
    _, left = watch.read()
    assert left.type == "DELETED"
    assert left.object.load()["data"] == {"key": "inside"}
    assert left.object.load()["metadata"]["resourceVersion"] == "2"
