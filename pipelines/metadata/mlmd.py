"""The record as KFP up to 2.17 keeps it in ML Metadata, read over gRPC.

What KFP's driver and launcher write: a context for the pipeline (`system.Pipeline`) and one for the
run (`system.PipelineRun`, named by the run's id); an execution for every task, whose custom
properties hold its name, parameters and parent; events between executions and artifacts, whose
path's first key is the name of the input or output.

Source: kubeflow/pipelines 2.x, backend/src/v2/metadata/client.go, driver/ and component/.
"""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from kubeloop.errors import InputError, PermanentError, TransientError
from kubeloop.optional_imports import import_from_extra
from kubeloop.pipelines.metadata.batches import batches
from kubeloop.pipelines.metadata.mlmd_messages import METHODS, SERVICE, message
from kubeloop.pipelines.metadata.native import NativeMetadata
from kubeloop.pipelines.metadata.source import (
    Artifact,
    ArtifactUse,
    MetadataSource,
    RunRecord,
    TaskRecord,
)

with import_from_extra("mlmd", why="Reading ML Metadata needs grpcio and protobuf"):
    import grpc
    from google.protobuf import json_format

Message = Any  # classes made at run time have no types

_RUN_TYPE = "system.PipelineRun"
_GROUP_TYPE = "system.DAGExecution"
_ROOT_NAME = "run/"
_IMPORTERS = frozenset({"system.ImporterExecution", "system.ImporterWorkspaceExecution"})
_OUTPUT_EVENTS = frozenset({1, 4})
_INPUT_EVENTS = frozenset({2, 3})
_NEW, _RUNNING, _COMPLETE, _FAILED, _CACHED, _CANCELED = range(1, 7)
_STATES = {
    _NEW: "PENDING",
    _RUNNING: "RUNNING",
    _COMPLETE: "SUCCEEDED",
    _FAILED: "FAILED",
    _CACHED: "SUCCEEDED",
    _CANCELED: "SKIPPED",
}
_BATCH_SIZE = 200
_PAGE_SIZE = 100
"""What the server gives at most."""
_TIMEOUT_SECONDS = 60.0
_MAX_MESSAGE_BYTES = 100 << 20
"""KFP's own limit: a confusion matrix can be larger than gRPC's usual 4 MB."""
_OWN_KEYS = frozenset({"display_name", "store_session_info"})
"""Custom properties of artifacts that KFP adds to what their producer recorded."""


