"""An ML Metadata store in memory behind gRPC, filled the way KFP's driver and launcher fill one.

What is written, by whom and in which order: the root driver makes the contexts of pipeline and run
and the root execution; each task's driver makes an execution with its inputs, running; its launcher
records artifacts and publishes the execution with its outputs. An importer does both by itself.

Source: kubeflow/pipelines 2.x, backend/src/v2/driver, component and metadata/client.go.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf import json_format

from kubeloop.pipelines.metadata.mlmd_messages import METHODS, SERVICE, message
from kubeloop.testing.recorded_runs import START, GivenArtifact, GivenRun, GivenTask

_RUNNING, _COMPLETE, _FAILED, _CACHED = 2, 3, 4, 5
_INPUT, _OUTPUT = 3, 4
_LIVE = 2
_MAX_PAGE = 100
_SESSION = json.dumps({"Provider": "minio", "Params": {"fromEnv": "true"}})
_LIKE = re.compile(r"uri LIKE '%(.*)%'")


class MlmdStore:
    """What the server holds, and answers to its calls."""

    def __init__(self) -> None:
        self.contexts: dict[int, Any] = {}
        self.executions: dict[int, Any] = {}
        self.artifacts: dict[int, Any] = {}
        self.events: list[Any] = []
        self.parents: dict[int, int] = {}
        self.associations: list[tuple[int, int]] = []
        self.num_calls = 0
        self._time = int(START.timestamp() * 1000)

    def tick(self) -> int:
        """A time later than all before, in milliseconds."""
        self._time += 1
        return self._time

    def answer(self, method: str, request: Any) -> Any:
        """Answer a call."""
        self.num_calls += 1
        response = message(f"{method}Response")()
        handler: Callable[[Any, Any], None] = getattr(self, f"_{_snake(method)}")
        handler(request, response)
        return response

    def _get_artifacts(self, request: Any, response: Any) -> None:
        found = list(self.artifacts.values())
        if request.options.filter_query:
            like = _LIKE.fullmatch(request.options.filter_query)
            assert like is not None, f"not a filter of MLMD: {request.options.filter_query}"
            pattern = re.escape(like[1]).replace("%", ".*").replace("_", ".")
            found = [raw for raw in found if re.search(pattern, raw.uri)]
        self._give_page(found, request, response, field="artifacts")

    def _get_artifacts_by_id(self, request: Any, response: Any) -> None:
        wanted = set(request.artifact_ids)
        response.artifacts.extend(raw for raw in self.artifacts.values() if raw.id in wanted)

    def _get_artifacts_by_uri(self, request: Any, response: Any) -> None:
        wanted = set(request.uris)
        response.artifacts.extend(raw for raw in self.artifacts.values() if raw.uri in wanted)

    def _get_executions_by_id(self, request: Any, response: Any) -> None:
        wanted = set(request.execution_ids)
        response.executions.extend(raw for raw in self.executions.values() if raw.id in wanted)

    def _get_executions_by_context(self, request: Any, response: Any) -> None:
        inside = {e for e, context in self.associations if context == request.context_id}
        found = [raw for raw in self.executions.values() if raw.id in inside]
        self._give_page(found, request, response, field="executions")

    def _get_events_by_execution_ids(self, request: Any, response: Any) -> None:
        wanted = set(request.execution_ids)
        response.events.extend(raw for raw in self.events if raw.execution_id in wanted)

    def _get_events_by_artifact_ids(self, request: Any, response: Any) -> None:
        wanted = set(request.artifact_ids)
        response.events.extend(raw for raw in self.events if raw.artifact_id in wanted)

    def _get_context_by_type_and_name(self, request: Any, response: Any) -> None:
        for raw in self.contexts.values():
            if (raw.type, raw.name) == (request.type_name, request.context_name):
                response.context.CopyFrom(raw)

    def _get_contexts_by_execution(self, request: Any, response: Any) -> None:
        wanted = {c for execution, c in self.associations if execution == request.execution_id}
        response.contexts.extend(raw for raw in self.contexts.values() if raw.id in wanted)

    def _get_parent_contexts_by_context(self, request: Any, response: Any) -> None:
        if parent := self.parents.get(request.context_id):
            response.contexts.append(self.contexts[parent])

    def _give_page(self, found: Sequence[Any], request: Any, response: Any, *, field: str) -> None:
        size = min(request.options.max_result_size, _MAX_PAGE)
        start = int(request.options.next_page_token or 0)
        getattr(response, field).extend(found[start : start + size])
        if start + size < len(found):
            response.next_page_token = str(start + size)


@contextmanager
def serving_mlmd(store: MlmdStore) -> Iterator[str]:
    """The address of a server of the store."""

    def handler(method: str) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            lambda request, _: store.answer(method, request),
            request_deserializer=message(f"{method}Request").FromString,
            response_serializer=lambda response: response.SerializeToString(),
        )

    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        handlers = {method: handler(method) for method in METHODS}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(grace=None).wait()


class KfpWriter:
    """Writes runs into a store."""

    def __init__(self, store: MlmdStore) -> None:
        self._store = store
        self._tasks: dict[str, int] = {}
        self._outputs: dict[str, dict[str, list[int]]] = {}

    def write(self, runs: Sequence[GivenRun]) -> None:
        """Write runs, each to its end."""
        for run in runs:
            self._write_run(run)

    def _write_run(self, run: GivenRun) -> None:
        pipeline = self._get_or_insert_context("system.Pipeline", run.pipeline, {})
        context = self._get_or_insert_context(
            "system.PipelineRun",
            run.run_id,
            {
                "namespace": "kubeflow",
                "resource_name": "run-resource",
                "pipeline_root": f"minio://mlpipeline/v2/artifacts/{run.pipeline}/{run.run_id}",
                "store_session_info": _SESSION,
            },
        )
        self._store.parents[context] = pipeline
        contexts = (pipeline, context)
        groups = {"": self._create_group(contexts, "", name=f"run/{run.run_id}")}
        for task in run.tasks:
            if task.group not in groups:
                groups[task.group] = self._create_group(contexts, task.group, parent=groups[""])
            self._write_task(run, task, contexts=contexts, parent=groups[task.group])

    def _create_group(
        self, contexts: tuple[int, int], task_name: str, *, name: str = "", parent: int = 0
    ) -> int:
        """What a DAG's driver writes; the root has a name and no parent, and stays running."""
        properties = {"display_name": task_name, "task_name": task_name}
        execution = self._create_execution("system.DAGExecution", contexts, properties, name=name)
        if parent:
            execution.custom_properties["parent_dag_id"].int_value = parent
            execution.custom_properties["total_dag_tasks"].int_value = 1
        json_format.ParseDict({}, execution.custom_properties["inputs"].struct_value)
        return int(execution.id)

    def _write_task(
        self, run: GivenRun, task: GivenTask, *, contexts: tuple[int, int], parent: int
    ) -> None:
        execution = self._create_task(task, contexts=contexts, parent=parent)
        for key, wanted in task.takes.items():
            for source, name in wanted:
                self._add_event(execution.id, self._outputs[source][name][0], _INPUT, key)
        outputs = self._outputs.get(task.cached_from) or {
            key: [self._record_artifact(key, item) for item in items]
            for key, items in task.gives.items()
        }
        if task.outputs:
            json_format.ParseDict(
                dict(task.outputs), execution.custom_properties["outputs"].struct_value
            )
        for key, numbers in outputs.items():
            for number in numbers:
                self._add_event(execution.id, number, _OUTPUT, key)
        ended = _CACHED if task.cached_from else _FAILED if task.is_failed else _COMPLETE
        execution.last_known_state = ended
        execution.last_update_time_since_epoch = self._store.tick()
        self._tasks[f"{run.run_id}/{task.name}"] = execution.id
        self._outputs[f"{run.run_id}/{task.name}"] = outputs

    def _create_task(self, task: GivenTask, *, contexts: tuple[int, int], parent: int) -> Any:
        properties = {"display_name": task.name, "task_name": task.name}
        kind = "system.ImporterExecution" if task.is_importer else "system.ContainerExecution"
        if not task.is_importer:
            properties |= {
                "pod_name": "" if task.cached_from else "pod",
                "pod_uid": "",
                "namespace": "kubeflow",
                "image": "python:3.11",
                "cache_fingerprint": "f00",
            }
        if task.cached_from:
            properties["cached_execution_id"] = str(self._tasks[task.cached_from])
        execution = self._create_execution(kind, contexts, properties)
        execution.custom_properties["parent_dag_id"].int_value = parent
        if not task.is_importer:
            json_format.ParseDict(
                dict(task.inputs), execution.custom_properties["inputs"].struct_value
            )
        return execution

    def _create_execution(
        self,
        kind: str,
        contexts: tuple[int, int],
        properties: Mapping[str, str],
        *,
        name: str = "",
    ) -> Any:
        now = self._store.tick()
        execution = message("Execution")(
            id=len(self._store.executions) + 1,
            type=kind,
            last_known_state=_RUNNING,
            create_time_since_epoch=now,
            last_update_time_since_epoch=now,
        )
        if name:
            execution.name = name
        for key, text in properties.items():
            execution.custom_properties[key].string_value = text
        self._store.executions[execution.id] = execution
        self._store.associations += [(execution.id, context) for context in contexts]
        return execution

    def _record_artifact(self, output: str, given: GivenArtifact) -> int:
        artifact = message("Artifact")(
            id=len(self._store.artifacts) + 1,
            type=f"system.{given.type}",
            uri=given.uri,
            state=_LIVE,
            create_time_since_epoch=self._store.tick(),
        )
        for key, value in given.metadata.items():
            _write_value(artifact.custom_properties[key], value)
        artifact.custom_properties["display_name"].string_value = output
        artifact.custom_properties["store_session_info"].string_value = _SESSION
        self._store.artifacts[artifact.id] = artifact
        return int(artifact.id)

    def _add_event(self, execution: int, artifact: int, kind: int, key: str) -> None:
        event = message("Event")(
            execution_id=execution,
            artifact_id=artifact,
            type=kind,
            milliseconds_since_epoch=self._store.tick(),
        )
        event.path.steps.add(key=key)
        self._store.events.append(event)

    def _get_or_insert_context(self, kind: str, name: str, properties: Mapping[str, str]) -> int:
        for context in self._store.contexts.values():
            if (context.type, context.name) == (kind, name):
                return int(context.id)
        context = message("Context")(
            id=len(self._store.contexts) + 1,
            type=kind,
            name=name,
            create_time_since_epoch=self._store.tick(),
        )
        for key, text in properties.items():
            context.custom_properties[key].string_value = text
        self._store.contexts[context.id] = context
        return int(context.id)


def _write_value(value: Any, given: Any) -> None:
    if isinstance(given, bool):
        value.int_value = int(given)
    elif isinstance(given, (int, float)):
        value.double_value = given
    elif isinstance(given, str):
        value.string_value = given
    else:
        wrapped = {"list" if isinstance(given, list) else "struct": given}
        json_format.ParseDict(wrapped, value.struct_value)


def _snake(name: str) -> str:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    return spaced.replace("IDs", "Ids").lower()
