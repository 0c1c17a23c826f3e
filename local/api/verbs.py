"""The verbs of the API server, free of any transport.

`local.api.server` puts HTTP on them, `local.api.memory` calls them in the same process. Every verb
but `watch` is one synchronous call and so atomic: two of them never interleave, and a conflict
happens only between a caller's read and its write.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from kubeloop.errors import AlreadyExistsError
from kubeloop.local.api import objects, refusals
from kubeloop.local.api.admission.base import Admission
from kubeloop.local.api.admission.registry import build_admissions, index_admissions
from kubeloop.local.api.apply import ApplyRequest, apply_configuration
from kubeloop.local.api.deletion import DeleteOptions, Deleter
from kubeloop.local.api.events import StoredObject
from kubeloop.local.api.expiry import EventExpiry
from kubeloop.local.api.patches import apply_json_patch, apply_merge_patch
from kubeloop.local.api.resources import EVENTS, NAMESPACES, Resource
from kubeloop.local.api.selectors import Selection
from kubeloop.local.api.storage import ObjectStorage, index_object
from kubeloop.local.api.strategic import apply_strategic_patch
from kubeloop.local.api.watching import Watch
from kubeloop.local.client import Manifest, PatchType

_NAME_ATTEMPTS = 8
_KEPT_NAMESPACES = ("default", "kube-system", "kube-public")


def utc_now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


class ApiServer:
    """Creates, reads and changes objects by the rules of a kube-apiserver."""

    def __init__(
        self,
        storage: ObjectStorage,
        *,
        admissions: Iterable[Admission] | None = None,
        clock: Callable[[], datetime] = utc_now,
        random_source: random.Random | None = None,
    ) -> None:
        """Serve what is in `storage`.

        Args:
            storage: Where the objects are; the caller closes it.
            admissions: Hooks by kind; None takes the built-in ones.
            clock: Says what time it is.
            random_source: Makes the ends of generated names.
        """
        self.storage = storage
        self._admissions = index_admissions(
            build_admissions(self.peek) if admissions is None else admissions
        )
        self.clock = clock
        self.is_closed = False
        self._random = random_source or random.SystemRandom()
        self._deleter = Deleter(storage, clock=clock)
        self._expiry = EventExpiry(storage)
        self._deleter.sweep()

    def create(
        self,
        resource: Resource,
        manifest: Manifest,
        *,
        namespace: str | None = None,
        dry_run: bool = False,
    ) -> StoredObject:
        """Store a new object; takes `manifest` over.

        Raises:
            AlreadyExistsError: The name is taken.
            NotFoundError: The namespace is missing.
            InvalidError: A field is wrong.
        """
        objects.check_shape(resource, manifest)
        namespace = objects.settle_namespace(resource, manifest, namespace=namespace)
        if resource.namespaced:
            self._check_namespace(resource, manifest, namespace)
        generated = not manifest["metadata"].get("name")
        for attempt in range(1, _NAME_ATTEMPTS + 1):
            objects.prepare_new(resource, manifest, now=self.now(), random_source=self._random)
            name = manifest["metadata"].get("name", "")
            if self.storage.get(resource, namespace, name) is None:
                break
            if not generated or attempt == _NAME_ATTEMPTS:
                raise refusals.already_exists(resource, name)
            del manifest["metadata"]["name"]
        objects.validate_metadata(resource, manifest)
        manifest = self._admit(resource, manifest, None)
        if dry_run:
            return _unstored(resource, manifest)
        if resource is EVENTS:
            self._expiry.remove_old(self.clock())
        stored = self.storage.put(resource, manifest)
        self._deleter.collect(stored)
        return stored

    def get(self, resource: Resource, name: str, *, namespace: str = "") -> StoredObject:
        """The stored object.

        Raises:
            NotFoundError: There is none.
        """
        stored = self.storage.get(resource, namespace, name)
        if stored is None:
            raise refusals.not_found(resource, name)
        return stored

    def peek(self, resource: Resource, name: str, *, namespace: str = "") -> Manifest | None:
        """The stored object as a manifest of the caller's own, None when there is none."""
        stored = self.storage.get(resource, namespace, name)
        return None if stored is None else stored.load()

    def list(self, resource: Resource, selection: Selection) -> tuple[StoredObject, ...]:
        """The selected objects, by namespace and name; current as of `storage.resource_version`."""
        if selection.name is not None and selection.namespace is not None:
            stored = self.storage.get(resource, selection.namespace, selection.name)
            candidates: Iterable[StoredObject] = () if stored is None else (stored,)
        else:
            candidates = self.storage.iterate(resource, selection.namespace)
        if not selection.requirements:
            return tuple(candidates)
        return tuple(stored for stored in candidates if selection.matches(stored))

    def watch(
        self, resource: Resource, selection: Selection, *, resource_version: str = ""
    ) -> Watch:
        """Start to watch; an empty or zero version starts with what exists.

        Raises:
            ApiError: 400, the version is no number; ExpiredError, it is too old.
        """
        if resource_version in ("", "0"):
            return Watch(self.storage, resource, selection=selection)
        if not resource_version.isdecimal():
            raise refusals.bad_request(
                f'invalid resource version "{resource_version}": it must be a number'
            )
        return Watch(
            self.storage, resource, selection=selection, resource_version=int(resource_version)
        )

    def replace(
        self,
        resource: Resource,
        manifest: Manifest,
        *,
        name: str,
        namespace: str = "",
        subresource: str = "",
        dry_run: bool = False,
    ) -> StoredObject:
        """Store a new version of an object, or of its status; takes `manifest` over.

        Raises:
            NotFoundError: There is no such object.
            ConflictError: It changed since the caller read it.
            InvalidError: A field is wrong.
        """
        stored = self.get(resource, name, namespace=namespace)
        objects.check_shape(resource, manifest)
        objects.settle_namespace(
            resource, manifest, namespace=namespace if resource.namespaced else None
        )
        return self._update(stored, manifest, subresource=subresource, dry_run=dry_run)

    def patch(
        self,
        resource: Resource,
        body: Any,  # any JSON: what the patch type says
        *,
        name: str,
        patch_type: PatchType,
        namespace: str = "",
        subresource: str = "",
        dry_run: bool = False,
        field_manager: str = "",
        force: bool = False,
    ) -> StoredObject:
        """Change an object, or its status, by a patch; an apply creates what is missing.

        Raises:
            NotFoundError: There is no such object.
            ConflictError: The patch carries an older resourceVersion, or applies what another
                manager owns.
            InvalidError: The result breaks a rule.
            ApiError: 400 or 415, the patch cannot be used on this kind.
        """
        stored = self.storage.get(resource, namespace, name)
        if patch_type is PatchType.APPLY:
            live = {"metadata": {"name": name}} if stored is None else stored.load()
            manifest = self._apply(resource, live, body, manager=field_manager, force=force)
        elif stored is None:
            raise refusals.not_found(resource, name)
        else:
            manifest = apply_patch(resource, stored.load(), body, patch_type=patch_type)
        if stored is None:
            return self.create(resource, manifest, namespace=namespace or None, dry_run=dry_run)
        objects.check_shape(resource, manifest)
        objects.settle_namespace(
            resource, manifest, namespace=namespace if resource.namespaced else None
        )
        manifest["metadata"].setdefault("resourceVersion", str(stored.resource_version))
        return self._update(stored, manifest, subresource=subresource, dry_run=dry_run)

    def delete(
        self,
        resource: Resource,
        *,
        name: str,
        namespace: str = "",
        options: DeleteOptions | None = None,
    ) -> StoredObject | None:
        """Delete an object.

        Returns:
            The object while something holds it, None when it is gone.

        Raises:
            NotFoundError: There is no such object.
            ConflictError: It is not in the version, or not the one, that `options` ask for.
        """
        options = options or DeleteOptions()
        stored = self.get(resource, name, namespace=namespace)
        preconditions = {"uid": options.uid, "resourceVersion": options.resource_version}
        objects.check_preconditions(resource, stored.load(), preconditions)
        if resource is NAMESPACES and name in _KEPT_NAMESPACES:
            raise refusals.forbidden(resource, name, "this namespace may not be deleted")
        return stored if options.dry_run else self._deleter.delete(stored, options)

    def delete_collection(
        self, resource: Resource, selection: Selection, *, options: DeleteOptions | None = None
    ) -> tuple[StoredObject, ...]:
        """Delete every selected object and return what they were."""
        chosen = self.list(resource, selection)
        for stored in chosen:
            if self.storage.get(resource, stored.namespace, stored.name) is not None:
                self.delete(resource, name=stored.name, namespace=stored.namespace, options=options)
        return chosen

    def warnings(self, stored: StoredObject) -> tuple[str, ...]:
        """What to tell the client's user about an object that was accepted."""
        admission = self._admissions.get(stored.resource)
        return () if admission is None else tuple(admission.warn(stored.load()))

    def close(self) -> None:
        """End all watches; call before the HTTP server waits for its connections to end."""
        self.is_closed = True
        for log in self.storage.logs.values():
            log.wake()

    def now(self) -> str:
        """The present as a timestamp of the API."""
        return self.clock().strftime("%Y-%m-%dT%H:%M:%SZ")

    def _apply(
        self, resource: Resource, live: Manifest, body: Any, *, manager: str, force: bool
    ) -> Manifest:  # body: any JSON
        objects.check_shape(resource, body)
        request = ApplyRequest(configuration=body, manager=manager, force=force, now=self.now())
        return apply_configuration(resource, live, request)

    def _update(
        self, stored: StoredObject, manifest: Manifest, *, subresource: str, dry_run: bool
    ) -> StoredObject:
        resource = stored.resource
        old = stored.load()
        manifest = objects.prepare_update(resource, manifest, old, subresource=subresource)
        if not subresource:
            objects.validate_metadata(resource, manifest)
            manifest = self._admit(resource, manifest, old)
        if manifest == stored.load():
            return stored
        if dry_run:
            return _unstored(resource, manifest)
        metadata = manifest["metadata"]
        if "deletionTimestamp" in metadata and not metadata.get("finalizers"):
            remaining = self._deleter.finish(stored, manifest)
            if remaining is None:
                return _unstored(resource, manifest)
        updated = self.storage.put(resource, manifest)
        if not subresource:
            self._deleter.collect(updated)
        return updated

    def _admit(self, resource: Resource, manifest: Manifest, old: Manifest | None) -> Manifest:
        admission = self._admissions.get(resource)
        if admission is not None:
            manifest = admission.default(manifest)
            admission.validate(manifest, old)
        return manifest

    def _check_namespace(self, resource: Resource, manifest: Manifest, namespace: str) -> None:
        stored = self.storage.get(NAMESPACES, "", namespace)
        if stored is None:
            raise refusals.namespace_not_found(namespace)
        if (
            b'"deletionTimestamp"' in stored.raw
            and "deletionTimestamp" in stored.load()["metadata"]
        ):
            raise refusals.forbidden(
                resource,
                manifest["metadata"].get("name", ""),
                f"unable to create new content in namespace {namespace} because it is being "
                "terminated",
            )


