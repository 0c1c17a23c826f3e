"""Query parameters and headers of requests, read into typed options."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from kubeloop.errors import ApiError
from kubeloop.local.api import refusals
from kubeloop.local.api.deletion import DeleteOptions
from kubeloop.local.api.events import StoredObject, build_expired_error
from kubeloop.local.api.storage import ObjectStorage
from kubeloop.local.api.streaming import WatchOptions
from kubeloop.local.api.tables import TableOptions
from kubeloop.local.client import Manifest, Propagation

_TRUE = ("true", "1", "True", "t")
_FALSE = ("", "false", "0", "False", "f")
_DRY_RUN = "All"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A part of a list."""

    items: Sequence[StoredObject]
    resource_version: int
    continue_token: str = ""
    num_remaining: int = 0


class Query:
    """The query parameters of one request. Every reader raises a 400 on a value it cannot use."""

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self._parameters = parameters

    def text(self, name: str) -> str:
        """A parameter as it is, empty when it is not given."""
        return self._parameters.get(name, "")

    def flag(self, name: str) -> bool:
        """A parameter that is true or false."""
        value = self.text(name)
        if value not in (*_TRUE, *_FALSE):
            raise refusals.bad_request(f"{name}={value!r} must be true or false")
        return value in _TRUE

    def number(self, name: str) -> int | None:
        """A parameter that is a whole number from 0 up, None when it is not given."""
        value = self.text(name)
        if not value:
            return None
        if not value.isdecimal():
            raise refusals.bad_request(f"{name}={value!r} must be a whole number from 0 up")
        return int(value)

    def since(self, *, now: float) -> float | None:
        """When what is asked for begins, in seconds since the epoch; None: at the beginning."""
        seconds, text = self.number("sinceSeconds"), self.text("sinceTime")
        if seconds is not None and text:
            raise refusals.bad_request(
                "at most one of `sinceTime` or `sinceSeconds` may be specified"
            )
        try:
            moment = datetime.fromisoformat(text).timestamp() if text else None
        except ValueError:
            raise refusals.bad_request(f"sinceTime={text!r} must be a time, RFC 3339") from None
        return moment if seconds is None else now - seconds

    @property
    def dry_run(self) -> bool:
        """Whether to answer without storing."""
        return _is_dry_run(self.text("dryRun") or None)

    def watch_options(self) -> WatchOptions:
        """What a watch asks for."""
        return WatchOptions(
            resource_version=self.text("resourceVersion"),
            timeout_seconds=self.number("timeoutSeconds") or None,
            bookmarks=self.flag("allowWatchBookmarks"),
            initial_events_end=self.flag("sendInitialEvents"),
        )

    def names_propagation(self, body: Any) -> bool:  # body: any JSON
        """Whether a DELETE says what becomes of dependents."""
        given = body if isinstance(body, dict) else {}
        return bool(
            self.text("propagationPolicy")
            or given.get("propagationPolicy")
            or given.get("orphanDependents") is not None
        )

    def delete_options(self, body: Manifest) -> DeleteOptions:
        """What a DELETE asks for, in its DeleteOptions body or else in the query."""
        policy = body.get("propagationPolicy") or self.text("propagationPolicy")
        if not policy and body.get("orphanDependents"):
            policy = Propagation.ORPHAN.value
        try:
            propagation = Propagation(policy) if policy else Propagation.BACKGROUND
        except ValueError:
            accepted = ", ".join(choice.value for choice in Propagation)
            raise refusals.bad_request(
                f"invalid propagationPolicy {policy!r}; accepted are {accepted}"
            ) from None
        grace = body.get("gracePeriodSeconds")
        if grace is None:
            grace = self.number("gracePeriodSeconds")
        preconditions = body.get("preconditions") or {}
        return DeleteOptions(
            propagation=propagation,
            grace_period_seconds=grace,
            uid=preconditions.get("uid") or "",
            resource_version=preconditions.get("resourceVersion") or "",
            dry_run=self.dry_run or _is_dry_run(body.get("dryRun")),
        )

    def page(self, selected: Sequence[StoredObject], *, storage: ObjectStorage) -> Page:
        """The part of a list that `limit` and `continue` ask for.

        Later parts are read from what is stored then, but carry the first part's resourceVersion:
        a watch from there brings everything that changed in between.

        Raises:
            ExpiredError: What changed since the first part is no longer known.
        """
        version = storage.resource_version
        if token := self.text("continue"):
            version, after = _parse_continue(token)
            if selected and version < storage.logs[selected[0].resource].floor:
                floor = storage.logs[selected[0].resource].floor
                raise build_expired_error(version, floor)
            selected = [s for s in selected if (s.namespace, s.name) > after]
        limit = self.number("limit") or len(selected)
        items = selected[:limit]
        num_remaining = len(selected) - len(items)
        return Page(
            items=items,
            resource_version=version,
            continue_token=_build_continue(version, items[-1]) if num_remaining else "",
            num_remaining=num_remaining,
        )


def parse_accept(header: str, *, include_object: str) -> TableOptions | None:
    """Whether the client wants a Table, and which; None: the objects as JSON.

    Raises:
        ApiError: 406, the client takes neither.
    """
    for media_range in header.split(",") if header else ("*/*",):
        media_type, *parts = (part.strip() for part in media_range.split(";"))
        if media_type not in ("application/json", "application/*", "*/*"):
            continue
        parameters = dict(part.split("=", 1) for part in parts if "=" in part)
        wanted = parameters.get("as")
        if wanted is None:
            return None
        if wanted == "Table" and parameters.get("v") in ("v1", "v1beta1"):
            return TableOptions(
                api_version=f"{parameters.get('g', 'meta.k8s.io')}/{parameters['v']}",
                include_object=include_object or "Metadata",
            )
    raise ApiError(
        "only the following media types are accepted: application/json, "
        "application/json;as=Table;v=v1;g=meta.k8s.io",
        status=406,
        reason="NotAcceptable",
    )


def _is_dry_run(value: Any) -> bool:  # a text, a list of texts or nothing
    values = [value] if isinstance(value, str) else list(value or ())
    if any(entry != _DRY_RUN for entry in values):
        raise refusals.bad_request(f"invalid dryRun {value!r}; accepted is {_DRY_RUN}")
    return bool(values)


def _build_continue(version: int, last: StoredObject) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([version, last.namespace, last.name])).decode()


def _parse_continue(token: str) -> tuple[int, tuple[str, str]]:
    try:
        version, namespace, name = orjson.loads(base64.urlsafe_b64decode(token))
        return int(version), (str(namespace), str(name))
    except (ValueError, TypeError, binascii.Error) as error:
        raise refusals.bad_request(f"continue token {token!r} is not valid") from error
