"""Pipelines and their versions, by upload and by message."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kubeloop.local.pipelines.lists import Listing, list_page
from kubeloop.local.pipelines.messages import as_message, text
from kubeloop.local.pipelines.rendering import render_pipeline, render_version
from kubeloop.local.pipelines.routes.http import read_message, reply, route
from kubeloop.local.pipelines.routes.uploads import read_upload
from kubeloop.local.pipelines.rpc_errors import (
    RpcCode,
    RpcError,
    invalid,
    not_found,
    precondition,
)
from kubeloop.local.pipelines.service import Service
from kubeloop.local.pipelines.spec.documents import PipelineDocument, document_from_json
from kubeloop.local.pipelines.spec.parsing import parse_pipeline
from kubeloop.local.pipelines.storage.records import PipelineRecord, PipelineVersion, new_id
from kubeloop.local.pipelines.storage.tables import Query

_PIPELINE_FIELDS = (
    "pipeline_id",
    "display_name",
    "name",
    "description",
    "created_at",
    "namespace",
    "error",
    "tags",
)
_VERSION_FIELDS = (
    "pipeline_id",
    "pipeline_version_id",
    "display_name",
    "name",
    "description",
    "created_at",
    "package_url",
    "code_source_url",
    "pipeline_spec",
    "error",
    "tags",
)
_PIPELINE_KEYS = {
    "pipeline_id": "pipeline_id",
    "id": "pipeline_id",
    "name": "name",
    "display_name": "display_name",
    "created_at": "created_at",
    "description": "description",
    "namespace": "namespace",
}
_VERSION_KEYS = {
    "pipeline_version_id": "pipeline_version_id",
    "id": "pipeline_version_id",
    "name": "name",
    "display_name": "display_name",
    "created_at": "created_at",
    "description": "description",
}
_MAX_TAG_CHARACTERS = 63


class PipelineRoutes:
    """Handlers of `/pipelines`."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._store = service.store
        self._pipelines = Listing(
            table=self._store.pipelines,
            key="pipeline_id",
            keys=_PIPELINE_KEYS,
            has_tags=True,
        )
        self._versions = Listing(
            table=self._store.versions,
            key="pipeline_version_id",
            keys=_VERSION_KEYS,
            has_tags=True,
        )

    def routes(self) -> list[Route]:
        """All routes of pipelines and versions."""
        one = "/pipelines/{pipeline_id}"
        version = f"{one}/versions/{{pipeline_version_id}}"
        return [
            route("/pipelines/upload", self.upload, method="POST", is_upload=True),
            route("/pipelines/upload_version", self.upload_version, method="POST", is_upload=True),
            route("/pipelines/create", self.create_with_version, method="POST"),
            route("/pipelines/names/{name}", self.get_by_name, method="GET"),
            route("/pipelines", self.create, method="POST"),
            route("/pipelines", self.list_all, method="GET"),
            route(f"{one}/versions", self.create_version, method="POST"),
            route(f"{one}/versions", self.list_versions, method="GET"),
            route(version, self.get_version, method="GET"),
            route(version, self.update_version, method="PATCH"),
            route(version, self.delete_version, method="DELETE"),
            route(one, self.get, method="GET"),
            route(one, self.update, method="PATCH"),
            route(one, self.delete, method="DELETE"),
        ]

    async def upload(self, request: Request) -> Response:
        """Create a pipeline and its first version from a package."""
        params = request.query_params
        document = await read_upload(request)
        name = params.get("name") or document.name
        with self._store.transaction():
            pipeline = self._create_pipeline(
                name,
                display_name=params.get("display_name") or name,
                description=params.get("description", ""),
                tags=_read_tags(params.get("tags") or {}),
            )
            self._create_version(pipeline, document, name=name, description=pipeline.description)
        return reply(render_pipeline(pipeline))

    async def upload_version(self, request: Request) -> Response:
        """Add a version to a pipeline from a package."""
        params = request.query_params
        document = await read_upload(request)
        pipeline = self._get_pipeline(params.get("pipelineid", ""))
        version = self._create_version(
            pipeline,
            document,
            name=params.get("name") or document.name,
            display_name=params.get("display_name", ""),
            description=params.get("description", ""),
            code_source_url=params.get("code_source_url", ""),
            tags=_read_tags(params.get("tags") or {}),
        )
        return reply(render_version(version))

    async def create(self, request: Request) -> Response:
        message = await read_message(request, kind="Pipeline", fields=_PIPELINE_FIELDS)
        return reply(render_pipeline(self._create_from_message(message)))

    async def create_with_version(self, request: Request) -> Response:
        fields = ("pipeline", "pipeline_version")
        body = await read_message(request, kind="CreatePipelineAndVersionRequest", fields=fields)
        message = as_message(body.get("pipeline", {}), kind="Pipeline", fields=_PIPELINE_FIELDS)
        written = as_message(
            body.get("pipeline_version", {}), kind="PipelineVersion", fields=_VERSION_FIELDS
        )
        document = _document_of(written)
        with self._store.transaction():
            pipeline = self._create_from_message(message)
            name = text(written, "name") or text(written, "display_name") or pipeline.name
            self._create_version(pipeline, document, name=name)
        return reply(render_pipeline(pipeline))

    async def create_version(self, request: Request) -> Response:
        written = await read_message(request, kind="PipelineVersion", fields=_VERSION_FIELDS)
        document = _document_of(written)
        version = self._create_version(
            self._get_pipeline(request.path_params["pipeline_id"]),
            document,
            name=text(written, "name") or text(written, "display_name") or document.name,
            display_name=text(written, "display_name"),
            description=text(written, "description"),
            code_source_url=text(written, "code_source_url"),
            tags=_read_tags(written.get("tags", {})),
        )
        return reply(render_version(version))

    async def list_all(self, request: Request) -> Response:
        params = dict(request.query_params)
        page = list_page(self._pipelines, params, only={"namespace": params.get("namespace", "")})
        return reply(
            {
                "pipelines": [render_pipeline(item) for item in page.records],
                "total_size": page.total_size,
                "next_page_token": page.next_page_token,
            }
        )

    async def list_versions(self, request: Request) -> Response:
        pipeline = self._get_pipeline(request.path_params["pipeline_id"])
        page = list_page(
            self._versions,
            dict(request.query_params),
            only={"pipeline_id": pipeline.pipeline_id},
        )
        return reply(
            {
                "pipeline_versions": [render_version(item) for item in page.records],
                "total_size": page.total_size,
                "next_page_token": page.next_page_token,
            }
        )

    async def get(self, request: Request) -> Response:
        return reply(render_pipeline(self._get_pipeline(request.path_params["pipeline_id"])))

    async def get_by_name(self, request: Request) -> Response:
        name = request.path_params["name"]
        found = self._store.pipelines.select(Query(where="name = ?", values=(name,), limit=1))
        if not found:
            raise not_found("Pipeline", name)
        return reply(render_pipeline(found[0]))

    async def delete(self, request: Request) -> Response:
        pipeline = self._get_pipeline(request.path_params["pipeline_id"])
        own = Query(where="pipeline_id = ?", values=(pipeline.pipeline_id,))
        cascade = request.query_params.get("cascade", "").lower() == "true"
        num_versions = self._store.versions.count(own)
        if num_versions and not cascade:
            raise precondition(
                f"Pipeline {pipeline.name!r} has {num_versions} versions; delete them first, or "
                "delete with cascade=true."
            )
        with self._store.transaction():
            self._store.versions.delete("pipeline_id = ?", (pipeline.pipeline_id,))
            self._store.pipelines.delete("pipeline_id = ?", (pipeline.pipeline_id,))
        return reply({})

    async def update(self, request: Request) -> Response:
        """Change what of a pipeline may change: its display name and its tags."""
        pipeline = self._get_pipeline(request.path_params["pipeline_id"])
        message = await read_message(request, kind="Pipeline", fields=_PIPELINE_FIELDS)
        changed = replace(pipeline, **_changes(message))
        self._store.pipelines.put(changed)
        return reply(render_pipeline(changed))

    async def update_version(self, request: Request) -> Response:
        """Change what of a version may change: its display name and its tags."""
        version = self._get_version(request)
        message = await read_message(request, kind="PipelineVersion", fields=_VERSION_FIELDS)
        changed = replace(version, **_changes(message))
        self._store.versions.put(changed)
        return reply(render_version(changed))

    async def get_version(self, request: Request) -> Response:
        return reply(render_version(self._get_version(request)))

    async def delete_version(self, request: Request) -> Response:
        version = self._get_version(request)
        self._store.versions.delete("pipeline_version_id = ?", (version.pipeline_version_id,))
        return reply({})

    def _create_from_message(self, message: dict[str, Any]) -> PipelineRecord:
        name = text(message, "name") or text(message, "display_name")
        return self._create_pipeline(
            name,
            display_name=text(message, "display_name") or name,
            description=text(message, "description"),
            tags=_read_tags(message.get("tags", {})),
        )

    def _create_pipeline(
        self, name: str, *, display_name: str, description: str, tags: dict[str, str]
    ) -> PipelineRecord:
        if not name:
            raise invalid("A pipeline needs a name.")
        if self._store.pipelines.count(Query(where="name = ?", values=(name,))):
            raise RpcError(
                RpcCode.ALREADY_EXISTS,
                f"A pipeline named {name!r} exists; choose another name, or upload a version.",
            )
        pipeline = PipelineRecord(
            pipeline_id=new_id(),
            name=name,
            display_name=display_name,
            description=description,
            created_at=self._service.clock(),
            namespace=self._service.namespace,
            tags=tags,
        )
        self._store.pipelines.put(pipeline)
        return pipeline

    def _create_version(
        self,
        pipeline: PipelineRecord,
        document: PipelineDocument,
        *,
        name: str,
        display_name: str = "",
        description: str = "",
        code_source_url: str = "",
        tags: dict[str, str] | None = None,
    ) -> PipelineVersion:
        where = "pipeline_id = ? AND name = ?"
        if self._store.versions.count(Query(where=where, values=(pipeline.pipeline_id, name))):
            raise RpcError(
                RpcCode.ALREADY_EXISTS,
                f"Pipeline {pipeline.name!r} has a version named {name!r}; choose another name.",
            )
        version = PipelineVersion(
            pipeline_version_id=new_id(),
            pipeline_id=pipeline.pipeline_id,
            name=name,
            display_name=display_name or name,
            description=description,
            created_at=self._service.clock(),
            code_source_url=code_source_url,
            spec=document.to_json(),
            tags=tags or {},
        )
        self._store.versions.put(version)
        return version

    def _get_pipeline(self, identifier: str) -> PipelineRecord:
        pipeline = self._store.pipelines.get(identifier)
        if pipeline is None:
            raise not_found("Pipeline", identifier)
        return pipeline

    def _get_version(self, request: Request) -> PipelineVersion:
        identifier = request.path_params["pipeline_version_id"]
        version = self._store.versions.get(identifier)
        if version is None or version.pipeline_id != request.path_params["pipeline_id"]:
            raise not_found("Pipeline version", identifier)
        return version


