"""Which resource a URL path of the Kubernetes API means."""

from __future__ import annotations

from dataclasses import dataclass

from kubeloop.errors import ApiError, NotFoundError
from kubeloop.local.api.resources import NAMESPACES, Resource, find_by_plural

_NAMESPACE_SUBRESOURCES = ("status", "finalize")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A collection, an object, or a part of an object."""

    resource: Resource
    namespace: str | None = None
    """None: cluster scope, or a collection across all namespaces."""

    name: str = ""
    subresource: str = ""
    rest: str = ""
    """What follows the subresource, for proxies."""


def parse_target(path: str) -> Target:
    """Read `/api/v1/…` or `/apis/{group}/{version}/…`.

    Raises:
        NotFoundError: The path is none of a served resource.
    """
    parts = path.strip("/").split("/")
    if parts[0] == "api":
        group, version, rest = "", parts[1] if len(parts) > 1 else "", parts[2:]
    else:
        group, version, rest = (*parts[1:3], "", "")[0], (*parts[1:3], "", "")[1], parts[3:]
    namespace: str | None = None
    if rest[:1] == ["namespaces"] and len(rest) > 2 and not _is_of_namespace(rest):
        namespace, rest = rest[1], rest[2:]
    resource = find_by_plural(group, version, rest[0]) if rest else None
    if resource is None:
        raise build_path_error()
    if namespace is not None and not resource.namespaced:
        raise build_path_error()
    name, subresource = (*rest[1:3], "", "")[:2]
    if name and resource.namespaced and namespace is None:
        raise build_path_error()
    return Target(
        resource=resource,
        namespace=namespace,
        name=name,
        subresource=subresource,
        rest="/".join(rest[3:]),
    )


def build_path_error() -> ApiError:
    """The 404 of a path that means nothing here."""
    return NotFoundError("the server could not find the requested resource")


def _is_of_namespace(rest: list[str]) -> bool:
    """Whether `namespaces/x/y` is a subresource of namespace x rather than a kind in it."""
    return len(rest) == 3 and rest[2] in _NAMESPACE_SUBRESOURCES and NAMESPACES.namespaced is False
