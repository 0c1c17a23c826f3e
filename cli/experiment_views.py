"""How experiments and trials look in a terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from kubeloop.cli.options import console

if TYPE_CHECKING:
    from kubeloop.katib.results import ExperimentResult, TrialResult
    from kubeloop.katib.runs import ExperimentProgress
    from kubeloop.katib.summaries import ExperimentSummary

_COLORS = {
    "Succeeded": "green",
    "Failed": "red",
    "MetricsUnavailable": "red",
    "Killed": "red",
    "EarlyStopped": "magenta",
    "Running": "cyan",
    "Restarting": "yellow",
}


def render_summaries(summaries: Sequence[ExperimentSummary]) -> Table:
    """One row an experiment."""
    table = Table(box=None, pad_edge=False)
    for column in ("NAME", "STATUS", "ALGORITHM", "TRIALS", "RUNNING", "FAILED", "BEST", "CREATED"):
        table.add_column(column, no_wrap=column in ("STATUS", "TRIALS"), overflow="fold")
    for summary in summaries:
        of = f"/{summary.max_trial_count}" if summary.max_trial_count else ""
        best = summary.best_objective and f"{summary.objective_metric}={summary.best_objective}"
        table.add_row(
            summary.name,
            _status(summary.status),
            summary.algorithm,
            f"{summary.num_trials}{of}",
            str(summary.num_running or ""),
            Text(str(summary.num_failed or ""), "red"),
            best,
            f"{summary.created_at:%Y-%m-%d %H:%M:%S}" if summary.created_at else "",
        )
    return table


def render_trials(result: ExperimentResult, trials: Sequence[tuple[int, TrialResult]]) -> Table:
    """One row a trial; the best one stands out."""
    table = Table(box=None, pad_edge=False)
    names = list(dict.fromkeys(name for _, trial in trials for name in trial.parameters))
    for column in ("", "TRIAL", "STATUS", result.objective_metric, *names, "MESSAGE"):
        table.add_column(column, no_wrap=column in ("TRIAL", "STATUS"), overflow="fold")
    for number, trial in trials:
        is_best = result.best is not None and trial.name == result.best.name
        table.add_row(
            str(number),
            trial.name,
            _status(trial.status),
            render_number(trial.objective),
            *(render_number(trial.parameters.get(name)) for name in names),
            trial.message.strip().partition("\n")[0] if trial.is_bad else "",
            style="bold" if is_best else None,
        )
    return table


def print_experiment(progress: ExperimentProgress) -> None:
    """How an experiment stands."""
    result = progress.result
    head = Text(f"{result.name}  ")
    console.print(head.append_text(_status(result.status)), soft_wrap=True)
    table = Table(box=None, pad_edge=False, show_header=False)
    direction = "maximize" if result.is_maximized else "minimize"
    table.add_row("  algorithm", result.algorithm)
    table.add_row("  objective", f"{direction} {result.objective_metric}")
    for name, space in result.search_space.items():
        table.add_row(f"  {name}", space.text)
    console.print(table)
    line, *findings = progress.message.splitlines()
    console.print(Text(line), soft_wrap=True)
    if result.message:
        console.print(Text(result.message), soft_wrap=True)
    for finding in findings:
        console.print(Text(finding, "yellow"), soft_wrap=True)
    if result.best is not None:
        for name, value in result.best.parameters.items():
            console.print(Text(f"  {name} = {render_number(value)}"))


def describe_experiment(progress: ExperimentProgress) -> dict[str, Any]:
    """An experiment as JSON."""
    result = progress.result
    best = result.best
    return {
        "name": result.name,
        "namespace": result.namespace,
        "status": result.status,
        "reason": result.reason,
        "message": result.message,
        "algorithm": result.algorithm,
        "objective_metric": result.objective_metric,
        "objective_type": "maximize" if result.is_maximized else "minimize",
        "max_trial_count": result.max_trial_count,
        "num_done": result.num_done,
        "num_running": sum(trial.is_active for trial in result.trials),
        "seconds_left": progress.seconds_left,
        "best": describe_trial(result.trials.index(best) + 1, best) if best else None,
        "findings": list(progress.findings),
    }


def describe_trial(number: int, trial: TrialResult) -> dict[str, Any]:
    """A trial as JSON."""
    return {
        "number": number,
        "name": trial.name,
        "status": trial.status,
        "objective": trial.objective,
        "parameters": dict(trial.parameters),
        "metrics": dict(trial.metrics),
        "message": trial.message,
        "started_at": trial.started_at,
        "completed_at": trial.completed_at,
    }


def _status(status: str) -> Text:
    return Text(status, _COLORS.get(status, ""))


def render_number(value: object) -> str:
    """A value as a table has it; None is left empty."""
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
