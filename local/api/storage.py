"""Objects in memory, and on disk before anybody is told that they are stored.

Reads never touch the disk: every object's JSON is in memory, in the bytes that go to clients, with
the few parts that selectors need beside it. A write is one SQLite statement (write-ahead log, not
synced: it survives the death of the process, a power cut may take the newest) and only after it
the memory changes. All calls are synchronous and made from one event loop, so that a verb built
from several of them is atomic.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import orjson

from kubeloop.errors import ApiError, PermanentError
from kubeloop.local.api.events import EventLog, EventLogConfig, StoredEvent, StoredObject
from kubeloop.local.api.resources import RESOURCES, Resource
from kubeloop.local.client import EventType, Manifest

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    resource TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    resource_version INTEGER NOT NULL,
    manifest BLOB NOT NULL,
    PRIMARY KEY (resource, namespace, name)
)
"""
_PUT = "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)"
_REMOVE = "DELETE FROM objects WHERE resource = ? AND namespace = ? AND name = ?"
_VERSION_KEY = ("", "", "")  # the row that remembers the resourceVersion of the last removal
_NO_LABELS: Mapping[str, str] = {}


class Key(NamedTuple):
    """Where an object is."""

    resource: Resource
    namespace: str
    name: str


class ObjectStorage:
    """All objects of one API server. Use as a context manager, from one event loop only."""

    def __init__(
        self,
        path: Path | None = None,
        *,
        resources: Iterable[Resource] = RESOURCES,
        log_config: EventLogConfig | None = None,
    ) -> None:
        """Open or create the storage.

        Args:
            path: SQLite file, readable by its owner only; None keeps everything in memory.
            resources: Kinds to hold; rows of other kinds stay on disk untouched.
            log_config: How much history watchers can catch up on.

        Raises:
            PermanentError: The file is not a database, or another process holds it.
        """
        self._objects: dict[Resource, dict[str, dict[str, StoredObject]]] = {
            resource: {} for resource in resources
        }
        self._keys_by_uid: dict[str, Key] = {}
        self._dependents: dict[str, set[Key]] = {}
        self._version = 0
        self._database = None if path is None else _open_database(path)
        if self._database is not None:
            self._load(self._database)
        config = log_config or EventLogConfig()
        self.logs = {r: EventLog(config=config, floor=self._version) for r in self._objects}

    def __enter__(self) -> ObjectStorage:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; later writes fail."""
        if self._database is not None:
            self._database.close()

    @property
    def resource_version(self) -> int:
        """That of the newest change."""
        return self._version

    def get(self, resource: Resource, namespace: str, name: str) -> StoredObject | None:
        """The object, None when there is none; `namespace` is empty for cluster-scoped kinds."""
        return self._objects[resource].get(namespace, {}).get(name)

    def iterate(self, resource: Resource, namespace: str | None = None) -> Iterator[StoredObject]:
        """Objects by namespace and name; of all namespaces when `namespace` is None."""
        by_namespace = self._objects[resource]
        for chosen in sorted(by_namespace) if namespace is None else (namespace,):
            objects = by_namespace.get(chosen, {})
            for name in sorted(objects):
                yield objects[name]

    def contents(self, namespace: str) -> Iterator[StoredObject]:
        """Everything in a namespace, kinds in table order."""
        for by_namespace in self._objects.values():
            yield from tuple(by_namespace.get(namespace, {}).values())

    def find_uid(self, uid: str) -> Key | None:
        """Where the object with this uid is."""
        return self._keys_by_uid.get(uid)

    def dependents(self, uid: str) -> tuple[Key, ...]:
        """The objects with an owner reference to `uid`, in a stable order."""
        keys = self._dependents.get(uid, ())
        return tuple(sorted(keys, key=lambda k: (k.resource.plural, k.namespace, k.name)))

    def put(self, resource: Resource, manifest: Manifest) -> StoredObject:
        """Store an object under a new resourceVersion, which is written into `manifest`."""
        version = self._version + 1
        manifest["metadata"]["resourceVersion"] = str(version)
        stored = index_object(resource, manifest)
        key = (_table_key(resource), stored.namespace, stored.name)
        self._write([(_PUT, (*key, version, stored.raw))])
        self._version = version
        previous = self.get(resource, stored.namespace, stored.name)
        if previous is not None:
            self._forget_owners(previous)
        self._remember(stored)
        self.logs[resource].append(
            StoredEvent(
                type=EventType.ADDED if previous is None else EventType.MODIFIED,
                resource_version=version,
                object=stored,
                previous=previous,
            )
        )
        return stored

    def remove(self, stored: StoredObject, *, manifest: Manifest | None = None) -> StoredObject:
        """Remove an object; `manifest` is its last state where that was never stored.

        Returns:
            The last state under the resourceVersion of the removal.
        """
        version = self._version + 1
        last = stored.load() if manifest is None else manifest
        last["metadata"]["resourceVersion"] = str(version)
        resource = stored.resource
        removed = index_object(resource, last)
        self._write(
            [
                (_REMOVE, (_table_key(resource), stored.namespace, stored.name)),
                (_PUT, (*_VERSION_KEY, version, b"")),
            ]
        )
        self._version = version
        objects = self._objects[resource][stored.namespace]
        previous = objects.pop(stored.name)
        if not objects:
            del self._objects[resource][stored.namespace]
        self._forget_owners(previous)
        self._keys_by_uid.pop(previous.uid, None)
        self.logs[resource].append(
            StoredEvent(
                type=EventType.DELETED,
                resource_version=version,
                object=removed,
                previous=previous,
            )
        )
        return removed

    def _remember(self, stored: StoredObject) -> None:
        by_namespace = self._objects[stored.resource]
        by_namespace.setdefault(stored.namespace, {})[stored.name] = stored
        key = Key(stored.resource, stored.namespace, stored.name)
        self._keys_by_uid[stored.uid] = key
        for uid in stored.owner_uids:
            self._dependents.setdefault(uid, set()).add(key)

    def _forget_owners(self, stored: StoredObject) -> None:
        key = Key(stored.resource, stored.namespace, stored.name)
        for uid in stored.owner_uids:
            keys = self._dependents.get(uid, set())
            keys.discard(key)
            if not keys:
                self._dependents.pop(uid, None)

    def _write(self, statements: list[tuple[str, tuple[object, ...]]]) -> None:
        if self._database is None:
            return
        try:
            if len(statements) == 1:
                self._database.execute(*statements[0])
                return
            with self._database:
                self._database.execute("BEGIN")
                for statement, parameters in statements:
                    self._database.execute(statement, parameters)
        except sqlite3.Error as error:
            raise ApiError(
                f"Failed to store the object: {error}", status=500, reason="InternalError"
            ) from error

    def _load(self, database: sqlite3.Connection) -> None:
        resources = {_table_key(resource): resource for resource in self._objects}
        rows = database.execute("SELECT resource, resource_version, manifest FROM objects")
        for table_key, version, raw in rows:
            self._version = max(self._version, version)
            if resource := resources.get(table_key):
                self._remember(index_object(resource, orjson.loads(raw), raw=raw))


def index_object(resource: Resource, manifest: Manifest, *, raw: bytes = b"") -> StoredObject:
    """Take from a manifest what storage and selectors look at; `raw` is its JSON if at hand."""
    metadata = manifest["metadata"]
    return StoredObject(
        resource=resource,
        namespace=sys.intern(metadata.get("namespace", "")),
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        resource_version=int(metadata["resourceVersion"]),
        raw=raw or _trim(orjson.dumps(manifest)),
        labels=metadata.get("labels") or _NO_LABELS,
        # Most values are those of many objects, such as a namespace or a phase.
        fields={
            path: sys.intern(_field_text(manifest, path)) for path in resource.selectable_fields
        },
        owner_uids=tuple(owner["uid"] for owner in metadata.get("ownerReferences") or ()),
    )


def _trim(raw: bytes) -> bytes:
    """A copy that takes no more memory than its length; orjson leaves its whole buffer attached."""
    return bytes(memoryview(raw))


def _field_text(manifest: Manifest, path: str) -> str:
    value: Any = manifest  # any JSON
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, dict):  # an event's `source` selects by its component
        value = value.get("component")
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _table_key(resource: Resource) -> str:
    return f"{resource.group}/{resource.version}/{resource.plural}"


def _open_database(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        database = sqlite3.connect(path, isolation_level=None, timeout=1.0)
        try:
            database.execute("PRAGMA locking_mode=EXCLUSIVE")
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            database.execute(_SCHEMA)
        except sqlite3.Error:
            database.close()
            raise
    except (OSError, sqlite3.Error) as error:
        raise PermanentError(
            f"Failed to open the objects' database {str(path)!r}: {error}; "
            "stop the control plane that uses it, or choose another state folder."
        ) from error
    return database
