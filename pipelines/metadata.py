"""KFP's record of tasks and artifacts, behind one small interface.

KFP after 2.17 keeps the record in its own API server (`NativeMetadata`); the embedded plane serves
the same endpoints. ML Metadata, which KFP kept until then, becomes a second implementation.

Source: kubeflow/pipelines#13986 and proposals/12147-mlmd-removal there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

from kubeloop.errors import InputError, TransientError

_PROXY_PATH = "/api/v1/namespaces/kubeflow/services/ml-pipeline:http/proxy"
_PAGE_SIZE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One artifact of a run; `metadata` is what its producer recorded."""

    artifact_id: str
    name: str
    type: str
    uri: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """One task of a run with what went in and came out, by input and output name."""

    task_id: str
    name: str
    run_id: str
    state: str
    input_parameters: Mapping[str, Any]
    output_parameters: Mapping[str, Any]
    input_artifacts: Mapping[str, tuple[Artifact, ...]]
    output_artifacts: Mapping[str, tuple[Artifact, ...]]
    path: str = ""
    """Names from the root down, joined by dots; iterations are their index. Empty: not told."""
    type: str = ""
    """What it is in the pipeline's structure: RUNTIME for a step."""
    parent_id: str = ""
    create_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    is_cached: bool = False
    """Whether it took the outputs of an earlier task."""
    cached_from: str = ""
    """The identifier of that task."""
    fingerprint: str = ""
    """Of what the cache compares; empty where the task takes no part in caching."""
    fingerprint_parts: Mapping[str, str] = field(default_factory=dict)
    """What went into the fingerprint; empty where the API does not tell."""


class MetadataSource(ABC):
    """Reads the record of runs."""

    @abstractmethod
    def list_tasks(self, run_id: str) -> list[TaskRecord]:
        """All tasks of a run in order of creation.

        Raises:
            InputError: There is no such run.
        """

    @abstractmethod
    def find_producer(self, artifact: Artifact) -> TaskRecord | None:
        """The task that made an artifact; None when the record does not say."""


class NativeMetadata(MetadataSource):
    """The KFP API server's own task and artifact endpoints."""

    def __init__(
        self, base_url: str, *, token: str = "", verify: Any = True, cert: Any = None
    ) -> None:  # Any: as httpx takes them
        self._http = httpx.Client(
            base_url=base_url,
            headers={"authorization": f"Bearer {token}"} if token else {},
            timeout=30,
            verify=verify,
            cert=cert,
        )

    @classmethod
    def through_api_server(cls, kubernetes: Any) -> NativeMetadata:  # Any: ApiClient is untyped
        """Reach the KFP API through a cluster's API server, as the KFP client does."""
        configuration = kubernetes.configuration
        source = cls(
            configuration.host + _PROXY_PATH,
            verify=configuration.ssl_ca_cert or configuration.verify_ssl,
            cert=(configuration.cert_file, configuration.key_file)
            if configuration.cert_file
            else None,
        )
        authorization = configuration.get_api_key_with_prefix("authorization")
        if authorization:
            source._http.headers["authorization"] = authorization
        return source

    def list_tasks(self, run_id: str) -> list[TaskRecord]:
        """All tasks of a run in order of creation."""
        tasks: list[TaskRecord] = []
        page_token = ""
        while True:
            page = self._get(
                "tasks", {"run_id": run_id, "page_size": _PAGE_SIZE, "page_token": page_token}
            )
            tasks += [_parse_task(task) for task in page.get("tasks", [])]
            page_token = page.get("next_page_token", "")
            if not page_token:
                return tasks

    def find_producer(self, artifact: Artifact) -> TaskRecord | None:
        """The task that made an artifact."""
        links = self._get(
            "artifact_tasks", {"artifact_ids": artifact.artifact_id, "type": "OUTPUT"}
        ).get("artifact_tasks", [])
        if not links:
            return None
        return _parse_task(self._get(f"tasks/{links[0]['task_id']}", {}))

    def get_task(self, task_id: str) -> TaskRecord:
        """One task by its identifier.

        Raises:
            InputError: There is no such task.
        """
        return _parse_task(self._get(f"tasks/{task_id}", {}))

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def _get(self, path: str, query: Mapping[str, Any]) -> dict[str, Any]:
        try:
            response = self._http.get(f"/apis/v2beta1/{path}", params=query)
        except httpx.HTTPError as error:
            msg = f"Failed to read {path} from the KFP API: {error}"
            raise TransientError(msg) from error
        if response.status_code >= httpx.codes.BAD_REQUEST:
            try:
                message = response.json()["message"]
            except (ValueError, KeyError):
                message = f"HTTP {response.status_code}"
            msg = f"Failed to read {path} from the KFP API: {message}"
            raise InputError(msg)
        body: dict[str, Any] = response.json()
        return body


def _parse_task(raw: Mapping[str, Any]) -> TaskRecord:
    inputs, outputs = raw.get("inputs") or {}, raw.get("outputs") or {}
    told = (raw.get("status_metadata") or {}).get("custom_properties") or {}
    cached_from = str(told.get("cached_from_task_id", ""))
    return TaskRecord(
        task_id=raw["task_id"],
        name=raw.get("name") or raw.get("display_name", ""),
        run_id=raw["run_id"],
        state=raw.get("status", ""),
        input_parameters=_parse_parameters(inputs),
        output_parameters=_parse_parameters(outputs),
        input_artifacts=_parse_artifacts(inputs),
        output_artifacts=_parse_artifacts(outputs),
        path=raw.get("scope_path", ""),
        type=raw.get("type", ""),
        parent_id=raw.get("parent_task_id", ""),
        create_time=_parse_time(raw.get("create_time")),
        start_time=_parse_time(raw.get("start_time")),
        end_time=_parse_time(raw.get("end_time")),
        is_cached=bool(cached_from) or raw.get("state") == "CACHED",
        cached_from=cached_from,
        fingerprint=raw.get("cache_fingerprint", ""),
        fingerprint_parts=told.get("fingerprint_parts") or {},
    )


def _parse_time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _parse_parameters(side: Mapping[str, Any]) -> dict[str, Any]:
    return {entry["name"]: entry.get("value") for entry in side.get("parameters") or []}


def _parse_artifacts(side: Mapping[str, Any]) -> dict[str, tuple[Artifact, ...]]:
    found: dict[str, tuple[Artifact, ...]] = {}
    for entry in side.get("artifacts") or []:
        key = entry.get("parameter_name", "")
        given = entry.get("artifacts") or [entry["value"]]
        found[key] = (*found.get(key, ()), *map(_parse_artifact, given))
    return found


def _parse_artifact(raw: Mapping[str, Any]) -> Artifact:
    return Artifact(
        artifact_id=raw["artifact_id"],
        name=raw.get("name", ""),
        type=raw.get("type", ""),
        uri=raw.get("uri", ""),
        metadata=raw.get("metadata") or {},
    )
