"""A search as one HTML page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kubeloop.errors import MissingDependencyError
from kubeloop.katib.report.curves import Curves
from kubeloop.katib.report.importance import TooFewTrialsError, measure_importances
from kubeloop.katib.results import ExperimentResult, TrialResult
from kubeloop.katib.suggestion.enas import ARCHITECTURE
from kubeloop.katib.warm_start import read_warm_start
from kubeloop.reports import Note, Page, Plot, Section, Table, render_page
from kubeloop.training.pace import render_duration

if TYPE_CHECKING:
    from kubeloop.katib.report.plots import Numbered

_MIN_POINTS = 2
_MAX_MESSAGE = 160


def render_report(result: ExperimentResult, curves: Curves | None = None) -> str:
    """A search as a self-contained HTML document; needs the `reports` extra."""
    return render_page(build_search_page(result, curves or Curves()))


def build_search_page(result: ExperimentResult, curves: Curves) -> Page:
    """A page that also a search of one trial, or none, is worth."""
    from kubeloop.katib.report import plots

    trials = [
        (number, trial)
        for number, trial in enumerate(result.trials, start=1)
        if trial.objective is not None
    ]
    sections = [Section(heading="Result", parts=[*_describe_end(result)])]
    if trials:
        sections.append(
            Section(heading="Optimisation history", parts=[plots.plot_history(result, trials)])
        )
    sections += _build_curves(result, curves)
    if len(trials) >= _MIN_POINTS and result.search_space:
        sections += _build_parameters(result, trials)
    sections.append(Section(heading="Trials", parts=[_build_table(result)]))
    return Page(title=f"Search {result.name}", facts=_find_facts(result), sections=sections)


def _find_facts(result: ExperimentResult) -> dict[str, str]:
    counts = Counter(trial.status for trial in result.trials)
    direction = "maximize" if result.is_maximized else "minimize"
    facts = {
        "experiment": f"{result.namespace}/{result.name}",
        "status": str(result.status),
        "algorithm": result.algorithm,
        "objective": f"{direction} {result.objective_metric}",
        "trials": ", ".join(f"{count} {status}" for status, count in counts.items()) or "none",
    }
    if seconds := _measure_seconds(result.started_at, result.completed_at):
        facts["time"] = render_duration(seconds)
    return {name: value for name, value in facts.items() if value}


def _describe_end(result: ExperimentResult) -> Iterator[Note | Table]:
    best = result.best
    if best is None:
        yield Note(text=f"No trial has reported {result.objective_metric}.", level="error")
    else:
        yield Note(
            text=f"The best trial is {best.name}: {result.objective_metric} = {best.objective:g}.",
            level="good",
        )
        # As texts, so that numbers and words stand below one another.
        rows = [
            [name, f"{value:g}" if isinstance(value, float) else str(value)]
            for name, value in best.parameters.items()
        ]
        yield Table(columns=["parameter", "value"], rows=rows)
    if result.message:
        yield Note(text=result.message)
    if start := read_warm_start(result.annotations):
        names = ", ".join(start.experiments)
        yield Note(text=f"The search began with what was found in {names}.")
    messages = Counter(_shorten(trial.message) for trial in result.trials if trial.is_bad)
    for message, count in messages.most_common(3):
        yield Note(text=f"{count} without a result: {message}", level="warning")


def _build_curves(result: ExperimentResult, curves: Curves) -> Iterator[Section]:
    from kubeloop.katib.report import plots

    parts: list[Plot | Note] = []
    # A curve of one point is in the history.
    if any(len(values) >= _MIN_POINTS for values in curves.values.values()):
        parts.append(plots.plot_curves(result, curves.values))
    if curves.problem:
        parts.append(Note(text=f"Curves are missing: {curves.problem}", level="warning"))
    if parts:
        yield Section(heading=f"{result.objective_metric} while trials ran", parts=parts)


def _build_parameters(result: ExperimentResult, trials: Numbered) -> Iterator[Section]:
    from kubeloop.katib.report import plots

    yield Section(heading="Parameters together", parts=[plots.plot_parallel(result, trials)])
    try:
        found: Plot | Note = plots.plot_importances(measure_importances(result))
    except (TooFewTrialsError, MissingDependencyError) as error:
        found = Note(text=str(error))
    yield Section(heading="Importance of parameters", parts=[found])
    yield Section(heading="Parameters one by one", parts=[plots.plot_slices(result, trials)])


def _build_table(result: ExperimentResult) -> Table:
    # Architectures have no axis, but a trial's is short.
    names = list(result.search_space) or ([ARCHITECTURE] if result.algorithm == "enas" else [])
    others = sorted({name for t in result.trials for name in t.metrics} - {result.objective_metric})
    rows = [
        [
            number,
            trial.name.removeprefix(f"{result.name}-"),
            str(trial.status),
            trial.objective,
            *(trial.parameters.get(name) for name in names),
            *(trial.metrics.get(name) for name in others),
            _measure_seconds(trial.started_at, trial.completed_at),
        ]
        for number, trial in enumerate(result.trials, start=1)
    ]
    return Table(
        columns=[
            "",
            "trial",
            "status",
            result.objective_metric,
            *names,
            *others,
            "seconds",
        ],
        rows=rows,
        highlighted=frozenset(
            index for index, trial in enumerate(result.trials) if _is_best(result, trial)
        ),
    )


def _is_best(result: ExperimentResult, trial: TrialResult) -> bool:
    return result.best is not None and trial.name == result.best.name


def _measure_seconds(started: object, completed: object) -> float | None:
    if started is None or completed is None:
        return None
    return round((completed - started).total_seconds(), 1)  # type: ignore[operator,no-any-return]  # datetimes


def _shorten(text: str) -> str:
    line = text.strip().splitlines()[0] if text.strip() else "no message"
    return line if len(line) <= _MAX_MESSAGE else f"{line[: _MAX_MESSAGE - 1]}…"
