"""How objects go: finalizers, grace periods, owner references and namespaces.

Upstream spreads this over the API server, the garbage collector and the namespace controller,
which work one after the other; here a removal carries its consequences out at once, in the same
order, so that nothing depends on when a collector gets round to it. What a crash cuts off,
`sweep` finishes at the next start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from kubeloop.local.api.events import StoredObject
from kubeloop.local.api.resources import NAMESPACES, PODS, Resource
from kubeloop.local.api.storage import Key, ObjectStorage
from kubeloop.local.client import Manifest, Propagation

FOREGROUND_FINALIZER = "foregroundDeletion"
ORPHAN_FINALIZER = "orphan"
_DEFAULT_GRACE_SECONDS = 30
_TERMINAL_PHASES = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteOptions:
    """What a DELETE asks for."""

    propagation: Propagation = Propagation.BACKGROUND
    grace_period_seconds: int | None = None
    uid: str = ""
    resource_version: str = ""
    dry_run: bool = False


class Deleter:
    """Removes objects, and what must go or change with them."""

    def __init__(self, storage: ObjectStorage, *, clock: Callable[[], datetime]) -> None:
        self._storage = storage
        self._clock = clock

    def delete(self, stored: StoredObject, options: DeleteOptions) -> StoredObject | None:
        """Delete an object as far as it can go now.

        Returns:
            The object while finalizers, its grace period or its contents hold it; None when gone.
        """
        manifest = stored.load()
        before = stored.load()
        metadata = manifest["metadata"]
        if options.propagation is Propagation.ORPHAN:
            self._orphan_dependents(stored)
        elif options.propagation is Propagation.FOREGROUND and self._blocking(stored.uid):
            _add_finalizer(metadata, FOREGROUND_FINALIZER)
        grace = _grace_seconds(stored.resource, manifest, options.grace_period_seconds)
        self._mark(manifest, grace)
        if stored.resource is NAMESPACES:
            manifest["status"] = {**(manifest.get("status") or {}), "phase": "Terminating"}
        if manifest != before and (_is_held(manifest) or stored.resource is NAMESPACES):
            stored = self._storage.put(stored.resource, manifest)
        if options.propagation is Propagation.FOREGROUND:
            for key in self._storage.dependents(stored.uid):
                self._release(key, stored.uid, options.propagation)
        if stored.resource is NAMESPACES:
            for inner in self._storage.contents(stored.name):
                if current := self._storage.get(inner.resource, inner.namespace, inner.name):
                    self.delete(current, DeleteOptions())
        return self.finish(stored, manifest)

    def finish(self, stored: StoredObject, manifest: Manifest) -> StoredObject | None:
        """Remove an object in deletion if nothing holds it any more; None when it is gone."""
        current = self._storage.get(stored.resource, stored.namespace, stored.name)
        if current is None or current.uid != stored.uid:
            return None
        if "deletionTimestamp" not in manifest["metadata"] or _is_held(manifest):
            return current
        if current.resource is NAMESPACES and any(self._storage.contents(current.name)):
            return current
        self._storage.remove(current, manifest=manifest)
        self._after_removal(current)
        return None

    def collect(self, stored: StoredObject) -> None:
        """Delete a written object whose owners are gone, or are waiting for it to go."""
        if not stored.owner_uids:
            return
        owners = [self._owner(stored, uid) for uid in stored.owner_uids]
        if not any(owners) or any(owner and _awaits_dependents(owner) for owner in owners):
            self.delete(stored, DeleteOptions())

    def sweep(self) -> None:
        """Carry out what a crash left undone."""
        for resource in tuple(self._storage.logs):
            for stored in tuple(self._storage.iterate(resource)):
                current = self._storage.get(resource, stored.namespace, stored.name)
                if current is None or current.uid != stored.uid:
                    continue
                manifest = current.load()
                if "deletionTimestamp" not in manifest["metadata"]:
                    self.collect(current)
                elif resource is NAMESPACES:
                    self.delete(current, DeleteOptions())
                elif _awaits_dependents(current):
                    self.delete(current, DeleteOptions(propagation=Propagation.FOREGROUND))
                    self._finish_foreground(current.uid)
                else:
                    self.finish(current, manifest)

    def _mark(self, manifest: Manifest, grace: int) -> None:
        metadata = manifest["metadata"]
        previous = metadata.get("deletionGracePeriodSeconds")
        if "deletionTimestamp" in metadata and (previous is None or grace >= previous):
            return
        due = self._clock() + timedelta(seconds=grace)
        metadata["deletionTimestamp"] = due.strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata["deletionGracePeriodSeconds"] = grace
        if previous is None and "generation" in metadata:
            metadata["generation"] += 1

    def _after_removal(self, removed: StoredObject) -> None:
        for key in self._storage.dependents(removed.uid):
            self._release(key, removed.uid, Propagation.BACKGROUND)
        for uid in removed.owner_uids:
            self._finish_foreground(uid)
        namespace = self._storage.get(NAMESPACES, "", removed.namespace)
        if namespace is not None:
            self.finish(namespace, namespace.load())

    def _finish_foreground(self, owner_uid: str) -> None:
        key = self._storage.find_uid(owner_uid)
        owner = None if key is None else self._storage.get(*key)
        if owner is None or not _awaits_dependents(owner) or self._blocking(owner_uid):
            return
        manifest = owner.load()
        manifest["metadata"]["finalizers"].remove(FOREGROUND_FINALIZER)
        if _is_held(manifest):
            owner = self._storage.put(owner.resource, manifest)
        self.finish(owner, manifest)

    def _release(self, key: Key, owner_uid: str, propagation: Propagation) -> None:
        """A dependent loses an owner: it goes too, unless another owner keeps it."""
        dependent = self._storage.get(*key)
        if dependent is None:
            return
        others = [self._owner(dependent, uid) for uid in dependent.owner_uids if uid != owner_uid]
        if any(owner and not _awaits_dependents(owner) for owner in others):
            self._drop_references(dependent, {owner_uid})
        else:
            self.delete(dependent, DeleteOptions(propagation=propagation))

    def _orphan_dependents(self, owner: StoredObject) -> None:
        for key in self._storage.dependents(owner.uid):
            if dependent := self._storage.get(*key):
                self._drop_references(dependent, {owner.uid})

    def _drop_references(self, dependent: StoredObject, uids: set[str]) -> None:
        manifest = dependent.load()
        metadata = manifest["metadata"]
        kept = [owner for owner in metadata["ownerReferences"] if owner["uid"] not in uids]
        if kept:
            metadata["ownerReferences"] = kept
        else:
            del metadata["ownerReferences"]
        self._storage.put(dependent.resource, manifest)

    def _blocking(self, uid: str) -> bool:
        """Whether a dependent of `uid` blocks its foreground deletion."""
        for key in self._storage.dependents(uid):
            dependent = self._storage.get(*key)
            owners: Iterable[Manifest] = (
                dependent.load()["metadata"]["ownerReferences"] if dependent else ()
            )
            if any(o["uid"] == uid and o.get("blockOwnerDeletion") for o in owners):
                return True
        return False

    def _owner(self, dependent: StoredObject, uid: str) -> StoredObject | None:
        key = self._storage.find_uid(uid)
        if key is None or key.namespace not in ("", dependent.namespace):
            return None
        return self._storage.get(*key)


def _grace_seconds(resource: Resource, manifest: Manifest, asked: int | None) -> int:
    """Only pods have a grace period, and only while a node may be running them."""
    if resource is not PODS:
        return 0
    spec, status = manifest.get("spec") or {}, manifest.get("status") or {}
    if not spec.get("nodeName") or status.get("phase") in _TERMINAL_PHASES:
        return 0
    if asked is not None:
        return max(0, asked)
    return int(spec.get("terminationGracePeriodSeconds", _DEFAULT_GRACE_SECONDS))


def _is_held(manifest: Manifest) -> bool:
    metadata = manifest["metadata"]
    return bool(metadata.get("finalizers")) or metadata.get("deletionGracePeriodSeconds", 0) > 0


def _add_finalizer(metadata: Manifest, finalizer: str) -> None:
    finalizers = metadata.setdefault("finalizers", [])
    if finalizer not in finalizers:
        finalizers.append(finalizer)


def _awaits_dependents(owner: StoredObject) -> bool:
    metadata = owner.load()["metadata"]
    return "deletionTimestamp" in metadata and FOREGROUND_FINALIZER in (
        metadata.get("finalizers") or ()
    )