class MlmdMetadata(MetadataSource):
    """ML Metadata's store."""

    def __init__(
        self,
        address: str,
        *,
        runs: NativeMetadata | None = None,
        owned: contextlib.ExitStack | None = None,
    ) -> None:
        """Read from a store.

        Args:
            address: `HOST:PORT`.
            runs: The KFP API beside it, which knows names and states of runs better.
            owned: What ends with the connection: a port-forward, the KFP API's.
        """
        self._owned = owned or contextlib.ExitStack()
        self._runs = runs
        self._address = address
        options = [("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES)]
        self._channel = grpc.insecure_channel(address, options=options)
        self._calls = {
            method: self._channel.unary_unary(
                f"/{SERVICE}/{method}",
                request_serializer=lambda request: request.SerializeToString(),
                response_deserializer=message(f"{method}Response").FromString,
            )
            for method in METHODS
        }
        self._run_ids: dict[int, str] = {}

    def get_run(self, run_id: str) -> RunRecord:
        """A run, as the KFP API tells it, else as its tasks do: the store knows no name of it."""
        if self._runs is not None:
            with contextlib.suppress(InputError):  # deleted there, it may still be recorded here
                return self._runs.get_run(run_id)
        context = self._get_context(run_id)
        parents = self._call("GetParentContextsByContext", context_id=context.id).contexts
        # NB: KFP leaves the root, and some groups, running for ever.
        steps = [e for e in self._list_executions(context.id) if e.type != _GROUP_TYPE]
        states = {execution.last_known_state for execution in steps}
        is_running = bool(states & {_NEW, _RUNNING})
        state = "FAILED" if _FAILED in states else "RUNNING" if is_running else "SUCCEEDED"
        updated = max((execution.last_update_time_since_epoch for execution in steps), default=0)
        namespace = context.custom_properties.get("namespace")
        return RunRecord(
            run_id=run_id,
            name=run_id,
            pipeline=next((parent.name for parent in parents), ""),
            state=state,
            namespace=namespace.string_value if namespace else "",
            created_at=_read_time(context.create_time_since_epoch),
            finished_at=None if is_running else _read_time(updated),
        )

    def list_tasks(self, run_id: str) -> list[TaskRecord]:
        """All tasks of a run, the pipeline itself first."""
        executions = list(self._list_executions(self._get_context(run_id).id))
        executions.sort(key=lambda execution: execution.id)
        self._run_ids.update((execution.id, run_id) for execution in executions)
        return self._parse_tasks(executions)

    def get_task(self, task_id: str) -> TaskRecord:
        """A task, by the number of its execution."""
        executions = self._get_executions([int(task_id)]) if task_id.isdecimal() else []
        if not executions:
            raise InputError(f"ML Metadata at {self._address} holds no execution {task_id!r}.")
        self._find_runs(executions)
        return self._parse_tasks(executions)[0]

    def get_artifact(self, artifact_id: str) -> Artifact:
        """An artifact, by its number."""
        found = self._get_artifacts([int(artifact_id)]) if artifact_id.isdecimal() else {}
        if not found:
            raise InputError(f"ML Metadata at {self._address} holds no artifact {artifact_id!r}.")
        return next(iter(found.values()))

    def find_artifacts(self, uris: Collection[str]) -> list[Artifact]:
        """All artifacts with one of these URIs."""
        found = [
            artifact
            for batch in batches([uri for uri in uris if uri], size=_BATCH_SIZE)
            for artifact in self._call("GetArtifactsByURI", uris=batch).artifacts
        ]
        return [_parse_artifact(raw) for raw in sorted(found, key=lambda raw: raw.id)]

    def search_artifacts(self, part: str) -> list[Artifact]:
        """All artifacts whose URI contains `part`."""
        if not part:
            return []
        query = f"uri LIKE '%{_quote(part)}%'"
        found = self._list("GetArtifacts", "artifacts", filter_query=query)
        # NB: LIKE takes "_" and "%" of the part for wildcards.
        artifacts = sorted((raw for raw in found if part in raw.uri), key=lambda raw: raw.id)
        return [_parse_artifact(raw) for raw in artifacts]

    def list_uses(self, artifact_ids: Collection[str]) -> list[ArtifactUse]:
        """Which tasks took or gave these artifacts."""
        numbers = [identifier for identifier in artifact_ids if identifier.isdecimal()]
        events = [
            event
            for batch in batches(numbers, size=_BATCH_SIZE)
            for event in self._call(
                "GetEventsByArtifactIDs", artifact_ids=[int(number) for number in batch]
            ).events
            if event.type in _OUTPUT_EVENTS | _INPUT_EVENTS
        ]
        events.sort(key=lambda event: (event.execution_id, event.type))
        self._find_runs(self._get_executions(event.execution_id for event in events))
        return [
            ArtifactUse(
                artifact_id=str(event.artifact_id),
                task_id=str(event.execution_id),
                run_id=self._run_ids.get(event.execution_id, ""),
                is_output=event.type in _OUTPUT_EVENTS,
            )
            for event in events
        ]

    def close(self) -> None:
        """Close the connection, and what was opened for it."""
        self._channel.close()
        self._owned.close()

    def _get_context(self, run_id: str) -> Message:
        answer = self._call("GetContextByTypeAndName", type_name=_RUN_TYPE, context_name=run_id)
        if not answer.HasField("context"):
            raise InputError(f"ML Metadata at {self._address} holds no run {run_id!r}.")
        return answer.context

    def _list_executions(self, context_id: int) -> Iterator[Message]:
        return self._list("GetExecutionsByContext", "executions", context_id=context_id)

    def _get_executions(self, numbers: Iterable[int]) -> list[Message]:
        return [
            execution
            for batch in batches([str(number) for number in numbers], size=_BATCH_SIZE)
            for execution in self._call(
                "GetExecutionsByID", execution_ids=[int(number) for number in batch]
            ).executions
        ]

    def _get_artifacts(self, numbers: Iterable[int]) -> dict[int, Artifact]:
        return {
            raw.id: _parse_artifact(raw)
            for batch in batches([str(number) for number in numbers], size=_BATCH_SIZE)
            for raw in self._call(
                "GetArtifactsByID", artifact_ids=[int(number) for number in batch]
            ).artifacts
        }

    def _find_runs(self, executions: Iterable[Message]) -> None:
        """Learn which runs executions belong to, from the names of their roots."""
        parents: dict[int, int] = {}
        level = [execution for execution in executions if execution.id not in self._run_ids]
        while level:
            for execution in level:
                if _is_root(execution):
                    self._run_ids[execution.id] = execution.name.removeprefix(_ROOT_NAME)
                elif parent := _read_parent(execution):
                    parents[execution.id] = parent
                else:
                    self._run_ids[execution.id] = self._find_run_of(execution.id)
            wanted = set(parents.values()) - parents.keys() - self._run_ids.keys()
            level = self._get_executions(wanted)
            for lost in wanted - {execution.id for execution in level}:
                self._run_ids[lost] = ""
        for number in parents:
            top = number
            while top not in self._run_ids:
                top = parents[top]
            self._run_ids[number] = self._run_ids[top] or self._find_run_of(number)

    def _find_run_of(self, number: int) -> str:
        contexts = self._call("GetContextsByExecution", execution_id=number).contexts
        return next((context.name for context in contexts if context.type == _RUN_TYPE), "")

    def _parse_tasks(self, executions: list[Message]) -> list[TaskRecord]:
        events = [
            event
            for batch in batches([str(execution.id) for execution in executions], size=_BATCH_SIZE)
            for event in self._call(
                "GetEventsByExecutionIDs", execution_ids=[int(number) for number in batch]
            ).events
        ]
        artifacts = self._get_artifacts(event.artifact_id for event in events)
        by_execution: dict[int, list[Message]] = defaultdict(list)
        for event in events:
            by_execution[event.execution_id].append(event)
        return [
            _parse_task(
                execution,
                events=by_execution[execution.id],
                artifacts=artifacts,
                run_id=self._run_ids.get(execution.id, ""),
            )
            for execution in executions
        ]

    def _list(
        self, method: str, field: str, *, filter_query: str = "", **request: Any
    ) -> Iterator[Message]:
        options = message("ListOperationOptions")(max_result_size=_PAGE_SIZE)
        if filter_query:
            options.filter_query = filter_query
        while True:
            page = self._call(method, options=options, **request)
            yield from getattr(page, field)
            if not page.next_page_token:
                return
            options.next_page_token = page.next_page_token

    def _call(self, method: str, **fields: Any) -> Message:
        request = message(f"{method}Request")(**fields)
        try:
            return self._calls[method](request, timeout=_TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            msg = f"Failed to ask ML Metadata at {self._address} ({method}): {error.details()}"
            if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT):
                raise InputError(msg) from error
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise TransientError(msg) from error
            raise PermanentError(msg) from error


def _parse_task(
    execution: Message,
    *,
    events: Iterable[Message],
    artifacts: Mapping[int, Artifact],
    run_id: str,
) -> TaskRecord:
    properties = _read_properties(execution.custom_properties)
    state = execution.last_known_state
    cached_from = str(properties.get("cached_execution_id", ""))
    inputs: dict[str, tuple[Artifact, ...]] = {}
    outputs: dict[str, tuple[Artifact, ...]] = {}
    for event in sorted(events, key=lambda event: event.artifact_id):
        side = outputs if event.type in _OUTPUT_EVENTS else inputs
        if event.artifact_id in artifacts and event.path.steps:
            key = event.path.steps[0].key
            side[key] = (*side.get(key, ()), artifacts[event.artifact_id])
    return TaskRecord(
        task_id=str(execution.id),
        name=str(properties.get("task_name") or execution.name),
        run_id=run_id,
        state=_STATES.get(state, "RUNTIME_STATE_UNSPECIFIED"),
        input_parameters=properties.get("inputs") or {},
        output_parameters=properties.get("outputs") or {},
        input_artifacts=inputs,
        output_artifacts=outputs,
        type=_read_type(execution, properties),
        parent_id=str(_read_parent(execution) or ""),
        is_importer=execution.type in _IMPORTERS,
        create_time=_read_time(execution.create_time_since_epoch),
        start_time=_read_time(execution.create_time_since_epoch),
        end_time=_read_time(execution.last_update_time_since_epoch)
        if state in (_COMPLETE, _FAILED, _CACHED, _CANCELED)
        else None,
        is_cached=state == _CACHED or bool(cached_from),
        cached_from=cached_from,
        fingerprint=str(properties.get("cache_fingerprint", "")),
    )


def _read_type(execution: Message, properties: Mapping[str, Any]) -> str:
    if execution.type != _GROUP_TYPE:
        return "RUNTIME"
    if _is_root(execution):
        return "ROOT"
    return "LOOP" if "iteration_count" in properties else "DAG"


def _parse_artifact(raw: Message) -> Artifact:
    properties = _read_properties(raw.custom_properties)
    return Artifact(
        artifact_id=str(raw.id),
        name=str(properties.get("display_name") or raw.name),
        type=raw.type.removeprefix("system."),
        uri=raw.uri,
        metadata={key: _unwrap(value) for key, value in properties.items() if key not in _OWN_KEYS},
        created_at=_read_time(raw.create_time_since_epoch),
    )


def _read_properties(properties: Mapping[str, Message]) -> dict[str, Any]:
    return {key: _read_value(value) for key, value in properties.items()}


def _read_value(value: Message) -> Any:  # Any: JSON
    kind = value.WhichOneof("value")
    if kind != "struct_value":
        return None if kind is None else getattr(value, kind)
    return json_format.MessageToDict(value.struct_value)


def _unwrap(value: Any) -> Any:  # Any: JSON
    """Undo what KFP does to lists and objects of an artifact's metadata, which a struct holds."""
    if isinstance(value, dict) and len(value) == 1 and value.keys() <= {"list", "struct"}:
        return next(iter(value.values()))
    return value


def _read_parent(execution: Message) -> int:
    if "parent_dag_id" not in execution.custom_properties:
        return 0
    return int(execution.custom_properties["parent_dag_id"].int_value)


def _is_root(execution: Message) -> bool:
    return bool(execution.name.startswith(_ROOT_NAME))


def _read_time(milliseconds: int) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None


def _quote(text: str) -> str:
    """Text inside of single quotes of a filter."""
    return json.dumps(text)[1:-1].replace("'", "\\'")
