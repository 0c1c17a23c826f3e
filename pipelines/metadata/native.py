"""The record as KFP's own API presents it after 2.17: run-scoped tasks and artifacts.

The embedded plane serves the same endpoints. Field names changed between the plan and the release;
both are read.

Source: kubeflow/pipelines#13986 and proposals/12147-mlmd-removal there.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import httpx

from kubeloop.errors import InputError, PermanentError, TransientError
from kubeloop.pipelines.metadata.batches import batches
from kubeloop.pipelines.metadata.source import (
    Artifact,
    ArtifactUse,
    MetadataSource,
    RunRecord,
    TaskRecord,
)

_PROXY_PATH = "/api/v1/namespaces/kubeflow/services/ml-pipeline:http/proxy"
_PAGE_SIZE = 200
_BATCH_SIZE = 50
_URI_BATCH_SIZE = 10
"""What fits into one request's address, which servers limit to about 8 KB."""
_OUTPUTS = frozenset({"OUTPUT", "ITERATOR_OUTPUT", "ONE_OF_OUTPUT", "TASK_FINAL_STATUS_OUTPUT"})
_TYPES = {"Metric": "Metrics", "ClassificationMetric": "ClassificationMetrics"}


class NativeMetadata(MetadataSource):
    """The KFP API server's own task and artifact endpoints."""

    def __init__(
        self,
        base_url: str,
        *,
        token: str = "",
        namespace: str = "",
        verify: Any = True,
        cert: Any = None,
    ) -> None:  # Any: as httpx takes them
        """Read through `base_url`.

        Args:
            base_url: Of the KFP API, without `/apis/v2beta1`.
            token: Sent as a bearer token.
            namespace: Where artifacts are searched; a multi-user KFP needs one.
            verify: How the server's certificate is verified.
            cert: A client certificate.
        """
        self._namespace = namespace
        self._http = httpx.Client(
            base_url=base_url,
            headers={"authorization": f"Bearer {token}"} if token else {},
            timeout=30,
            verify=verify,
            cert=cert,
        )

    @classmethod
    def through_api_server(cls, kubernetes: Any, *, namespace: str = "") -> NativeMetadata:
        """Reach the KFP API through a cluster's API server, as the KFP client does.

        Args:
            kubernetes: A `kubernetes.client.ApiClient`, which has no types.
            namespace: Where artifacts are searched; a multi-user KFP needs one.
        """
        configuration = kubernetes.configuration
        source = cls(
            configuration.host + _PROXY_PATH,
            namespace=namespace,
            verify=configuration.ssl_ca_cert or configuration.verify_ssl,
            cert=(configuration.cert_file, configuration.key_file)
            if configuration.cert_file
            else None,
        )
        authorization = configuration.get_api_key_with_prefix("authorization")
        if authorization:
            source._http.headers["authorization"] = authorization
        return source

    def is_served(self) -> bool:
        """Whether the server has these endpoints; KFP up to 2.17 does not.

        Raises:
            TransientError: It does not answer.
        """
        # NB: another refusal, such as of a missing namespace, comes from the endpoint itself.
        status = self._request("artifact_tasks", {"page_size": 1}).status_code
        return status not in (
            httpx.codes.NOT_FOUND,
            httpx.codes.METHOD_NOT_ALLOWED,
            httpx.codes.NOT_IMPLEMENTED,
        )

    def get_run(self, run_id: str) -> RunRecord:
        """A run; of an uploaded pipeline, its name is read from the pipeline."""
        raw = self._get(f"runs/{run_id}")
        reference = raw.get("pipeline_version_reference") or {}
        pipeline = _pipeline_name(raw.get("pipeline_spec") or {})
        if not pipeline and reference.get("pipeline_version_id"):
            path = (
                f"pipelines/{reference['pipeline_id']}/versions/{reference['pipeline_version_id']}"
            )
            with contextlib.suppress(InputError):  # it may have been deleted since
                pipeline = _pipeline_name(self._get(path).get("pipeline_spec") or {})
        return RunRecord(
            run_id=run_id,
            name=raw.get("display_name") or run_id,
            pipeline=pipeline,
            state=raw.get("state", ""),
            namespace=self._namespace,
            created_at=_parse_time(raw.get("created_at")),
            finished_at=_parse_time(raw.get("finished_at")),
            error=(raw.get("error") or {}).get("message", ""),
        )

    def list_tasks(self, run_id: str) -> list[TaskRecord]:
        """All tasks of a run in order of creation."""
        tasks = [_parse_task(raw) for raw in self._list("tasks", {"run_id": run_id})]
        if not tasks:
            self._get(f"runs/{run_id}")
        return tasks

    def get_task(self, task_id: str) -> TaskRecord:
        """A task."""
        return _parse_task(self._get(f"tasks/{task_id}"))

    def get_artifact(self, artifact_id: str) -> Artifact:
        """An artifact."""
        return _parse_artifact(self._get(f"artifacts/{artifact_id}"))

    def find_artifacts(self, uris: Collection[str]) -> list[Artifact]:
        """All artifacts with one of these URIs."""
        return [
            artifact
            for batch in batches([uri for uri in uris if uri], size=_URI_BATCH_SIZE)
            for artifact in self._search("IN", string_values={"values": batch})
        ]

    def search_artifacts(self, part: str) -> list[Artifact]:
        """All artifacts whose URI contains `part`."""
        return list(self._search("IS_SUBSTRING", string_value=part)) if part else []

    def list_uses(self, artifact_ids: Collection[str]) -> list[ArtifactUse]:
        """Which tasks took or gave these artifacts."""
        return [
            _parse_use(raw)
            for batch in batches(artifact_ids, size=_BATCH_SIZE)
            for raw in self._list("artifact_tasks", {"artifact_ids": batch})
        ]

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _search(self, operation: str, **value: Any) -> Iterator[Artifact]:  # Any: JSON
        predicate = {"operation": operation, "key": "uri", **value}
        query = {"filter": json.dumps({"predicates": [predicate]}), "namespace": self._namespace}
        return (_parse_artifact(raw) for raw in self._list("artifacts", query))

    def _list(self, path: str, query: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        page_token = ""
        while True:
            page = self._get(path, {**query, "page_size": _PAGE_SIZE, "page_token": page_token})
            yield from page.get(path) or []
            page_token = page.get("next_page_token", "")
            if not page_token:
                return

    def _get(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return _read(path, self._request(path, query or {}))

    def _request(self, path: str, query: Mapping[str, Any]) -> httpx.Response:
        given = {key: value for key, value in query.items() if value}
        try:
            return self._http.get(f"/apis/v2beta1/{path}", params=given)
        except httpx.HTTPError as error:
            msg = f"Failed to read {path} from the KFP API: {error}"
            raise TransientError(msg) from error


def _read(path: str, response: httpx.Response) -> dict[str, Any]:
    status = response.status_code
    if status < httpx.codes.BAD_REQUEST:
        body: dict[str, Any] = response.json()
        return body
    try:
        message = response.json()["message"]
    except (ValueError, KeyError, TypeError):
        message = f"HTTP {status}"
    msg = f"Failed to read {path} from the KFP API: {message}"
    if status in (httpx.codes.BAD_REQUEST, httpx.codes.NOT_FOUND):
        raise InputError(msg)
    if status in (httpx.codes.TOO_MANY_REQUESTS, 502, 503, 504):
        raise TransientError(msg)
    raise PermanentError(msg)


def _pipeline_name(spec: Mapping[str, Any]) -> str:
    # A package of several documents is carried under a key of its own.
    spec = spec.get("pipeline_spec") or spec
    return str((spec.get("pipelineInfo") or {}).get("name", ""))


def _parse_task(raw: Mapping[str, Any]) -> TaskRecord:
    inputs, outputs = raw.get("inputs") or {}, raw.get("outputs") or {}
    states = {raw.get("status", ""), raw.get("state", "")}
    told = (raw.get("status_metadata") or {}).get("custom_properties") or {}
    cached_from = str(told.get("cached_from_task_id", ""))
    is_cached = bool(cached_from) or "CACHED" in states
    kind = raw.get("type", "")
    # A step that ran has a pod; one that did not, and was not cached, only named what was there.
    has_run = bool(raw.get("pods")) or is_cached or "SUCCEEDED" not in states
    return TaskRecord(
        task_id=raw["task_id"],
        name=raw.get("name") or raw.get("display_name", ""),
        run_id=raw["run_id"],
        state=raw.get("status") or raw.get("state", ""),
        input_parameters=_parse_parameters(inputs),
        output_parameters=_parse_parameters(outputs),
        input_artifacts=_parse_artifacts(inputs),
        output_artifacts=_parse_artifacts(outputs),
        path=raw.get("scope_path", ""),
        type=kind,
        parent_id=raw.get("parent_task_id", ""),
        is_importer=kind == "IMPORTER" or (kind == "RUNTIME" and not has_run),
        create_time=_parse_time(raw.get("create_time")),
        start_time=_parse_time(raw.get("start_time")),
        end_time=_parse_time(raw.get("end_time")),
        is_cached=is_cached,
        cached_from=cached_from,
        fingerprint=raw.get("cache_fingerprint", ""),
        fingerprint_parts=told.get("fingerprint_parts") or {},
        error=(raw.get("error") or {}).get("message", ""),
    )


def _parse_parameters(side: Mapping[str, Any]) -> dict[str, Any]:
    return {
        entry.get("parameter_key") or entry.get("name", ""): entry.get("value")
        for entry in side.get("parameters") or []
    }


def _parse_artifacts(side: Mapping[str, Any]) -> dict[str, tuple[Artifact, ...]]:
    found: dict[str, tuple[Artifact, ...]] = {}
    for entry in side.get("artifacts") or []:
        key = entry.get("artifact_key") or entry.get("parameter_name", "")
        found[key] = (*found.get(key, ()), *map(_parse_artifact, _values(entry)))
    return found


def _values(entry: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    return entry.get("artifacts") or ([entry["value"]] if entry.get("value") else [])


def _parse_artifact(raw: Mapping[str, Any]) -> Artifact:
    kind = raw.get("type", "")
    metadata = dict(raw.get("metadata") or {})
    if raw.get("number_value") is not None:
        metadata.setdefault(raw.get("name", ""), raw["number_value"])
    return Artifact(
        artifact_id=raw["artifact_id"],
        name=raw.get("name", ""),
        type=_TYPES.get(kind, kind),
        uri=raw.get("uri", ""),
        metadata=metadata,
        digest=raw.get("digest", ""),
        created_at=_parse_time(raw.get("created_at")),
    )


def _parse_use(raw: Mapping[str, Any]) -> ArtifactUse:
    return ArtifactUse(
        artifact_id=raw["artifact_id"],
        task_id=raw["task_id"],
        run_id=raw["run_id"],
        is_output=raw.get("type") in _OUTPUTS,
    )


def _parse_time(text: str | None) -> datetime | None:
    if not text or text.startswith("1970-01-01"):
        return None
    return datetime.fromisoformat(text)
