"""`kubeloop run FILE --debug TASK`: one task's function in this process, with its real inputs.

What comes before the task runs on the control plane, or is taken from the cache or from an earlier
run. Then the function is called here, as KFP's executor calls it in a Pod, so that breakpoints and
debuggers work.
"""

from __future__ import annotations

import bdb
import contextlib
import json
import sys
import traceback
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from kubeloop.cli.assignments import refuse_faults
from kubeloop.cli.debug_environment import environment
from kubeloop.cli.debug_iterations import choose_record, refuse_iteration
from kubeloop.cli.debug_source import DebugFunction, load_function
from kubeloop.cli.following import execute, report_outcome
from kubeloop.cli.options import Output, Session, console, errors, print_json, require
from kubeloop.errors import InputError, PermanentError
from kubeloop.local.pipelines.engine.executor import (
    Plan,
    build_executor_input,
    prepare_folder,
    safe_name,
)
from kubeloop.local.pipelines.engine.outputs import Outputs, read_outputs
from kubeloop.local.pipelines.spec import ir
from kubeloop.local.pipelines.spec.documents import PipelineDocument
from kubeloop.local.pipelines.spec.parsing import parse_pipeline
from kubeloop.pipelines.metadata import Artifact
from kubeloop.pipelines.packages import PipelinePackage, read_package, written
from kubeloop.pipelines.runs import RunState
from kubeloop.pipelines.task_probe import PROBE_OUTPUT, TaskPlace, build_probe, find_task

_EXPERIMENT = "Debugging"


@dataclass(frozen=True, slots=True, kw_only=True)
class DebugRequest:
    """What to debug, and with which inputs."""

    package: PipelinePackage
    task: str
    parameters: dict[str, Any]
    from_run: str = ""
    """Take the inputs that the task had in this run; empty: run what comes before it."""
    iteration: str = ""
    """Of a loop that the task is in; empty: the first."""
    source: Path | None = None
    """The author's file; None: look for it."""
    stops_at_first_line: bool = False
    enable_caching: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInputs:
    """What a task gets."""

    inputs: dict[str, Any]
    """As in KFP's executor input."""
    folder: Path
    """Takes the outputs."""
    pod: str
    """A Pod with the task's environment; empty where there is none."""


def debug_task(session: Session, request: DebugRequest, *, output: Output) -> int:
    """Run a task's function in this process; returns the exit code.

    Raises:
        InputError: The task cannot be debugged; the message says why.
        PermanentError: What comes before it failed.
    """
    from kubeloop.local.kubelet.lightweight import parse_lightweight_command

    require(("packaging",), what="Debugging", extra="local")
    refuse_cluster(session, request)
    place = find_task(request.package, request.task)
    refuse_iteration(place, request.iteration)
    component = find_component(request.package, place)
    assert isinstance(component.executor, ir.ContainerSpec)
    container = component.executor
    lightweight = parse_lightweight_command([*container.command, *container.args])
    if lightweight is None:
        raise InputError(explain_container(place, container))
    say_missing_packages([text for item in lightweight.installs for text in item.requirements])
    quiet = output is Output.JSON
    if request.from_run:
        found = read_inputs(session, request, place, component)
    else:
        found = run_before(session, request, place, quiet=quiet)
    plan = Plan(
        container=container, component=component, parameters={}, artifacts={}, folder=found.folder
    )
    prepare_folder(plan)
    executor_input = {**build_executor_input(plan), "inputs": found.inputs}
    function = load_function(
        lightweight.source,
        lightweight.arguments,
        folders=source_folders(request.package),
        given=request.source,
        fallback=found.folder / "source" / f"{place.name}.py",
        stops_at_first_line=request.stops_at_first_line,
    )
    if not quiet:
        console.print(Text(f"Debugging {place.name} in {function.file}", "bold"), soft_wrap=True)
        console.print(Text(json.dumps(found.inputs, indent=2), "dim"), soft_wrap=True)
    printed = sys.stderr if quiet else sys.stdout
    with environment(session, found.pod), contextlib.redirect_stdout(printed):
        code = call(function, executor_input)
    return code or report_outputs(plan, place, executor_input, output=output)


