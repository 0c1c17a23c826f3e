"""Keeps those who work on one dataset out of each other's way.

An ingestion reuses shards that it finds, and names new ones only at its end; a collection removes
what nothing names. Each first says that it is there and then looks for the other, so that of two
that start at once at least one sees the other: the collection gives up, the ingestion waits.

Of those who make or remove a commit, one at a time does so: what it builds on stays the newest
until it is done.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kubeloop.datasets.stores import ObjectStore
from kubeloop.errors import InputError, KubeloopError, TransientError

logger = logging.getLogger(__name__)

_LEASES = "leases"
_COLLECTION = "collecting.json"
LEASE_SECONDS = 900.0
"""A lease that was not renewed for so long belonged to a process that is gone."""
_RENEWAL_SECONDS = 120.0
_WAIT_SECONDS = 600.0
_SOON_SECONDS = 1.0
_TURN = "turn-"
TURN_SECONDS = 60.0
"""The same for a turn, which others wait for."""
_TURN_RENEWAL_SECONDS = 10.0


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
    _stamp(dataset, key, now())
    with _renewed(dataset, key, now, every_seconds=_RENEWAL_SECONDS):
        _await_collection(dataset, now=now, sleep=sleep)
        yield


@contextmanager
def taking_turns(
    dataset: ObjectStore,
    *,
    now: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Wait until nobody else makes or removes a commit, and keep others waiting meanwhile."""
    key = f"{_LEASES}/{_TURN}{uuid.uuid4().hex}.json"
    wait = _Wait(
        f"another process makes or removes a commit of {dataset.uri}; the turn of one that died"
        f" ends after {TURN_SECONDS:.0f} s",
        sleep=sleep,
    )
    while True:
        _stamp(dataset, key, now())
        if not any(_is_live(dataset, other, now()) for other in _list_turns(dataset, but=key)):
            break
        # Whoever sees another steps back: of two that start at once, at least one does.
        _release(dataset, key)
        wait.pause(random.uniform(0.05, 0.5))  # noqa: S311 - no secret
    with _renewed(dataset, key, now, every_seconds=_TURN_RENEWAL_SECONDS):
        yield


class _Wait:
    """Pauses, and says once in the log what for, unless it is soon over."""

    def __init__(self, reason: str, *, sleep: Callable[[float], None]) -> None:
        self.seconds = 0.0
        self._reason = reason
        self._sleep = sleep

    def pause(self, seconds: float) -> None:
        is_said = self.seconds >= _SOON_SECONDS
        self._sleep(seconds)
        self.seconds += seconds
        if self.seconds >= _SOON_SECONDS and not is_said:
            logger.warning("Waiting: %s.", self._reason)


def _list_turns(dataset: ObjectStore, *, but: str) -> list[str]:
    keys = dataset.list(_LEASES)
    return [key for key in keys if key.startswith(f"{_LEASES}/{_TURN}") and key != but]


@contextmanager
def _renewed(
    dataset: ObjectStore, key: str, now: Callable[[], float], *, every_seconds: float
) -> Iterator[None]:
    """Renew a lease for the time of the context, then release it."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(every_seconds):
            with contextlib.suppress(KubeloopError):  # whoever holds it meets the same and says so
                _stamp(dataset, key, now())

    # A thread, for its holder may spend long in one call of a library.
    renewal = threading.Thread(target=renew, name="lease", daemon=True)
    renewal.start()
    try:
        yield
    finally:
        done.set()
        renewal.join()
        _release(dataset, key)


def _await_collection(
    dataset: ObjectStore, *, now: Callable[[], float], sleep: Callable[[float], None]
) -> None:
    wait = _Wait(
        f"a garbage collection of {dataset.uri} is running; giving up after {_WAIT_SECONDS:.0f} s",
        sleep=sleep,
    )
    while _is_live(dataset, _COLLECTION, now()):
        if wait.seconds >= _WAIT_SECONDS:
            raise TransientError(
                f"A garbage collection of {dataset.uri!r} has not ended for {wait.seconds:.0f} s."
            )
        wait.pause(0.5)


@contextmanager
def collecting(dataset: ObjectStore, *, now: Callable[[], float] = time.time) -> Iterator[None]:
    """Keep ingestions waiting for the time of a collection.

    Raises:
        TransientError: An ingestion or another collection is running.
    """
    if _is_live(dataset, _COLLECTION, now()):
        raise TransientError(f"Another garbage collection of {dataset.uri!r} is running.")
    _stamp(dataset, _COLLECTION, now())
    with _renewed(dataset, _COLLECTION, now, every_seconds=_RENEWAL_SECONDS):
        for key in list(dataset.list(_LEASES)):
            if _is_live(dataset, key, now()):
                raise TransientError(
                    f"An ingestion into {dataset.uri!r} is running; collect garbage when it has"
                    f" ended. (The lease of one that died ends after {LEASE_SECONDS:.0f} s.)"
                )
            dataset.delete(key)
        yield


def _release(dataset: ObjectStore, key: str) -> None:
    # A store that went down meanwhile has said so already; what is left there runs out.
    with contextlib.suppress(KubeloopError):
        dataset.delete(key)


def _stamp(dataset: ObjectStore, key: str, now: float) -> None:
    dataset.write(key, json.dumps({"renewed_at": now}).encode())


def _is_live(dataset: ObjectStore, key: str, now: float) -> bool:
    try:
        renewed_at: float = json.loads(dataset.read(key))["renewed_at"]
    except InputError:  # there is none, or none any more
        return False
    seconds = TURN_SECONDS if key.startswith(f"{_LEASES}/{_TURN}") else LEASE_SECONDS
    return now - renewed_at < seconds