def _document_of(written: dict[str, Any]) -> PipelineDocument:
    if "pipeline_spec" not in written:
        raise invalid(
            "A pipeline version is taken from its pipeline_spec; packages are not fetched from a "
            "URL, upload the file instead."
        )
    document = document_from_json(written["pipeline_spec"])
    parse_pipeline(document)
    return document


def _changes(message: dict[str, Any]) -> dict[str, Any]:
    """The fields of a record that an update sets; what it does not name stays."""
    changes: dict[str, Any] = {}
    if name := text(message, "display_name"):
        changes["display_name"] = name
    if "tags" in message:
        changes["tags"] = _read_tags(message["tags"])
    return changes


def _read_tags(value: Any) -> dict[str, str]:
    """The labels of a pipeline or version: JSON of an object of texts, or the object."""
    try:
        tags = json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise invalid(f"The tags {value!r} are not JSON: {error}.") from error
    if not isinstance(tags, dict) or not all(isinstance(item, str) for item in tags.values()):
        raise invalid(f"Tags are an object of texts, not {value!r}.")
    for item in (*tags, *tags.values()):
        if len(item) > _MAX_TAG_CHARACTERS:
            raise invalid(f"The tag {item!r} is longer than {_MAX_TAG_CHARACTERS} characters.")
    return tags
