"""What is stored stays stored, under versions that only grow."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from kubeloop.errors import ApiError, PermanentError
from kubeloop.local.api.resources import CONFIG_MAPS, EVENTS, NAMESPACES, PODS
from kubeloop.local.api.storage import ObjectStorage
from kubeloop.local.client import EventType, Manifest

WRITER = """
import sys
from pathlib import Path
from kubeloop.local.api.resources import CONFIG_MAPS
from kubeloop.local.api.storage import ObjectStorage
from kubeloop.local.api.verbs import ApiServer, ensure_namespace

api = ApiServer(ObjectStorage(Path(sys.argv[1])))
ensure_namespace(api, "default")
index = 0
while True:
    name = f"c{index}"
    stored = api.create(CONFIG_MAPS, {"metadata": {"name": name}})
    if index % 3 == 2:
        api.delete(CONFIG_MAPS, name=name, namespace="default")
    print(index, api.storage.resource_version, flush=True)
    index += 1
"""


def manifest(name: str, *, uid: str = "", **metadata: object) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "uid": uid or f"uid-{name}", **metadata},
    }


def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "objects.db"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        for _ in range(300):
            line = writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        lines = (line + writer.stdout.read()).splitlines(keepends=True)
    last = [line for line in lines if line.endswith("\n")][-1].split()
    num_acknowledged, version = int(last[0]) + 1, int(last[1])
    with ObjectStorage(path) as storage:
        names = {stored.name for stored in storage.iterate(CONFIG_MAPS)}
        expected = {f"c{index}" for index in range(num_acknowledged) if index % 3 != 2}
        assert expected <= names
        assert storage.resource_version >= version


def test_a_reopened_storage_holds_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "objects.db"
    with ObjectStorage(path) as storage:
        stored = storage.put(CONFIG_MAPS, manifest("a", labels={"x": "ä"}))
    with ObjectStorage(path) as storage:
        again = storage.get(CONFIG_MAPS, "default", "a")
        assert again is not None
        assert again.raw == stored.raw
        assert again.labels == {"x": "ä"}


def test_versions_grow_over_a_restart_even_after_a_removal(tmp_path: Path) -> None:
    path = tmp_path / "objects.db"
    with ObjectStorage(path) as storage:
        storage.put(CONFIG_MAPS, manifest("a"))
        removed = storage.remove(storage.put(CONFIG_MAPS, manifest("a")))
        assert storage.resource_version == removed.resource_version == 3
    with ObjectStorage(path) as storage:
        assert storage.put(CONFIG_MAPS, manifest("b")).resource_version == 4


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "objects.db"
    with ObjectStorage(path) as storage:
        storage.put(CONFIG_MAPS, manifest("a"))
        files = list(path.parent.iterdir())
        assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_a_second_process_is_refused_the_file(tmp_path: Path) -> None:
    path = tmp_path / "objects.db"
    message = "Failed to open the objects' database"
    with ObjectStorage(path), pytest.raises(PermanentError, match=message):
        ObjectStorage(path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "objects.db"
    path.write_bytes(b"not a database, but long enough to be taken for one" * 100)
    with pytest.raises(PermanentError, match="file is not a database"):
        ObjectStorage(path)


def test_a_write_that_fails_changes_nothing(tmp_path: Path) -> None:
    storage = ObjectStorage(tmp_path / "objects.db")
    storage.put(CONFIG_MAPS, manifest("a"))
    storage.close()
    with pytest.raises(ApiError, match="Failed to store the object") as caught:
        storage.put(CONFIG_MAPS, manifest("b"))
    assert caught.value.status == 500
    assert storage.get(CONFIG_MAPS, "default", "b") is None
    assert storage.resource_version == 1
    assert storage.logs[CONFIG_MAPS].end == 1


def test_rows_of_kinds_that_are_not_served_stay(tmp_path: Path) -> None:
    path = tmp_path / "objects.db"
    with ObjectStorage(path) as storage:
        storage.put(CONFIG_MAPS, manifest("a"))
    with ObjectStorage(path, resources=[PODS]) as storage:
        assert storage.resource_version == 1
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM objects").fetchone() == (1,)
    database.close()


def test_objects_are_iterated_by_namespace_and_name() -> None:
    storage = ObjectStorage()
    for namespace, name in (("b", "x"), ("a", "z"), ("a", "y")):
        storage.put(CONFIG_MAPS, manifest(name, uid=namespace + name, namespace=namespace))
    assert [(s.namespace, s.name) for s in storage.iterate(CONFIG_MAPS)] == [
        ("a", "y"),
        ("a", "z"),
        ("b", "x"),
    ]
    assert [s.name for s in storage.iterate(CONFIG_MAPS, "a")] == ["y", "z"]
    assert [s.name for s in storage.contents("b")] == ["x"]


def test_dependents_follow_owner_references() -> None:
    storage = ObjectStorage()
    owners = [{"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "uid-o"}]
    storage.put(CONFIG_MAPS, manifest("o"))
    owned = storage.put(CONFIG_MAPS, manifest("a", ownerReferences=owners))
    assert [key.name for key in storage.dependents("uid-o")] == ["a"]
    storage.put(CONFIG_MAPS, manifest("a"))
    assert storage.dependents("uid-o") == ()
    assert storage.find_uid("uid-a") == (CONFIG_MAPS, "default", "a")
    storage.remove(owned)
    assert storage.find_uid("uid-a") is None


def test_each_change_is_one_event_with_the_version_before_it() -> None:
    storage = ObjectStorage()
    first = storage.put(CONFIG_MAPS, manifest("a"))
    second = storage.put(CONFIG_MAPS, manifest("a", labels={"x": "y"}))
    storage.remove(second)
    events = storage.logs[CONFIG_MAPS].read(0)
    assert [event.type for event in events] == [
        EventType.ADDED,
        EventType.MODIFIED,
        EventType.DELETED,
    ]
    assert [event.previous for event in events] == [None, first, second]
    assert events[2].object.load()["metadata"]["resourceVersion"] == "3"


def test_events_are_selectable_by_what_they_are_about() -> None:
    storage = ObjectStorage()
    event = {
        **manifest("e"),
        "kind": "Event",
        "involvedObject": {"kind": "Pod", "name": "p"},
        "source": {"component": "kubelet"},
    }
    stored = storage.put(EVENTS, event)
    assert stored.fields["involvedObject.name"] == "p"
    assert stored.fields["source"] == "kubelet"
    assert stored.fields["involvedObject.uid"] == ""


def test_cluster_scoped_objects_have_no_namespace() -> None:
    storage = ObjectStorage()
    storage.put(NAMESPACES, {"metadata": {"name": "team", "uid": "u"}})
    assert storage.get(NAMESPACES, "", "team") is not None


def test_an_object_takes_little_more_memory_than_its_json() -> None:
    manifests = [manifest(f"c{index}", labels={"x": "y" * 1000}) for index in range(200)]
    with ObjectStorage() as storage:
        tracemalloc.start()
        try:
            num_bytes = sum(len(storage.put(CONFIG_MAPS, each).raw) for each in manifests)
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    assert held < 2.5 * num_bytes
