"""Tasks that clients keep: what a step does below it, told in tasks of its own.

The tasks of the pipeline itself are kept by the engine, which alone knows their state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from kubeloop.local.pipelines.messages import as_message, choice, optional_number, required, text
from kubeloop.local.pipelines.reporting import IO_KINDS, PRODUCER_FIELDS
from kubeloop.local.pipelines.rpc_errors import invalid, not_found, precondition
from kubeloop.local.pipelines.service import Service
from kubeloop.local.pipelines.spec.nodes import listed
from kubeloop.local.pipelines.spec.values import canonical
from kubeloop.local.pipelines.storage.records import (
    Attempt,
    InputKind,
    Origin,
    StateChange,
    Task,
    TaskState,
    TaskType,
    TaskValues,
    attempt_number,
    new_id,
)

_TASK = (
    "name",
    "display_name",
    "task_id",
    "run_id",
    "pods",
    "cache_fingerprint",
    "create_time",
    "start_time",
    "end_time",
    "status",
    "state",
    "status_metadata",
    "state_history",
    "type",
    "type_attributes",
    "error",
    "parent_task_id",
    "child_tasks",
    "inputs",
    "outputs",
    "scope_path",
)
_ERROR = ("code", "message", "details")
_PARAMETER = ("value", "name", "parameter_key", "producer", "type")
_STATES = tuple(state for state in TaskState if state is not TaskState.NOT_RUN)


class TaskReports:
    """Reads reports of tasks against what the store holds."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._store = service.store

    def read_new_task(self, value: Any, *, run_id: str = "") -> Task:  # any JSON a client sent
        """Read a task to be made.

        Args:
            value: A `PipelineTask`.
            run_id: The run that the request's path names.

        Raises:
            RpcError: It has no name or run, or the run or parent does not exist.
        """
        message = as_message(value, kind="PipelineTask", fields=_TASK)
        if text(message, "task_id"):
            raise invalid("The task_id of a new task is given by the server; leave it out.")
        name = required(message, "name", of="a task")
        run_id = run_id or required(message, "run_id", of="a task")
        if text(message, "run_id") not in ("", run_id):
            raise invalid(f"The task names another run than the path, which names {run_id!r}.")
        if self._store.runs.get(run_id) is None:
            raise not_found("Run", run_id)
        parent_id = text(message, "parent_task_id")
        parent = self._store.tasks.get(parent_id) if parent_id else None
        if parent_id and (parent is None or parent.run_id != run_id):
            raise invalid(f"The parent_task_id {parent_id!r} is no task of run {run_id!r}.")
        task = Task(
            task_id=new_id(),
            run_id=run_id,
            parent_id=parent_id,
            name=name,
            display_name=name,
            path=f"{parent.path}.{name}" if parent else name,
            type=TaskType.RUNTIME,
            state=TaskState.PENDING,
            create_time=self._service.clock(),
            is_reported=True,
        )
        return self._apply(task, message)

    def read_change(self, task_id: str, value: Any, *, run_id: str = "") -> Task:
        """Read a change to a task that a client made.

        Raises:
            RpcError: It does not exist, is the engine's, or the change is malformed.
        """
        message = as_message(value, kind="PipelineTask", fields=_TASK)
        task = self._store.tasks.get(task_id)
        if task is None or run_id not in ("", task.run_id):
            raise not_found("Task", task_id)
        for name, own in (("task_id", task_id), ("run_id", task.run_id)):
            if text(message, name) not in ("", own):
                raise invalid(f"The {name} of task {task_id!r} is {own!r} and cannot be changed.")
        if not task.is_reported:
            raise precondition(
                f"Task {task_id} ({task.name!r}) is a step of the pipeline, whose state the engine "
                "keeps; report artifacts to it, or make a task of your own below it."
            )
        return self._apply(task, message)

    def _apply(self, task: Task, message: Mapping[str, Any]) -> Task:
        """The task with the fields that the message sets."""
        now = self._service.clock()
        changes: dict[str, Any] = {}
        for name, field in (
            ("name", "name"),
            ("display_name", "display_name"),
            ("cache_fingerprint", "fingerprint"),
            ("scope_path", "path"),
        ):
            if written := text(message, name):
                changes[field] = written
        for name in ("create_time", "start_time", "end_time"):
            if name in message:
                changes[name] = _read_time(message[name], name)
        if "type" in message:
            changes["type"] = TaskType(choice(message, "type", tuple(TaskType)))
        if "error" in message:
            error = as_message(
                message["error"], kind="Status", fields=("code", "message", "details")
            )
            changes["error"] = text(error, "message")
        changes |= _read_status(message) | _read_attributes(message) | _read_pods(task, message)
        for side in ("inputs", "outputs"):
            if side in message:
                changes[side] = _merge(getattr(task, side), message[side], side=side)
        return _enter_state(replace(task, **changes), message, now=now)


