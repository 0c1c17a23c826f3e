"""`kubeloop runs why`: why a task hit or missed the cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

from kubeloop.cli.options import (
    DEFAULT_STATE,
    ContextOption,
    MetadataAddressOption,
    NamespaceOption,
    Output,
    OutputOption,
    Session,
    StateOption,
    console,
    print_json,
)
from kubeloop.cli.run_names import RunArgument, TaskArgument
from kubeloop.errors import InputError, KubeloopError

if TYPE_CHECKING:
    from kubeloop.pipelines.cache_reasons import CacheAnswer, Execution
    from kubeloop.pipelines.metadata import MetadataSource, TaskRecord
    from kubeloop.pipelines.runs import Run

_MAX_EARLIER_RUNS = 20
_COLORS = {"hit": "green", "missed": "yellow"}


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command()(why)


def why(
    run: RunArgument,
    task: TaskArgument,
    *,
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    namespace: NamespaceOption = "",
    metadata_address: MetadataAddressOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Say why a task took the outputs of an earlier execution, or ran.

    A task is compared with the execution that differs least, of those in earlier runs.

    Examples:
        kubeloop runs why 0f3c9a54 train-model

        kubeloop runs why 0f3c9a54 train-model --output json
    """
    session = Session.open(
        state, context=context, namespace=namespace, metadata_address=metadata_address
    )
    answers = explain_task(session, run, task)
    if output is Output.JSON:
        described = [asdict(answer) for answer in answers]
        print_json(described[0] if len(described) == 1 else described)
        return
    for answer in answers:
        if len(answers) > 1:  # the iterations of a loop
            console.print(f"[bold]{answer.task}[/bold]")
        show(answer)


def explain_task(session: Session, run: str, task: str) -> list[CacheAnswer]:
    """The answer for each execution of a task in a run: in a loop there are several.

    Raises:
        InputError: The run has no such task.
    """
    from kubeloop.pipelines.cache_reasons import Execution, explain
    from kubeloop.pipelines.run_control import find_run

    client = session.connect_pipelines()
    run_id = find_run(client, run)
    spec = read_spec(client, run_id)
    try:
        with session.connect_metadata() as metadata:
            records = select(metadata.list_tasks(run_id), task, run_id=run_id)
            earlier = list(find_earlier(client, metadata, records[0], spec=spec))
            sources = [metadata.get_task(r.cached_from) for r in records if r.cached_from]
    except InputError:
        raise
    except KubeloopError as error:
        return [explain_without_record(client, run_id, task, spec=spec, cause=error)]
    earlier += [Execution(record=source, spec={}) for source in sources]
    return [explain(Execution(record=record, spec=spec), earlier) for record in records]


def select(records: list[TaskRecord], task: str, *, run_id: str) -> list[TaskRecord]:
    """The records of a task.

    Raises:
        InputError: There is none.
    """
    if found := [r for r in records if task in (r.name, r.task_id, r.path.removeprefix("root."))]:
        # A pipeline may be called as its step is.
        return [record for record in found if not record.is_group] or found
    names = ", ".join(dict.fromkeys(r.name for r in records if not r.is_group)) or "none yet"
    raise InputError(f"Run {run_id} has no task {task!r}; it has {names}.")


def find_earlier(
    client: Any, metadata: MetadataSource, record: TaskRecord, *, spec: dict[str, Any]
) -> Iterator[Execution]:
    """Executions of a task in earlier runs of the pipeline, newest first."""
    from kubeloop.pipelines.cache_reasons import Execution
    from kubeloop.pipelines.runs import get_run, list_runs

    name = spec.get("pipelineInfo", {}).get("name", "")
    begun = get_run(client, record.run_id).created_at
    num_runs = 0
    for run in list_runs(client, page_size=200):
        if run.run_id == record.run_id or (begun and run.created_at and run.created_at > begun):
            continue
        of_run = read_spec(client, run.run_id)
        if of_run.get("pipelineInfo", {}).get("name", "") != name:
            continue
        for found in metadata.list_tasks(run.run_id):
            if found.name == record.name and not found.is_group:
                yield Execution(record=found, spec=of_run)
        num_runs += 1
        if num_runs == _MAX_EARLIER_RUNS:
            return


def read_spec(client: Any, run_id: str) -> dict[str, Any]:
    """The pipeline spec of a run; empty where it is not told any more."""
    from kubeloop.pipelines.run_control import read_pipeline

    try:
        pipeline = read_pipeline(client, run_id)
    except InputError:
        return {}
    return dict(pipeline.get("pipeline_spec", pipeline))


def explain_without_record(
    client: Any, run_id: str, task: str, *, spec: dict[str, Any], cause: KubeloopError
) -> CacheAnswer:
    """What a run's pipeline alone says, where the cluster's record cannot be read."""
    from kubeloop.pipelines.cache_reasons import CacheAnswer, Verdict
    from kubeloop.pipelines.runs import get_run

    run: Run = get_run(client, run_id)
    tasks = [
        found
        for component in (spec.get("root", {}), *spec.get("components", {}).values())
        for name, found in component.get("dag", {}).get("tasks", {}).items()
        if name == task
    ]
    if not tasks:
        raise InputError(f"Run {run_id} ({run.name}) has no task {task!r}.")
    is_on = any(found.get("cachingOptions", {}).get("enableCache") for found in tasks)
    if not is_on:
        reason = "caching is off for the task, in the pipeline or for the run"
        return CacheAnswer(task=task, run_id=run_id, verdict=Verdict.OFF, reasons=(reason,))
    reason = f"the task takes part in caching, but the record of tasks cannot be read: {cause}"
    return CacheAnswer(task=task, run_id=run_id, verdict=Verdict.UNKNOWN, reasons=(reason,))


def show(answer: CacheAnswer) -> None:
    """Print an answer."""
    line = Text.assemble((answer.verdict, _COLORS.get(answer.verdict, "")), ": ")
    console.print(line.append(answer.reasons[0]), soft_wrap=True)
    for reason in answer.reasons[1:]:
        console.print(Text(f"  {reason}"), soft_wrap=True)
    for change in answer.changes:
        for text in change.diff:
            console.print(Text(f"    {text}", "dim"), soft_wrap=True)
    if answer.compared_with and answer.verdict != "hit":
        earlier = answer.compared_with
        when = f", {earlier.ended_at:%Y-%m-%d %H:%M:%S}" if earlier.ended_at else ""
        text = f"compared with task {earlier.task_id} of run {earlier.run_id}{when}"
        console.print(Text(f"  {text}", "dim"), soft_wrap=True)
