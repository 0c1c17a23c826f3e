"""Submitting compiled pipelines and following their runs, through the official KFP client.

The same calls reach the embedded plane and a cluster; only how the client is made differs.
"""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from kubeloop.errors import InputError, KubeloopError, PermanentError, TransientError
from kubeloop.pipelines.packages import PipelinePackage, with_caching
from kubeloop.sdk_errors import read_message

KfpClient = Any  # kfp.Client; the SDK has no types

DEFAULT_EXPERIMENT = "Default"


class RunState(StrEnum):
    """State of a run or of one of its tasks."""

    UNSPECIFIED = "RUNTIME_STATE_UNSPECIFIED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    SKIPPED = "SKIPPED"
    FAILED = "FAILED"
    CANCELING = "CANCELING"
    CANCELED = "CANCELED"
    PAUSED = "PAUSED"

    @property
    def is_final(self) -> bool:
        """Whether nothing follows this state."""
        return self in _FINAL


_FINAL = frozenset({RunState.SUCCEEDED, RunState.SKIPPED, RunState.FAILED, RunState.CANCELED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task of a run as the API presents it."""

    name: str
    state: RunState
    start_time: datetime | None = None
    end_time: datetime | None = None
    error: str = ""
    is_group: bool = False
    """Whether it stands for other tasks: the pipeline itself, a condition, a loop."""
    task_id: str = ""
    pod_name: str = ""
    failed_pods: tuple[str, ...] = ()
    """Of earlier tries."""
    child_ids: tuple[str, ...] = ()
    """Identifiers of the tasks that it stands for."""
    child_pods: tuple[str, ...] = ()
    """Pods that the API names in place of such tasks."""

    @property
    def seconds(self) -> float | None:
        """Seconds from start to end, None while it lacks one of them."""
        if self.start_time is None or self.end_time is None:
            return None
        return (self.end_time - self.start_time).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as the API presents it; `tasks` in order of creation."""

    run_id: str
    name: str
    state: RunState
    created_at: datetime | None = None
    finished_at: datetime | None = None
    error: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[Task, ...] = ()
    is_archived: bool = False
    experiment_id: str = ""

    @property
    def seconds(self) -> float | None:
        """Seconds from creation to end, None before it."""
        if self.created_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.created_at).total_seconds()

    @property
    def failed_task(self) -> Task | None:
        """The task that failed first."""
        failed = [t for t in self.tasks if t.state is RunState.FAILED and not t.is_group]
        return min(failed, key=lambda task: (task.end_time is None, task.end_time), default=None)


def connect(*, host: str = "", token: str = "", context: str = "") -> KfpClient:
    """Make a KFP client: by URL and token, or through a kubeconfig context's API server.

    Raises:
        TransientError: The API does not answer.
    """
    from kfp import Client

    with warnings.catch_warnings(), translated_errors("connect to the KFP API"):
        warnings.simplefilter("ignore", FutureWarning)
        if host:
            return Client(host=host, existing_token=token)
        return Client(kube_context=context)


def submit(
    client: KfpClient,
    package: PipelinePackage,
    *,
    parameters: Mapping[str, Any],
    run_name: str = "",
    experiment: str = DEFAULT_EXPERIMENT,
    pipeline_root: str = "",
    enable_caching: bool | None = None,
) -> str:
    """Create a run of a compiled pipeline.

    Args:
        client: From `connect`.
        package: What to run.
        parameters: Pipeline parameters, typed as the pipeline declares them.
        run_name: Display name; empty: the pipeline's name and the time.
        experiment: KFP experiment, made when missing.
        pipeline_root: Where artifacts go; empty: the server's default.
        enable_caching: Overrides what the tasks say, those in loops and conditions as well.

    Returns:
        The run id.

    Raises:
        InputError: The API refused the pipeline or its parameters.
    """
    name = run_name or f"{package.name} {datetime.now().astimezone():%Y-%m-%d %H-%M-%S}"
    with (
        translated_errors(f"run {package.path}"),
        contextlib.redirect_stdout(io.StringIO()),
        with_caching(package, enabled=enable_caching) as path,
    ):
        experiment_id = client.create_experiment(experiment).experiment_id
        run = client.run_pipeline(
            experiment_id=experiment_id,
            job_name=name,
            pipeline_package_path=str(path),
            params=dict(parameters),
            pipeline_root=pipeline_root or None,
        )
    return str(run.run_id)


def get_run(client: KfpClient, run_id: str) -> Run:
    """Read a run with its tasks.

    Raises:
        InputError: There is no such run.
    """
    with translated_errors(f"read run {run_id}"):
        return parse_run(client.get_run(run_id))


def list_runs(client: KfpClient, *, page_size: int = 50) -> list[Run]:
    """Read the newest runs, newest first, without tasks."""
    with translated_errors("list runs"):
        response = client.list_runs(page_size=page_size, sort_by="created_at desc")
        return [parse_run(run) for run in response.runs or []]


def terminate(client: KfpClient, run_id: str) -> None:
    """Ask a run to stop; its tasks clean up what they created."""
    with translated_errors(f"terminate run {run_id}"):
        client.terminate_run(run_id)


def wait(
    client: KfpClient,
    run_id: str,
    *,
    on_change: Callable[[Run], None] = lambda _: None,
    timeout_seconds: float = 7 * 24 * 3600,
    poll_seconds: float = 0.2,
    unavailable_seconds: float = 10.0,
) -> Run:
    """Follow a run until it ends; `on_change` sees every reading.

    Raises:
        TransientError: The run has not ended in time, or the API did not answer for
            `unavailable_seconds`.
    """
    answered = time.monotonic()
    deadline = answered + timeout_seconds
    while True:
        try:
            run = get_run(client, run_id)
        except TransientError as error:
            if time.monotonic() - answered > unavailable_seconds:
                msg = f"{error} The run goes on when it is: see `kubeloop runs {run_id}`."
                raise TransientError(msg) from error
            time.sleep(poll_seconds)
            continue
        answered = time.monotonic()
        on_change(run)
        if run.state.is_final:
            return run
        if time.monotonic() >= deadline:
            msg = (
                f"Run {run_id} has not ended after {timeout_seconds:.0f} s (state {run.state});"
                f" it goes on, see `kubeloop runs {run_id}`."
            )
            raise TransientError(msg)
        time.sleep(poll_seconds)


def parse_run(raw: Any) -> Run:  # Any: kfp_server_api's V2beta1Run
    """A run as the generated client carries it."""
    details = raw.run_details.task_details if raw.run_details else None
    parameters = raw.runtime_config.parameters if raw.runtime_config else None
    return Run(
        run_id=raw.run_id,
        name=raw.display_name or "",
        state=_parse_state(raw.state),
        created_at=raw.created_at,
        finished_at=raw.finished_at if raw.finished_at and raw.finished_at.year > 1970 else None,
        error=raw.error.message or "" if raw.error else "",
        parameters=parameters or {},
        tasks=tuple(_parse_task(task) for task in details or []),
        is_archived=raw.storage_state == "ARCHIVED",
        experiment_id=raw.experiment_id or "",
    )


def _parse_task(raw: Any) -> Task:  # Any: kfp_server_api's V2beta1PipelineTaskDetail
    return Task(
        name=raw.display_name or raw.task_id,
        state=_parse_state(raw.state),
        start_time=raw.start_time,
        end_time=raw.end_time if raw.end_time and raw.end_time.year > 1970 else None,
        error=raw.error.message or "" if raw.error else "",
        is_group=bool(raw.child_tasks),
        task_id=raw.task_id or "",
        pod_name=raw.pod_name or "",
        failed_pods=tuple(raw.executor_detail.failed_main_jobs or ())
        if raw.executor_detail
        else (),
        child_ids=tuple(child.task_id for child in raw.child_tasks or () if child.task_id),
        child_pods=tuple(child.pod_name for child in raw.child_tasks or () if child.pod_name),
    )


def _parse_state(text: str | None) -> RunState:
    try:
        return RunState(text or RunState.UNSPECIFIED)
    except ValueError:
        return RunState.UNSPECIFIED


@contextlib.contextmanager
def translated_errors(action: str) -> Iterator[None]:
    """Turn the SDK's exceptions into ours, with the server's own sentence.

    Raises:
        InputError: The API refused what was asked for.
        TransientError: The API does not answer.
        PermanentError: It failed otherwise.
    """
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        raise _parse_api_exception(action, error) from error
    except (HTTPError, OSError, TimeoutError) as error:
        msg = f"Failed to {action}: the KFP API does not answer ({error}); is it running?"
        raise TransientError(msg) from error


def _parse_api_exception(action: str, error: Any) -> KubeloopError:
    text = f"Failed to {action}: {read_message(error)}"
    if error.status in (400, 404, 409, 413, 422):
        return InputError(text)
    if error.status in (429, 502, 503, 504):
        return TransientError(text)
    return PermanentError(text)
