"""`kubeloop experiments`: Katib's experiments, through its own client. Lists, or shows one."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from kubeloop.cli import experiment_reports
from kubeloop.cli.experiment_access import (
    ExperimentArgument,
    ExperimentsArgument,
    open_experiments,
)
from kubeloop.cli.experiment_views import (
    describe_experiment,
    describe_trial,
    print_experiment,
    render_summaries,
    render_trials,
)
from kubeloop.cli.groups import ListOrShowGroup
from kubeloop.cli.options import (
    DEFAULT_STATE,
    ContextOption,
    NamespaceOption,
    Output,
    OutputOption,
    Session,
    StateOption,
    console,
    print_json,
)
from kubeloop.errors import InputError

if TYPE_CHECKING:
    from kubeloop.katib.results import ExperimentResult


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        cls=ListOrShowGroup,
        name="experiments",
        rich_markup_mode="markdown",
        help="Look at Katib experiments, compare and steer them.\n\n`kubeloop experiments` lists,"
        " and `kubeloop experiments NAME` shows one. Any part of a name will do that only one"
        " experiment has.\n\nExamples:\n\n    kubeloop experiments\n\n"
        "    kubeloop experiments best tune-hyperparameters-3fa9c1d2e4\n\n"
        "    kubeloop experiments report 3fa9c --save search.html",
    )
    group.command(name="list")(list_)
    for command in (show, trials, best, resume, delete):
        group.command()(command)
    experiment_reports.register(group)
    app.add_typer(group)


def list_(
    *,
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    namespace: NamespaceOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """List experiments, newest first, with the best trial of each.

    Examples:
        kubeloop experiments

        kubeloop experiments list --context my-cluster --namespace team --output json
    """
    from kubeloop.katib.summaries import summarize_experiments

    session = Session.open(state, context=context, namespace=namespace)
    with open_experiments(session) as access:
        found = summarize_experiments(access.client, namespace=session.namespace)
    if output is Output.JSON:
        print_json([asdict(summary) for summary in found])
        return
    nothing = f"No experiments in namespace {session.namespace}."
    console.print(render_summaries(found) if found else nothing)


def show(
    experiment: ExperimentArgument,
    *,
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    namespace: NamespaceOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Show how an experiment stands: trials, best so far, time left, and what is in its way.

    Examples:
        kubeloop experiments show tune-hyperparameters-3fa9c1d2e4

        kubeloop experiments 3fa9c --output json
    """
    from kubeloop.katib.diagnosis import explain
    from kubeloop.katib.runs import ExperimentProgress

    session = Session.open(state, context=context, namespace=namespace)
    with open_experiments(session) as access:
        result = access.read(experiment)
        # What a search that is over or gets on has had on its way is nobody's trouble.
        has_trouble = not result.num_done or result.best is None
        findings = explain(access.client, result) if has_trouble else []
    progress = ExperimentProgress(result=result, elapsed_seconds=0.0, findings=tuple(findings))
    if output is Output.JSON:
        print_json(describe_experiment(progress))
    else:
        print_experiment(progress)


