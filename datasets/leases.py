"""Keeps ingestions and garbage collection out of each other's way.

An ingestion reuses shards that it finds, and names new ones only at its end; a collection removes
what nothing names. Each first says that it is there and then looks for the other, so that of two
that start at once at least one sees the other: the collection gives up, the ingestion waits.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kubeloop.datasets.stores import ObjectStore
from kubeloop.errors import KubeloopError, TransientError

_LEASES = "leases"
_COLLECTION = "collecting.json"
LEASE_SECONDS = 900.0
"""A lease that was not renewed for so long belonged to a process that is gone."""
_RENEWAL_SECONDS = 120.0
_WAIT_SECONDS = 600.0


@contextmanager
def ingesting(
    dataset: ObjectStore,
    *,
    now: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Hold a lease for the time of an ingestion.

    Raises:
        TransientError: A collection does not end.
    """
    key = f"{_LEASES}/{uuid.uuid4().hex}.json"
    done = threading.Event()
    _stamp(dataset, key, now())
    # A thread, for ingestion may spend long in one call of a library.
    renewal = threading.Thread(
        target=_renew, args=(dataset, key, now, done), name="lease", daemon=True
    )
    renewal.start()
    try:
        _await_collection(dataset, now=now, sleep=sleep)
        yield
    finally:
        done.set()
        renewal.join()
        _release(dataset, key)


def _renew(dataset: ObjectStore, key: str, now: Callable[[], float], done: threading.Event) -> None:
    while not done.wait(_RENEWAL_SECONDS):
        with contextlib.suppress(KubeloopError):  # the ingestion meets the same and reports it
            _stamp(dataset, key, now())


def _await_collection(
    dataset: ObjectStore, *, now: Callable[[], float], sleep: Callable[[float], None]
) -> None:
    waited = 0.0
    while _is_live(dataset, _COLLECTION, now()):
        if waited >= _WAIT_SECONDS:
            raise TransientError(
                f"A garbage collection of {dataset.uri!r} has not ended for {waited:.0f} s."
            )
        sleep(0.5)
        waited += 0.5


@contextmanager
def collecting(dataset: ObjectStore, *, now: Callable[[], float] = time.time) -> Iterator[None]:
    """Keep ingestions waiting for the time of a collection.

    Raises:
        TransientError: An ingestion or another collection is running.
    """
    if _is_live(dataset, _COLLECTION, now()):
        raise TransientError(f"Another garbage collection of {dataset.uri!r} is running.")
    dataset.write(_COLLECTION, _render(now()))
    try:
        for key in list(dataset.list(_LEASES)):
            if _is_live(dataset, key, now()):
                raise TransientError(
                    f"An ingestion into {dataset.uri!r} is running; collect garbage when it has"
                    f" ended. (The lease of one that died ends after {LEASE_SECONDS:.0f} s.)"
                )
            dataset.delete(key)
        yield
    finally:
        _release(dataset, _COLLECTION)


def _release(dataset: ObjectStore, key: str) -> None:
    # A store that went down meanwhile has said so already; what is left there runs out.
    with contextlib.suppress(KubeloopError):
        dataset.delete(key)


def _stamp(dataset: ObjectStore, key: str, now: float) -> None:
    dataset.write(key, _render(now))


def _render(now: float) -> bytes:
    return json.dumps({"renewed_at": now}).encode()


def _is_live(dataset: ObjectStore, key: str, now: float) -> bool:
    if not dataset.exists(key):
        return False
    renewed_at: float = json.loads(dataset.read(key))["renewed_at"]
    return now - renewed_at < LEASE_SECONDS