def find_component(package: PipelinePackage, place: TaskPlace) -> ir.Component:
    """What a task runs.

    Raises:
        InputError: The pipeline cannot run, or the task runs no code.
    """
    document = PipelineDocument(spec=package.spec, platform=package.platform_spec)
    component = parse_pipeline(document).components[place.component]
    if not isinstance(component.executor, ir.ContainerSpec):
        raise InputError(f"Task {place.name!r} is an importer: it runs no code.")
    return component


def refuse_cluster(session: Session, request: DebugRequest) -> None:
    """Say what is possible with the runs of a cluster.

    Raises:
        InputError: A context was given.
    """
    if not session.context:
        return
    msg = (
        f"--debug runs {request.task!r} in this process, which reaches neither the artifacts nor"
        f" the secrets of a Pod in context {session.context!r}. Leave out --context, so that what"
        " comes before it runs on this machine (`kubeloop up`); or follow the task on the cluster"
        " with `kubeloop runs logs RUN TASK --follow`."
    )
    raise InputError(msg)


def explain_container(place: TaskPlace, container: ir.ContainerSpec) -> str:
    """Why a task cannot be debugged here, and what to do instead."""
    words = " ".join([*container.command, *container.args])
    return (
        f"Task {place.name!r} runs a command in image {container.image}, and no Python function"
        f" that its pipeline carries, so it cannot run in this process: {words[:160]!r}. Run it"
        f" alone and look at what it prints (`kubeloop runs logs RUN {place.name}`), or have its"
        " program wait for a debugger (`python -m debugpy --listen 5678 --wait-for-client …`)."
    )


def say_missing_packages(requirements: list[str]) -> None:
    """Warn of packages that the Pod would have installed, and that this process lacks."""
    from kubeloop.local.kubelet.lightweight import are_satisfied

    missing = [text for text in requirements if not are_satisfied([text])]
    if missing:
        errors.print(
            f"[yellow]Note:[/yellow] the task's packages {', '.join(missing)} are not in this"
            " environment; install them if the function needs them.",
            soft_wrap=True,
        )


def run_before(
    session: Session, request: DebugRequest, place: TaskPlace, *, quiet: bool
) -> TaskInputs:
    """Run what comes before the task, and catch what the task would get.

    Raises:
        PermanentError: Something failed, or the task would not have run.
    """
    from kubeloop.pipelines.runs import get_run, submit

    refuse_faults(request.package, request.parameters)
    client = session.connect_pipelines()
    with written(build_probe(request.package, place)) as path:
        final = execute(
            session,
            client,
            lambda: submit(
                client,
                read_package(path),
                parameters=request.parameters,
                run_name=f"{request.package.name}: up to {place.name}",
                experiment=_EXPERIMENT,
                enable_caching=request.enable_caching,
            ),
            quiet=quiet,
        )
    if final.state is not RunState.SUCCEEDED:
        report_outcome(final)
        raise PermanentError(f"What comes before task {place.name!r} did not succeed.")
    record = choose_record(session, final.run_id, place, iteration=request.iteration)
    if PROBE_OUTPUT not in record.output_parameters:
        msg = f"Task {place.name!r} would not run: the condition that it stands in was false."
        raise PermanentError(msg)
    executor_input = json.loads(record.output_parameters[PROBE_OUTPUT])
    tasks = get_run(client, final.run_id).tasks
    pod = next((task.pod_name for task in tasks if task.task_id == record.task_id), "")
    planned = Path(executor_input["outputs"]["outputFile"])
    return TaskInputs(
        inputs=executor_input["inputs"],
        folder=planned.parents[1] / str(uuid.uuid4()),
        pod=pod,
    )


