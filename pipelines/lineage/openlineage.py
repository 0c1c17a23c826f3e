"""A run as OpenLineage events, for catalogues that gather lineage from many tools.

A run of the pipeline and each of its tasks is an OpenLineage run, the pipeline's the parent of all;
artifacts are datasets, named by where they lie, as OpenLineage names data in object stores and file
systems. Events are made after the fact from KFP's record: the same record gives the same events.

Source: OpenLineage 2-0-2, spec/OpenLineage.json and spec/facets; its naming conventions.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from importlib.metadata import version
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from kubeloop.components.provenance import DatasetKey
from kubeloop.errors import PermanentError, TransientError
from kubeloop.pipelines.lineage.describing import describe_artifact, describe_source
from kubeloop.pipelines.lineage.linking import products_of
from kubeloop.pipelines.metadata import Artifact, MetadataSource, RunRecord, TaskRecord

Json = dict[str, Any]

_SPEC = "https://openlineage.io/spec"
_SCHEMA_URL = f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent"
_ENDS = {"SUCCEEDED": "COMPLETE", "FAILED": "FAIL", "CANCELED": "ABORT"}
_INTEGRATION = "KUBEFLOW_PIPELINES"
_API_PATH = "/api/v1/lineage"
_TIMEOUT_SECONDS = 30.0


def build_events(source: MetadataSource, run_id: str, *, namespace: str) -> list[Json]:
    """The events of a run and its tasks, in order of time.

    Args:
        source: The record of runs.
        run_id: The run.
        namespace: Of the jobs, where the record names none.

    Raises:
        InputError: There is no such run.
    """
    run = source.get_run(run_id)
    emitter = _Emitter(run, namespace=run.namespace or namespace)
    events = list(emitter.emit_run())
    for task in source.list_tasks(run_id):
        if not task.is_group:
            events += emitter.emit_task(task)
    # Of the same time, a start comes first and the run's own end last.
    return sorted(events, key=lambda event: (event["eventTime"], event["eventType"] != "START"))


def render_lines(events: Iterable[Json]) -> str:
    """Render JSON Lines."""
    return "\n".join(json.dumps(event, ensure_ascii=False, default=str) for event in events)


def send(events: Iterable[Json], url: str, *, token: str = "") -> None:
    """Post events to an OpenLineage server.

    Args:
        events: What to send, one request each.
        url: Of the server; without a path, the usual one is taken.
        token: Sent as a bearer token.

    Raises:
        TransientError: The server does not answer, or cannot take them now.
        PermanentError: It refuses them.
    """
    address = url if urlsplit(url).path.strip("/") else url.rstrip("/") + _API_PATH
    headers = {"authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(headers=headers, timeout=_TIMEOUT_SECONDS) as client:
        for event in events:
            content = json.dumps(event, default=str)
            try:
                answer = client.post(
                    address, content=content, headers={"content-type": "application/json"}
                )
            except httpx.HTTPError as error:
                msg = f"Failed to send events to {address}: {error}"
                raise TransientError(msg) from error
            if answer.status_code >= httpx.codes.BAD_REQUEST:
                msg = f"Failed to send events to {address}: HTTP {answer.status_code} {answer.text}"
                is_passing = answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR
                raise TransientError(msg) if is_passing else PermanentError(msg)


class _Emitter:
    def __init__(self, run: RunRecord, *, namespace: str) -> None:
        self._run = run
        self._namespace = namespace
        self._producer = f"urn:kubeloop:{version('kubeloop')}"
        self._pipeline = run.pipeline or run.name
        self._run_uuid = _as_uuid(run.run_id)

    def emit_run(self) -> Iterator[Json]:
        """The events of the run itself."""
        facets: Json = {}
        if self._run.error:
            facets["errorMessage"] = self._describe_error(self._run.error)
        for kind, time in _moments(self._run.created_at, self._run.finished_at, self._run.state):
            yield self._event(
                kind,
                time,
                run={"runId": self._run_uuid, "facets": facets if kind == "FAIL" else {}},
                job=self._job(self._pipeline, "PIPELINE"),
            )

    def emit_task(self, task: TaskRecord) -> Iterator[Json]:
        """The events of a task; none where it was skipped or did not begin."""
        taken = [artifact for given in task.input_artifacts.values() for artifact in given]
        made = products_of(task)
        inputs = [*self._describe_all(taken), *self._describe_sources(made)]
        outputs = self._describe_all(made)
        for kind, time in _moments(task.start_time, task.end_time, task.state):
            facets = {"parent": self._parent()}
            if kind == "FAIL":
                facets["errorMessage"] = self._describe_error(task.error or "The task failed.")
            yield self._event(
                kind,
                time,
                run={"runId": _as_uuid(task.task_id, within=self._run_uuid), "facets": facets},
                job=self._job(f"{self._pipeline}.{task.path or task.name}", "TASK"),
                inputs=inputs,
                outputs=[] if kind == "START" else outputs,
            )

    def _event(self, kind: str, time: datetime, **fields: Any) -> Json:
        return {
            "eventType": kind,
            "eventTime": time.isoformat(),
            "producer": self._producer,
            "schemaURL": _SCHEMA_URL,
            **fields,
        }

    def _job(self, name: str, kind: str) -> Json:
        job_type = {"processingType": "BATCH", "integration": _INTEGRATION, "jobType": kind}
        facet = self._facet("2-0-4/JobTypeJobFacet", job_type)
        return {"namespace": self._namespace, "name": name, "facets": {"jobType": facet}}

    def _parent(self) -> Json:
        run, job = {"runId": self._run_uuid}, {"namespace": self._namespace, "name": self._pipeline}
        return self._facet(
            "1-2-0/ParentRunFacet", {"run": run, "job": job, "root": {"run": run, "job": job}}
        )

    def _describe_error(self, message: str) -> Json:
        return self._facet(
            "1-0-1/ErrorMessageRunFacet", {"message": message, "programmingLanguage": "PYTHON"}
        )

    def _describe_all(self, artifacts: Iterable[Artifact]) -> list[Json]:
        described = [self._describe(artifact) for artifact in artifacts if artifact.uri]
        return list({(item["namespace"], item["name"]): item for item in described}.values())

    def _describe(self, artifact: Artifact) -> Json:
        node = describe_artifact(artifact)
        kind = {"Model": "MODEL", "Dataset": "DATASET"}.get(artifact.type, "FILE")
        facets = {
            "datasetType": self._facet("1-0-1/DatasetTypeDatasetFacet", {"datasetType": kind})
        }
        fields = artifact.metadata.get(DatasetKey.SCHEMA)
        if isinstance(fields, Mapping):
            columns = [{"name": name, "type": str(type_)} for name, type_ in fields.items()]
            facets["schema"] = self._facet("1-2-0/SchemaDatasetFacet", {"fields": columns})
        return self._place(artifact.uri, node.digest, facets)

    def _describe_sources(self, made: Iterable[Artifact]) -> Iterator[Json]:
        """The raw data that datasets name: what the task that made them read."""
        for artifact in made:
            source = describe_source(artifact)
            if source is not None:
                yield self._place(source.uri, source.digest, {})

    def _place(self, uri: str, digest: str, facets: Json) -> Json:
        namespace, name = name_dataset(uri)
        address = uri if urlsplit(uri).scheme else f"file://{quote(uri)}"
        facets = {
            **facets,
            "dataSource": self._facet(
                "1-0-1/DatasourceDatasetFacet", {"name": namespace, "uri": address}
            ),
        }
        if digest:
            facets["version"] = self._facet(
                "1-0-1/DatasetVersionDatasetFacet", {"datasetVersion": digest}
            )
        return {"namespace": namespace, "name": name, "facets": facets}

    def _facet(self, schema: str, fields: Json) -> Json:
        name = schema.rpartition("/")[2]
        url = f"{_SPEC}/facets/{schema}.json#/$defs/{name}"
        return {"_producer": self._producer, "_schemaURL": url, **fields}


def name_dataset(uri: str) -> tuple[str, str]:
    """OpenLineage's namespace and name of what lies at a URI."""
    parts = urlsplit(uri)
    if parts.scheme in ("", "file"):
        return "file", parts.path or uri
    # NB: keys may hold "?" and "#", which only look like parts of a URI.
    prefix = f"{parts.scheme}://{parts.netloc}"
    return prefix, uri.removeprefix(prefix).lstrip("/") or "/"


def _moments(
    start: datetime | None, end: datetime | None, state: str
) -> Iterator[tuple[str, datetime]]:
    if start is None:
        return
    yield "START", start
    if end is not None and state in _ENDS:
        yield _ENDS[state], end


def _as_uuid(identifier: str, *, within: str = "") -> str:
    """The identifier, or one made of it: ML Metadata counts its executions."""
    try:
        return str(uuid.UUID(identifier))
    except ValueError:
        space = uuid.UUID(within) if within else uuid.NAMESPACE_URL
        return str(uuid.uuid5(space, identifier))