def _enter_state(task: Task, message: Mapping[str, Any], *, now: float) -> Task:
    """The task in the state that the message sets, which its history and times follow."""
    name = "state" if "state" in message else "status"
    state = _read_state(text(message, name), name) if name in message else task.state
    if task.state_history and state is task.state:
        return task
    change = StateChange(state=state, time=now, message=task.error)
    has_started = state not in (TaskState.PENDING, TaskState.SKIPPED)
    return replace(
        task,
        state=state,
        state_history=(*task.state_history, change),
        start_time=task.start_time or (now if has_started else 0.0),
        end_time=task.end_time or (now if state.is_done else 0.0),
    )


def _read_state(written: str, name: str) -> TaskState:
    if written not in _STATES:
        raise invalid(f"{name} {written!r} is not one of {listed(_STATES)}.")
    return TaskState(written)


def _read_time(written: Any, name: str) -> float:
    try:
        return datetime.fromisoformat(str(written).replace("Z", "+00:00")).timestamp()
    except ValueError:
        raise invalid(f"{name} {written!r} is no time (RFC 3339).") from None


def _read_status(message: Mapping[str, Any]) -> dict[str, Any]:
    if "status_metadata" not in message:
        return {}
    fields = ("message", "custom_properties")
    status = as_message(message["status_metadata"], kind="StatusMetadata", fields=fields)
    properties = status.get("custom_properties", {})
    if not isinstance(properties, dict):
        raise invalid(f"custom_properties is an object, not {properties!r}.")
    return {"status_message": text(status, "message"), "custom_properties": canonical(properties)}


def _read_attributes(message: Mapping[str, Any]) -> dict[str, Any]:
    fields = ("iteration_index", "iteration_count")
    written = as_message(message.get("type_attributes", {}), kind="TypeAttributes", fields=fields)
    return {name: int(optional_number(written, name) or 0) for name in fields if name in written}


def _read_pods(task: Task, message: Mapping[str, Any]) -> dict[str, Any]:
    """The Pod of a task: its executor, or whichever is named last."""
    pods = message.get("pods", [])
    if not isinstance(pods, list):
        raise invalid(f"pods is a list, not {pods!r}.")
    written = [as_message(pod, kind="TaskPod", fields=("name", "uid", "type")) for pod in pods]
    if not written:
        return {}
    executors = [pod for pod in written if pod.get("type") in ("EXECUTOR", 1)]
    pod = (executors or written)[-1]
    attempt = Attempt(
        number=attempt_number(task),
        retry_index=0,
        pod_name=text(pod, "name"),
        pod_uid=text(pod, "uid"),
        folder="",
    )
    return {"attempt": attempt}


def _merge(values: TaskValues, written: Any, *, side: str) -> TaskValues:
    """Values with the parameters that a message gives; artifacts come by artifact_tasks."""
    message = as_message(written, kind="InputOutputs", fields=("parameters", "artifacts"))
    given = message.get("parameters", [])
    if not isinstance(given, list):
        raise invalid(f"{side}.parameters is a list, not {given!r}.")
    parameters, origins = dict(values.parameters), dict(values.origins)
    for item in given:
        parameter = as_message(item, kind="IOParameter", fields=_PARAMETER)
        name = text(parameter, "parameter_key") or text(parameter, "name")
        if not name:
            raise invalid(f"A parameter of {side} needs a parameter_key.")
        parameters[name] = canonical(parameter.get("value"))
        producer = as_message(
            parameter.get("producer", {}), kind="IOProducer", fields=PRODUCER_FIELDS
        )
        kind = choice(parameter, "type", IO_KINDS)
        if kind in ("UNSPECIFIED", "INPUT"):
            kind = InputKind.OUTPUT if side == "outputs" else InputKind.COMPONENT_INPUT
        if producer:
            origins[name] = Origin(
                kind=InputKind(kind),
                task_name=text(producer, "task_name"),
                key=text(producer, "key"),
            )
    return replace(values, parameters=parameters, origins=origins)
