"""What the server does to every object before it is stored, whatever the kind.

Pure functions from what the client sent (and what is stored) to what will be stored.
"""

from __future__ import annotations

import random
import uuid
from typing import Any

from kubeloop.errors import ApiError
from kubeloop.local.api import refusals
from kubeloop.local.api.naming import check_metadata, generate_name
from kubeloop.local.api.refusals import value_forbidden, value_invalid
from kubeloop.local.api.resources import Resource
from kubeloop.local.client import Manifest

STATUS = "status"
_SERVER_FIELDS = ("creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp",
                  "generation", "uid")  # fmt: skip
_NOT_SPEC = ("apiVersion", "kind", "metadata", "status")


def check_shape(resource: Resource, manifest: Any) -> None:  # Any: what a client sent
    """Refuse what is not an object of this kind at all.

    Raises:
        ApiError: 400 with what was expected.
    """
    if not isinstance(manifest, dict):
        raise refusals.bad_request(f"the body must be a {resource.kind} object")
    for part, expected in (("apiVersion", resource.api_version), ("kind", resource.kind)):
        given = manifest.setdefault(part, expected)
        if given != expected:
            raise refusals.bad_request(
                f"the {part} of the object ({given}) does not match the request's ({expected})"
            )
    metadata = manifest.setdefault("metadata", {})
    if not isinstance(metadata, dict):
        raise refusals.bad_request("metadata must be an object")
    for part, kinds in (
        ("name", str), ("generateName", str), ("namespace", str), ("labels", dict),
        ("annotations", dict), ("finalizers", list), ("ownerReferences", list),
    ):  # fmt: skip
        if metadata.get(part) is None:
            metadata.pop(part, None)
        elif not isinstance(metadata[part], kinds):
            raise refusals.bad_request(
                f"metadata.{part} must be of type {kinds.__name__}, not {metadata[part]!r}"
            )


def settle_namespace(resource: Resource, manifest: Manifest, *, namespace: str | None) -> str:
    """Agree the object's namespace with the request's and return it, empty for cluster scope.

    Raises:
        ApiError: 400, the two differ.
    """
    metadata = manifest["metadata"]
    if not resource.namespaced:
        metadata.pop("namespace", None)
        return ""
    given = metadata.get("namespace") or namespace or "default"
    if namespace is not None and given != namespace:
        raise refusals.bad_request(
            f"the namespace of the object ({given}) does not match the namespace on the "
            f"request ({namespace})"
        )
    metadata["namespace"] = given
    return str(given)


def prepare_new(
    resource: Resource, manifest: Manifest, *, now: str, random_source: random.Random
) -> None:
    """Fill in what the server owns of a new object.

    Raises:
        ApiError: 400 when it carries a resourceVersion.
    """
    metadata = manifest["metadata"]
    if metadata.get("resourceVersion"):
        raise refusals.bad_request("resourceVersion should not be set on objects to be created")
    for part in (*_SERVER_FIELDS, "selfLink", "resourceVersion"):
        metadata.pop(part, None)
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = generate_name(metadata["generateName"], random_source=random_source)
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = now
    if resource.has_status:
        manifest.pop(STATUS, None)
        if resource.group:
            metadata["generation"] = 1


def prepare_update(
    resource: Resource, manifest: Manifest, old: Manifest, *, subresource: str = ""
) -> Manifest:
    """The object as it will be stored: what the client may change from `manifest`, the rest old.

    Raises:
        ApiError: 400 for another name; ConflictError for a stale version or another uid.
        InvalidError: A field that may not change, or a missing resourceVersion.
    """
    metadata, old_metadata = manifest["metadata"], old["metadata"]
    name = old_metadata["name"]
    if metadata.setdefault("name", name) != name:
        raise refusals.bad_request(
            f"the name of the object ({metadata['name']}) does not match the name on the URL "
            f"({name})"
        )
    _check_version(resource, metadata, old_metadata)
    if subresource == STATUS:
        updated = dict(old)
        updated.pop(STATUS, None)
        if manifest.get(STATUS) is not None:
            updated[STATUS] = manifest[STATUS]
        return updated
    for part in _SERVER_FIELDS:
        metadata.pop(part, None)
        if part in old_metadata:
            metadata[part] = old_metadata[part]
    metadata["resourceVersion"] = old_metadata["resourceVersion"]
    metadata.pop("selfLink", None)
    _check_finalizers(resource, metadata, old_metadata)
    if resource.has_status:
        manifest.pop(STATUS, None)
        if STATUS in old:
            manifest[STATUS] = old[STATUS]
    if "generation" in old_metadata and _spec_of(manifest) != _spec_of(old):
        metadata["generation"] = old_metadata["generation"] + 1
    return manifest


def validate_metadata(resource: Resource, manifest: Manifest) -> None:
    """Raise InvalidError with every fault of the metadata."""
    faults = list(check_metadata(resource, manifest["metadata"]))
    if faults:
        raise refusals.invalid(resource, manifest["metadata"].get("name", ""), faults)


def _check_version(resource: Resource, metadata: Manifest, old_metadata: Manifest) -> None:
    name = old_metadata["name"]
    version = metadata.get("resourceVersion")
    if not version:
        if not resource.is_builtin:
            fault = value_invalid("metadata.resourceVersion", 0, "must be specified for an update")
            raise refusals.invalid(resource, name, [fault])
    elif version != old_metadata["resourceVersion"]:
        raise refusals.conflict(resource, name)
    uid = metadata.get("uid")
    if uid and uid != old_metadata["uid"]:
        raise _uid_conflict(resource, name, asked=uid, stored=old_metadata["uid"])


def _uid_conflict(resource: Resource, name: str, *, asked: str, stored: str) -> ApiError:
    return refusals.conflict(
        resource,
        name,
        f"Precondition failed: UID in precondition: {asked}, UID in object meta: {stored}",
    )


def check_preconditions(resource: Resource, stored: Manifest, preconditions: Manifest) -> None:
    """Raise ConflictError unless the stored object has the uid and version asked for."""
    metadata = stored["metadata"]
    uid, version = preconditions.get("uid"), preconditions.get("resourceVersion")
    if uid and uid != metadata["uid"]:
        raise _uid_conflict(resource, metadata["name"], asked=uid, stored=metadata["uid"])
    if version and version != metadata["resourceVersion"]:
        raise refusals.conflict(
            resource,
            metadata["name"],
            f"Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion "
            f"in object meta: {metadata['resourceVersion']}",
        )


def _check_finalizers(resource: Resource, metadata: Manifest, old_metadata: Manifest) -> None:
    if "deletionTimestamp" not in old_metadata:
        return
    added = set(metadata.get("finalizers") or ()) - set(old_metadata.get("finalizers") or ())
    if added:
        fault = value_forbidden(
            "metadata.finalizers",
            "no new finalizers can be added if the object is being deleted, found new "
            f"finalizers {sorted(added)}",
        )
        raise refusals.invalid(resource, metadata["name"], [fault])


def _spec_of(manifest: Manifest) -> Manifest:
    return {key: value for key, value in manifest.items() if key not in _NOT_SPEC}
