"""Writes core/v1 Events, as `kubectl describe` and the SDKs read them.

The same thing said again about the same object is one Event with a higher `count`. Its name is a
digest of what it says, so that the repeat is found without searching. Like upstream's recorder,
recording never fails the caller: an Event that cannot be written is dropped.
"""

from __future__ import annotations

import hashlib
import logging
from datetime import datetime
from typing import Literal

from kubeloop.errors import AlreadyExistsError, ApiError, ConflictError, TransientError
from kubeloop.local.api.resources import EVENTS
from kubeloop.local.client import Client, Manifest
from kubeloop.local.operators.conditions import format_time, utc_now

logger = logging.getLogger(__name__)

_MAX_NAME_LENGTH = 253
_NUM_ATTEMPTS = 5


async def record_event(
    client: Client,
    about: Manifest,
    *,
    type: Literal["Normal", "Warning"],  # noqa: A002  # the field's name
    reason: str,
    message: str,
    component: str,
    now: datetime | None = None,
) -> None:
    """Say that something happened to the object `about`.

    Args:
        client: Where to write.
        about: The object; needs apiVersion, kind and metadata with name and uid.
        type: Normal, or Warning for what a person should look at.
        reason: One CamelCase word that machines match on.
        message: One sentence for people.
        component: Who says it, such as `pytorchjob-controller`.
        now: When it happened; the present when None.
    """
    event = _build_event(
        about,
        type_=type,
        reason=reason,
        message=message,
        component=component,
        stamp=format_time(now or utc_now()),
    )
    try:
        try:
            await client.create(event)
        except AlreadyExistsError:
            await _count_again(client, event)
    except (ApiError, TransientError) as error:
        logger.debug(
            "event dropped",
            extra={
                "kind": about["kind"],
                "namespace": event["metadata"]["namespace"],
                "object_name": about["metadata"]["name"],
                "cause": error,
            },
        )


async def _count_again(client: Client, event: Manifest) -> None:
    metadata = event["metadata"]
    for attempt in range(1, _NUM_ATTEMPTS + 1):
        stored = await client.get(EVENTS, metadata["name"], namespace=metadata["namespace"])
        stored["count"] = stored.get("count", 1) + 1
        stored["lastTimestamp"] = event["lastTimestamp"]
        try:
            await client.replace(stored)
        except ConflictError:
            if attempt == _NUM_ATTEMPTS:
                raise
        else:
            return


def _build_event(
    about: Manifest, *, type_: str, reason: str, message: str, component: str, stamp: str
) -> Manifest:
    metadata = about["metadata"]
    involved = {
        "apiVersion": about["apiVersion"],
        "kind": about["kind"],
        "name": metadata["name"],
        "uid": metadata.get("uid", ""),
        "resourceVersion": metadata.get("resourceVersion", ""),
    }
    if "namespace" in metadata:
        involved["namespace"] = metadata["namespace"]
    said = "\0".join(
        (involved["kind"], involved["name"], involved["uid"], type_, reason, message, component)
    )
    suffix = "." + hashlib.sha256(said.encode()).hexdigest()[:16]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": metadata["name"][: _MAX_NAME_LENGTH - len(suffix)] + suffix,
            "namespace": metadata.get("namespace", "default"),
        },
        "involvedObject": involved,
        "type": type_,
        "reason": reason,
        "message": message,
        "source": {"component": component},
        "reportingComponent": component,
        "reportingInstance": "",
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
    }