def trials(
    experiment: ExperimentArgument,
    *,
    status: Annotated[
        str, typer.Option(help="Only trials of this status, such as EarlyStopped.")
    ] = "",
    by_objective: Annotated[
        bool, typer.Option("--by-objective", help="The best first, not in order of suggestion.")
    ] = False,
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    namespace: NamespaceOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """List the trials of an experiment with their parameters and metrics.

    Examples:
        kubeloop experiments trials 3fa9c --by-objective

        kubeloop experiments trials 3fa9c --status Failed --output json
    """
    session = Session.open(state, context=context, namespace=namespace)
    with open_experiments(session) as access:
        result = access.read(experiment)
    found = _select(result, status)
    if by_objective:
        sign = -1 if result.is_maximized else 1
        # Those without an objective come last.
        found.sort(key=lambda item: (item[1].objective is None, sign * (item[1].objective or 0.0)))
    if output is Output.JSON:
        print_json([describe_trial(number, trial) for number, trial in found])
        return
    console.print(render_trials(result, found) if found else "No such trials.")


def best(
    experiment: ExperimentArgument,
    *,
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    namespace: NamespaceOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Print the best trial of an experiment and its parameters.

    Examples:
        kubeloop experiments best 3fa9c

        kubeloop experiments best 3fa9c --output json | jq .parameters
    """
    session = Session.open(state, context=context, namespace=namespace)
    with open_experiments(session) as access:
        result = access.read(experiment)
    found = result.require_best()
    if output is Output.JSON:
        print_json(describe_trial(result.trials.index(found) + 1, found))
        return
    console.print(Text(found.name, "bold"))
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row(result.objective_metric, Text(f"{found.objective:g}", "green"))
    for name, value in found.parameters.items():
        table.add_row(name, f"{value:g}" if isinstance(value, float) else str(value))
    console.print(table)


def resume(
    experiment: ExperimentArgument,
    *,
    max_trials: Annotated[
        int, typer.Option("--max-trials", min=1, help="Trials in all.", show_default=False)
    ],
    parallel_trials: Annotated[
        int | None, typer.Option(min=1, help="Trials at a time; unset: as before.")
    ] = None,
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    namespace: NamespaceOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Give an experiment a greater budget; one that has ended goes on.

    Katib lets only experiments go on whose resumePolicy is LongRunning or FromVolume.

    Example:
        kubeloop experiments resume digits --max-trials 40
    """
    from kubeloop.katib.clients import raise_budget

    session = Session.open(state, context=context, namespace=namespace)
    with open_experiments(session) as access:
        result = access.read(experiment)
        _check_resumable(result, max_trials)
        counts = {"max_trial_count": max_trials}
        if parallel_trials is not None:
            counts["parallel_trial_count"] = parallel_trials
        raise_budget(access.client, result.name, namespace=session.namespace, **counts)
    if output is Output.JSON:
        print_json({"name": result.name, **counts})
        return
    console.print(f"Experiment {result.name} may run {max_trials} trials in all.")


def delete(
    experiments: ExperimentsArgument,
    *,
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    namespace: NamespaceOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Delete experiments with their trials and jobs; published models stay.

    Example:
        kubeloop experiments delete 3fa9c digits
    """
    from kubeloop.katib.clients import delete_experiment

    session = Session.open(state, context=context, namespace=namespace)
    with open_experiments(session) as access:
        names = list(dict.fromkeys(map(access.find, experiments)))
        for name in names:
            delete_experiment(access.client, name, namespace=session.namespace)
            if output is Output.TEXT:
                console.print(f"Experiment {name} deleted.")
    if output is Output.JSON:
        print_json([{"name": name, "result": "deleted"} for name in names])


def _select(result: ExperimentResult, status: str) -> list[Any]:
    """Number and trial of those with a status."""
    from kubeloop.katib.results import TrialStatus

    known = {str(known).lower() for known in TrialStatus}
    if status and status.lower() not in known:
        raise InputError(f"--status takes one of {', '.join(TrialStatus)}, not {status!r}.")
    return [
        (number, trial)
        for number, trial in enumerate(result.trials, start=1)
        if not status or trial.status.lower() == status.lower()
    ]


def _check_resumable(result: ExperimentResult, max_trials: int) -> None:
    if result.is_over and result.resume_policy == "Never":
        raise InputError(
            f"Experiment {result.name} has ended and its resumePolicy is Never: Katib does not let"
            " it go on; run a new one with resumePolicy LongRunning or FromVolume."
        )
    if result.max_trial_count is not None and max_trials <= len(result.trials):
        raise InputError(
            f"Experiment {result.name} has run {len(result.trials)} trials; --max-trials must be"
            f" above that, not {max_trials}."
        )