def apply_patch(
    resource: Resource, manifest: Manifest, body: Any, *, patch_type: PatchType
) -> Any:  # body: any JSON; the result is checked by the caller
    """The patched object.

    Raises:
        ApiError: 415, the kind does not take this type of patch; 400 or 422, a bad patch.
    """
    if patch_type is PatchType.JSON:
        return apply_json_patch(manifest, body)
    if not isinstance(body, dict):
        raise refusals.bad_request(f"a body of type {patch_type.value} is an object")
    if patch_type is PatchType.MERGE:
        return apply_merge_patch(manifest, body)
    if patch_type is PatchType.STRATEGIC and resource.is_builtin:
        return apply_strategic_patch(manifest, body)
    accepted = [PatchType.JSON.value, PatchType.MERGE.value]
    if resource.is_builtin:
        accepted.append(PatchType.STRATEGIC.value)
    raise refusals.unsupported_media_type(accepted)


def ensure_namespace(api: ApiServer, name: str, *, labels: dict[str, str] | None = None) -> None:
    """Create a namespace unless it is there."""
    manifest: Manifest = {"metadata": {"name": name, "labels": labels or {}}}
    try:
        api.create(NAMESPACES, manifest)
    except AlreadyExistsError:
        return


def _unstored(resource: Resource, manifest: Manifest) -> StoredObject:
    manifest["metadata"].setdefault("resourceVersion", "0")
    return index_object(resource, manifest)
