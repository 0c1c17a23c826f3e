"""The HTTP side of the verbs: reads a request, calls the verb, renders its answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson
import yaml
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from kubeloop.errors import ApiError, ExpiredError
from kubeloop.local.api import refusals
from kubeloop.local.api.deletion import DeleteOptions
from kubeloop.local.api.events import StoredObject
from kubeloop.local.api.logs import (
    LogOptions,
    PodLogs,
    choose_container,
    container_status,
    has_ended,
)
from kubeloop.local.api.paths import Target, build_path_error
from kubeloop.local.api.protobuf import MEDIA_TYPE, parse_protobuf
from kubeloop.local.api.proxy import ServiceProxies
from kubeloop.local.api.queries import Query, parse_accept
from kubeloop.local.api.rendering import Renderer
from kubeloop.local.api.resources import JOBS, PODS, SERVICES
from kubeloop.local.api.scale import apply_scale, render_scale
from kubeloop.local.api.selectors import Selection, parse_selection
from kubeloop.local.api.streaming import StreamResponse, stream_watch
from kubeloop.local.api.verbs import ApiServer, apply_patch
from kubeloop.local.api.watching import Watch
from kubeloop.local.client import PatchType, Propagation

_MAX_BODY = 3 << 20
_JOB_WARNING = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background "
    "to remove them or set propagationPolicy=Orphan to suppress this warning"
)


class Handlers:
    """Answers requests for resources."""

    def __init__(self, api: ApiServer, *, logs: PodLogs, proxies: ServiceProxies) -> None:
        self._api = api
        self._logs = logs
        self._proxies = proxies

    async def handle(self, request: Request, target: Target) -> ASGIApp:
        """The answer to a request for `target`.

        Raises:
            ApiError: What to answer instead.
        """
        if target.subresource == "proxy" and target.resource is SERVICES:
            return await self._proxies.forward(
                request,
                namespace=target.namespace or "",
                service=target.name,
                path=target.rest.lstrip("/"),
            )
        query = Query(request.query_params)
        if not target.name:
            return await self._handle_collection(request, target, query)
        if not target.subresource or (
            target.subresource == "status" and target.resource.has_status
        ):
            return await self._handle_object(request, target, query)
        if target.subresource == "scale" and target.resource.scale:
            return await self._handle_scale(request, target, query)
        if target.subresource == "log" and target.resource is PODS and request.method == "GET":
            return self._read_log(target, query)
        raise build_path_error()

    async def _handle_collection(self, request: Request, target: Target, query: Query) -> Response:
        if request.method == "GET":
            if query.flag("watch"):
                return self._watch(request, target, query)
            return self._list(request, target, query)
        if request.method == "POST":
            return await self._create(request, target, query)
        if request.method == "DELETE":
            return await self._delete_collection(request, target, query)
        raise _method_not_allowed()

    async def _handle_object(self, request: Request, target: Target, query: Query) -> Response:
        if request.method == "GET":
            stored = self._get(target)
            return self._render_one(request, stored)
        if request.method == "PUT":
            return await self._replace(request, target, query)
        if request.method == "PATCH":
            return await self._patch(request, target, query)
        if request.method == "DELETE" and not target.subresource:
            return await self._delete(request, target, query)
        raise _method_not_allowed()

    def _get(self, target: Target) -> StoredObject:
        return self._api.get(target.resource, target.name, namespace=target.namespace or "")

    def _list(self, request: Request, target: Target, query: Query) -> Response:
        renderer = self._renderer(request, target)
        selected = self._api.list(target.resource, _parse_selection(target, query))
        page = query.page(selected, storage=self._api.storage)
        return json_response(renderer.render_list(page))

    def _watch(self, request: Request, target: Target, query: Query) -> Response:
        renderer = self._renderer(request, target)
        selection = _parse_selection(target, query)
        options = query.watch_options()
        watch: Watch | ExpiredError
        try:
            watch = self._api.watch(
                target.resource, selection, resource_version=options.resource_version
            )
        except ExpiredError as error:
            watch = error
        lines = stream_watch(
            self._api,
            watch,
            options=options,
            render=renderer.render_event,
            bookmark=renderer.render_bookmark,
        )
        return StreamResponse(lines, media_type="application/json")

    async def _create(self, request: Request, target: Target, query: Query) -> Response:
        if target.resource.namespaced and target.namespace is None:
            raise _method_not_allowed()
        manifest = await read_body(request)
        stored = self._api.create(
            target.resource, manifest, namespace=target.namespace, dry_run=query.dry_run
        )
        return self._render_one(request, stored, status_code=201)

    async def _replace(self, request: Request, target: Target, query: Query) -> Response:
        stored = self._api.replace(
            target.resource,
            await read_body(request),
            name=target.name,
            namespace=target.namespace or "",
            subresource=target.subresource,
            dry_run=query.dry_run,
        )
        return self._render_one(request, stored)

    async def _patch(self, request: Request, target: Target, query: Query) -> Response:
        patch_type = _patch_type(request)
        body = await read_body(request)
        existed = self._exists(target)
        stored = self._api.patch(
            target.resource,
            body,
            name=target.name,
            namespace=target.namespace or "",
            patch_type=patch_type,
            subresource=target.subresource,
            dry_run=query.dry_run,
            field_manager=query.text("fieldManager"),
            force=query.flag("force"),
        )
        return self._render_one(request, stored, status_code=200 if existed else 201)

    async def _delete(self, request: Request, target: Target, query: Query) -> Response:
        options, warnings = self._delete_options(target, query, await read_body(request))
        before = self._get(target)
        remaining = self._api.delete(
            target.resource, name=target.name, namespace=target.namespace or "", options=options
        )
        if remaining is not None and not options.dry_run:
            return self._render_one(request, remaining, warnings=warnings)
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": {
                "name": before.name,
                "group": target.resource.group,
                "kind": target.resource.plural,
                "uid": before.uid,
            },
        }
        return json_response(orjson.dumps(status), warnings=warnings)

    async def _delete_collection(self, request: Request, target: Target, query: Query) -> Response:
        options, warnings = self._delete_options(target, query, await read_body(request))
        deleted = self._api.delete_collection(
            target.resource, _parse_selection(target, query), options=options
        )
        page = query.page(deleted, storage=self._api.storage)
        return json_response(self._renderer(request, target).render_list(page), warnings=warnings)

    def _delete_options(
        self, target: Target, query: Query, body: Any
    ) -> tuple[DeleteOptions, tuple[str, ...]]:
        options = query.delete_options(body if isinstance(body, dict) else {})
        if target.resource is JOBS and not query.names_propagation(body):
            orphaning = DeleteOptions(
                propagation=Propagation.ORPHAN,
                grace_period_seconds=options.grace_period_seconds,
                uid=options.uid,
                resource_version=options.resource_version,
                dry_run=options.dry_run,
            )
            return orphaning, (_JOB_WARNING,)
        return options, ()

    async def _handle_scale(self, request: Request, target: Target, query: Query) -> Response:
        scale = target.resource.scale
        assert scale is not None
        stored = self._get(target)
        manifest = stored.load()
        if request.method in ("PUT", "PATCH"):
            body = await read_body(request)
            if request.method == "PATCH":
                body = apply_patch(
                    target.resource,
                    render_scale(scale, manifest),
                    body,
                    patch_type=_patch_type(request),
                )
            apply_scale(target.resource, scale, manifest, body)
            stored = self._api.replace(
                target.resource,
                manifest,
                name=target.name,
                namespace=target.namespace or "",
                dry_run=query.dry_run,
            )
        elif request.method != "GET":
            raise _method_not_allowed()
        return json_response(orjson.dumps(render_scale(scale, stored.load())))

    def _read_log(self, target: Target, query: Query) -> Response:
        pod = self._get(target).load()
        options = LogOptions(
            container=query.text("container"),
            previous=query.flag("previous"),
            follow=query.flag("follow"),
            tail_lines=query.number("tailLines"),
            limit_bytes=query.number("limitBytes"),
            since=query.since(now=self._api.clock().timestamp()),
            timestamps=query.flag("timestamps"),
        )
        if not options.follow:
            return Response(self._logs.read(pod, options), media_type="text/plain")
        container = choose_container(pod, options.container)
        restarts = int(container_status(pod, container).get("restartCount", 0))
        uid = pod["metadata"]["uid"]

        def is_over() -> bool:
            stored = self._api.storage.get(PODS, target.namespace or "", target.name)
            return (
                self._api.is_closed
                or stored is None
                or stored.uid != uid
                or has_ended(stored.load(), container, restarts=restarts)
            )

        chunks = self._logs.follow(pod, options, is_over=is_over)
        return StreamResponse(chunks, media_type="text/plain")

    def _exists(self, target: Target) -> bool:
        namespace = target.namespace or ""
        return self._api.storage.get(target.resource, namespace, target.name) is not None

    def _renderer(self, request: Request, target: Target) -> Renderer:
        return Renderer(
            target.resource,
            table=parse_accept(
                request.headers.get("accept", ""),
                include_object=request.query_params.get("includeObject", ""),
            ),
            clock=self._api.clock,
        )

    def _render_one(
        self,
        request: Request,
        stored: StoredObject,
        *,
        status_code: int = 200,
        warnings: Iterable[str] = (),
    ) -> Response:
        if request.method != "GET":
            warnings = (*warnings, *self._api.warnings(stored))
        target = Target(resource=stored.resource)
        raw = self._renderer(request, target).render_object(stored)
        return json_response(raw, status_code=status_code, warnings=warnings)


def json_response(raw: bytes, *, status_code: int = 200, warnings: Iterable[str] = ()) -> Response:
    """A JSON body, with sentences for the client's user as Warning headers."""
    response = Response(raw, status_code=status_code, media_type="application/json")
    for warning in warnings:
        text = warning.replace("\\", "\\\\").replace('"', '\\"')
        text = text.encode("ascii", "replace").decode()
        response.headers.append("Warning", f'299 - "{text}"')
    return response


