"""Discovery and OpenAPI documents, derived from the table of resources.

The OpenAPI documents say just enough for kubectl to validate on the server, to apply, and to
explain the top level of a kind: every kind is an object whose fields are not listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256

from kubeloop.local.api.resources import PODS, RESOURCES, SERVICES, Resource, groups
from kubeloop.local.client import Manifest, PatchType

KUBERNETES_VERSION = "v1.32.0"
_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
_READ_WRITE = ["get", "patch", "update"]
_REVIEW = "SelfSubjectAccessReview"
REVIEW_GROUP = ("authorization.k8s.io", "v1")


def render_version() -> Manifest:
    """GET /version."""
    major, minor, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"{KUBERNETES_VERSION}+kubeloop",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "2024-12-11T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": "linux/amd64",
    }


def render_core_versions(address: str) -> Manifest:
    """GET /api; `address` is the server's host and port."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def render_group_list() -> Manifest:
    """GET /apis."""
    names = dict.fromkeys(group for group, _ in _served() if group)
    return {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [_render_group(name) for name in names],
    }


def render_group(name: str) -> Manifest | None:
    """GET /apis/{group}; None when it is not served."""
    if not name or all(group != name for group, _ in _served()):
        return None
    return {"kind": "APIGroup", "apiVersion": "v1", **_render_group(name)}


def render_resource_list(group: str, version: str) -> Manifest | None:
    """GET /api/v1 and /apis/{group}/{version}; None when it is not served."""
    if (group, version) not in _served():
        return None
    entries: list[Manifest] = []
    if (group, version) == REVIEW_GROUP:
        entries.append(
            {
                "name": "selfsubjectaccessreviews",
                "singularName": "selfsubjectaccessreview",
                "namespaced": False,
                "kind": _REVIEW,
                "verbs": ["create"],
            }
        )
    for resource in _resources_of(group, version):
        entries += _render_entries(resource)
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": _api_version(group, version),
        "resources": entries,
    }


def render_openapi_index() -> Manifest:
    """GET /openapi/v3."""
    paths = {}
    for group, version in groups():
        path = _root_path(group, version)
        digest = sha256(repr(tuple(_resources_of(group, version))).encode()).hexdigest()[:32]
        paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest.upper()}"}
    return {"paths": paths}


def render_openapi(group: str, version: str) -> Manifest | None:
    """GET /openapi/v3/api/v1 and /openapi/v3/apis/{group}/{version}; None when not served."""
    if (group, version) not in groups():
        return None
    paths: Manifest = {}
    schemas: Manifest = {}
    for resource in _resources_of(group, version):
        paths[_object_path(resource)] = _render_path(resource)
        schemas[_schema_name(resource)] = _render_schema(resource)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": KUBERNETES_VERSION},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _served() -> tuple[tuple[str, str], ...]:
    return (*groups(), REVIEW_GROUP)


def _resources_of(group: str, version: str) -> Iterator[Resource]:
    return (r for r in RESOURCES if (r.group, r.version) == (group, version))


def _render_group(name: str) -> Manifest:
    versions = [
        {"groupVersion": f"{name}/{version}", "version": version}
        for group, version in _served()
        if group == name
    ]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def _render_entries(resource: Resource) -> Iterator[Manifest]:
    entry: Manifest = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": _VERBS,
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    yield entry
    if resource.has_status:
        yield _render_subresource(resource, "status", _READ_WRITE)
    if resource.scale:
        scale = {"group": "autoscaling", "version": "v1", "kind": "Scale"}
        yield {**_render_subresource(resource, "scale", _READ_WRITE), **scale}
    if resource is PODS:
        yield _render_subresource(resource, "log", ["get"])
    if resource is SERVICES:
        kind = {"kind": "ServiceProxyOptions"}
        verbs = ["create", "delete", "get", "patch", "update"]
        yield {**_render_subresource(resource, "proxy", verbs), **kind}


def _render_subresource(resource: Resource, name: str, verbs: Iterable[str]) -> Manifest:
    return {
        "name": f"{resource.plural}/{name}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(verbs),
    }


def _render_path(resource: Resource) -> Manifest:
    identity = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    patch_types = [PatchType.JSON, PatchType.MERGE, PatchType.APPLY]
    parameters = [
        {"name": name, "in": "query", "schema": {"type": type_, "uniqueItems": True}}
        for name, type_ in (
            ("dryRun", "string"),
            ("fieldManager", "string"),
            ("fieldValidation", "string"),
            ("force", "boolean"),
        )
    ]
    reference = {"$ref": f"#/components/schemas/{_schema_name(resource)}"}
    return {
        "patch": {
            "parameters": parameters,
            "requestBody": {"content": {t.value: {"schema": {}} for t in patch_types}},
            "responses": {
                "200": {
                    "description": "OK",
                    "content": {"application/json": {"schema": reference}},
                }
            },
            "x-kubernetes-action": "patch",
            "x-kubernetes-group-version-kind": identity,
        }
    }


def _render_schema(resource: Resource) -> Manifest:
    text, anything = {"type": "string"}, {"x-kubernetes-preserve-unknown-fields": True}
    properties: Manifest = {
        "apiVersion": text,
        "kind": text,
        "metadata": {"type": "object", **anything},
        "spec": {"type": "object", **anything},
    }
    if resource.has_status:
        properties["status"] = {"type": "object", **anything}
    return {
        "type": "object",
        "description": f"{resource.kind} of {resource.api_version}.",
        "properties": properties,
        "x-kubernetes-group-version-kind": [
            {"group": resource.group, "version": resource.version, "kind": resource.kind}
        ],
        **anything,
    }


def _object_path(resource: Resource) -> str:
    scope = "/namespaces/{namespace}" if resource.namespaced else ""
    root = _root_path(resource.group, resource.version)
    return f"/{root}{scope}/{resource.plural}/{{name}}"


def _root_path(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _api_version(group: str, version: str) -> str:
    return f"{group}/{version}" if group else version


def _schema_name(resource: Resource) -> str:
    if resource.is_builtin:
        group = resource.group.split(".")[0] or "core"
        return f"io.k8s.api.{group}.{resource.version}.{resource.kind}"
    reversed_group = ".".join(reversed(resource.group.split(".")))
    return f"{reversed_group}.{resource.version}.{resource.kind}"
