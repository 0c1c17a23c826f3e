"""Deletes the very object that a reconciler looked at, not another one that got its name since."""

from __future__ import annotations

from kubeloop.errors import ConflictError, NotFoundError
from kubeloop.local.api.resources import Resource
from kubeloop.local.client import Client, Manifest, Propagation


async def delete_this(
    client: Client,
    resource: Resource,
    manifest: Manifest,
    *,
    propagation: Propagation = Propagation.BACKGROUND,
) -> bool:
    """Delete an object as it was read; says whether it was still there."""
    metadata = manifest["metadata"]
    try:
        await client.delete(
            resource,
            metadata["name"],
            namespace=metadata["namespace"],
            propagation=propagation,
            uid=metadata["uid"],
        )
    except (NotFoundError, ConflictError):
        return False  # it is gone, or another object has its name
    return True