async def read_body(request: Request) -> Any:  # any JSON
    """The request's body (JSON, YAML or protobuf), None when it is empty.

    Raises:
        ApiError: 400, it does not parse; 413, it is too big; 415, it cannot be read here.
    """
    raw = b""
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > _MAX_BODY:
            raise ApiError(
                f"Request entity too large: limit is {_MAX_BODY}",
                status=413,
                reason="RequestEntityTooLarge",
            )
    if not raw.strip():
        return None
    content_type = request.headers.get("content-type", "").partition(";")[0].strip()
    if content_type == MEDIA_TYPE:
        return parse_protobuf(raw)
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if not content_type.endswith("yaml"):
            raise refusals.bad_request(f"the body is no valid JSON: {error}") from error
    try:
        return orjson.loads(orjson.dumps(yaml.safe_load(raw)))
    except (yaml.YAMLError, TypeError) as error:
        raise refusals.bad_request(f"the body is no valid YAML: {error}") from error


def _parse_selection(target: Target, query: Query) -> Selection:
    return parse_selection(
        target.resource,
        namespace=target.namespace,
        label_selector=query.text("labelSelector"),
        field_selector=query.text("fieldSelector"),
    )


def _patch_type(request: Request) -> PatchType:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip()
    try:
        return PatchType(content_type)
    except ValueError:
        raise refusals.unsupported_media_type(t.value for t in PatchType) from None


def _method_not_allowed() -> ApiError:
    return ApiError(
        "the server does not allow this method on the requested resource",
        status=405,
        reason="MethodNotAllowed",
    )