def read_inputs(
    session: Session, request: DebugRequest, place: TaskPlace, component: ir.Component
) -> TaskInputs:
    """The inputs that the task had in an earlier run.

    Raises:
        InputError: Parameters were given as well.
        PermanentError: It never began there.
    """
    from kubeloop.pipelines.run_control import find_run
    from kubeloop.pipelines.runs import get_run

    if request.parameters:
        raise InputError("--from-run takes all inputs from that run: leave out -p and --fast.")
    client = session.connect_pipelines()
    run_id = find_run(client, request.from_run)
    record = choose_record(session, run_id, place, iteration=request.iteration)
    declared = component.input_parameters
    parameters = {k: v for k, v in record.input_parameters.items() if k in declared}
    inputs: dict[str, Any] = {"parameterValues": parameters} if parameters else {}
    artifacts = {
        name: {"artifacts": [render_artifact(item, component.input_artifacts[name]) for item in of]}
        for name, of in record.input_artifacts.items()
        if name in component.input_artifacts
    }
    if artifacts:
        inputs["artifacts"] = artifacts
    tasks = get_run(client, run_id).tasks
    pod = next((task.pod_name for task in tasks if task.task_id == record.task_id), "")
    # NB: an identifier of its own, so that a step does not join what it made in that run.
    folder = session.state.artifacts / safe_name(request.package.name) / str(uuid.uuid4())
    return TaskInputs(inputs=inputs, folder=folder / place.name / str(uuid.uuid4()), pod=pod)


def render_artifact(artifact: Artifact, declared: ir.ArtifactSpec) -> dict[str, Any]:
    """A `RuntimeArtifact` of the executor input."""
    title = {"Metric": "Metrics", "ClassificationMetric": "ClassificationMetrics"}
    return {
        "name": artifact.name,
        "type": {
            "schemaTitle": f"system.{title.get(artifact.type, artifact.type)}"
            if artifact.type
            else declared.schema_title,
            "schemaVersion": declared.schema_version,
        },
        "uri": artifact.uri,
        "metadata": dict(artifact.metadata),
    }


def source_folders(package: PipelinePackage) -> list[Path]:
    """Where the author's file may be: beside the pipeline, here, or among our own components."""
    import kubeloop.components

    return [package.path.resolve().parent, Path.cwd(), *map(Path, kubeloop.components.__path__)]


def call(function: DebugFunction, executor_input: dict[str, Any]) -> int:
    """Call the function as KFP's executor does; returns the exit code of its Pod."""
    from kfp.dsl.executor import Executor

    try:
        Executor(executor_input=executor_input, function_to_execute=function.function).execute()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except bdb.BdbQuit:
        errors.print("Debugging was ended.")
        return 1
    except Exception as error:  # noqa: BLE001  # the user's own code may raise anything
        own = error.__traceback__
        while own is not None and own.tb_frame.f_code.co_filename != str(function.file):
            own = own.tb_next
        errors.print(
            Text(
                "".join(
                    traceback.format_exception(error.with_traceback(own or error.__traceback__))
                )
            ),
            soft_wrap=True,
        )
        return 1
    return 0


def report_outputs(
    plan: Plan, place: TaskPlace, executor_input: dict[str, Any], *, output: Output
) -> int:
    """Print what the function gave; returns the exit code that its task would have had."""
    try:
        outputs = read_outputs(plan)
    except InputError as error:
        errors.print(f"[red]Error:[/red] Task {place.name!r} failed: {error}.", soft_wrap=True)
        return 1
    described = describe_outputs(outputs)
    if output is Output.JSON:
        print_json({"task": place.name, "executor_input": executor_input, "outputs": described})
        return 0
    console.print(Text(f"Outputs of {place.name} in {plan.folder}", "bold"), soft_wrap=True)
    for name, value in described["parameters"].items():
        console.print(Text(f"  {name} = {json.dumps(value)}"), soft_wrap=True)
    for name, items in described["artifacts"].items():
        for item in items:
            console.print(Text(f"  {name}: {item['uri']}"), soft_wrap=True)
            if item["metadata"]:
                console.print(Text(f"    {json.dumps(item['metadata'])}", "dim"), soft_wrap=True)
    return 0


def describe_outputs(outputs: Outputs) -> dict[str, Any]:
    """Outputs as JSON."""
    return {
        "parameters": outputs.parameters,
        "artifacts": {
            name: [
                {"uri": item.uri, "metadata": item.metadata, "digest": item.digest}
                for item in items
            ]
            for name, items in outputs.artifacts.items()
        },
    }
