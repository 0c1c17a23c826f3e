"""The figures of a search, as Plotly draws them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kubeloop.katib.report.importance import Importance
from kubeloop.katib.results import ExperimentResult, ParameterSpace, TrialResult, TrialStatus
from kubeloop.optional_imports import import_from_extra
from kubeloop.reports import Plot

with import_from_extra("reports", why="Plots need Plotly"):
    from plotly import graph_objects
    from plotly.subplots import make_subplots

_BEST, _USUAL, _STOPPED = "#e07b39", "#3b6fd4", "#b0478f"
_COLORS = {
    TrialStatus.SUCCEEDED: _USUAL,
    TrialStatus.EARLY_STOPPED: _STOPPED,
}
_OTHER = "#8a8f98"
_SCALE = "Viridis"
_COLUMNS = 3
_MAX_PARAMETERS = 12
_ROOM = 0.08
_LAYOUT = {"margin": {"l": 60, "r": 20, "t": 40, "b": 50}, "template": "plotly_white"}
_FEW_TRIALS = 15

Figure = Any  # plotly has no types
Numbered = Sequence[tuple[int, TrialResult]]
"""Trials with a result, with their number in the order of suggestion, from 1."""


def plot_history(result: ExperimentResult, trials: Numbered) -> Plot:
    """Each trial's objective, and the best so far."""
    figure = graph_objects.Figure()
    numbers, bests = zip(*_find_bests(result, trials), strict=True)
    figure.add_scatter(
        x=numbers, y=bests, mode="lines", line={"color": _BEST, "shape": "hv"}, name="best so far"
    )
    for status in dict.fromkeys(trial.status for _, trial in trials):
        shown = [(number, trial) for number, trial in trials if trial.status is status]
        figure.add_scatter(
            x=[number for number, _ in shown],
            y=[trial.objective for _, trial in shown],
            text=[describe(trial) for _, trial in shown],
            hovertemplate="trial %{x}<br>%{text}<br>%{y:.6g}<extra></extra>",
            mode="markers",
            marker={
                "color": _COLORS.get(status, _OTHER),
                "size": 8,
                "symbol": "x" if status is TrialStatus.EARLY_STOPPED else "circle",
            },
            name=str(status),
        )
    _finish(figure, xaxis_title="trial", yaxis_title=result.objective_metric, legend=_legend())
    if numbers[-1] <= _FEW_TRIALS:
        figure.update_xaxes(dtick=1)
    _focus(figure, result, [trial.objective for _, trial in trials])
    return Plot(figure=figure.to_plotly_json(), height_pixels=380)


def plot_curves(result: ExperimentResult, curves: Mapping[str, Sequence[float]]) -> Plot:
    """What each trial reported on its way; the best one in front, a cross where one was stopped."""
    figure = graph_objects.Figure()
    best = result.best.name if result.best else ""
    trials = sorted(result.trials, key=lambda trial: trial.name == best)
    colors = {"other trials": _USUAL, "stopped early": _STOPPED, "best": _BEST}
    shown: set[str] = set()
    for trial in trials:
        values = curves.get(trial.name, ())
        if not values:
            continue
        is_stopped = trial.status is TrialStatus.EARLY_STOPPED
        kind = "stopped early" if is_stopped else "other trials"
        kind = "best" if trial.name == best else kind
        shown.add(kind)
        figure.add_scatter(
            x=list(range(1, len(values) + 1)),
            y=list(values),
            mode="lines+markers" if is_stopped or len(values) == 1 else "lines",
            line={"color": colors[kind], "width": 3.0 if kind == "best" else 1.2},
            marker={"symbol": "x", "size": [*[0] * (len(values) - 1), 8], "opacity": 1.0},
            opacity=1.0 if kind == "best" else _fade(len(trials)),
            text=[describe(trial)] * len(values),
            hovertemplate="report %{x}: %{y:.6g}<br>%{text}<extra></extra>",
            legendgroup=kind,
            showlegend=False,
        )
    for kind in (kind for kind in colors if kind in shown):  # in their full colour
        line = {"color": colors[kind], "width": 3}
        figure.add_scatter(x=[None], y=[None], mode="lines", line=line, name=kind, legendgroup=kind)
    _finish(figure, xaxis_title="report", yaxis_title=result.objective_metric, legend=_legend())
    return Plot(figure=figure.to_plotly_json(), height_pixels=380)


def plot_parallel(result: ExperimentResult, trials: Numbered) -> Plot:
    """Every trial as a line through its parameters to its objective."""
    ordered = sorted(trials, key=lambda item: _merit(result, item[1]))
    objectives = [trial.objective for _, trial in ordered]
    names = list(result.search_space)[:_MAX_PARAMETERS]
    dimensions = [
        _dimension(name, result.search_space[name], [t.parameters.get(name) for _, t in ordered])
        for name in names
    ]
    dimensions.append({"label": result.objective_metric, "values": objectives})
    figure = graph_objects.Figure(
        graph_objects.Parcoords(
            dimensions=dimensions,
            line={
                "color": objectives,
                "colorscale": _SCALE,
                "reversescale": not result.is_maximized,
                "showscale": True,
                "colorbar": {"title": {"text": result.objective_metric, "side": "right"}},
            },
            labelfont={"size": 13},
            unselected={"line": {"color": "#d9dce1", "opacity": 0.25}},
        )
    )
    figure.update_layout(template="plotly_white", margin={"l": 70, "r": 30, "t": 70, "b": 30})
    return Plot(
        figure=figure.to_plotly_json(),
        caption="Drag along an axis to select trials, drag a name to move the axis.",
        height_pixels=420,
    )


def plot_importances(importances: Sequence[Importance]) -> Plot:
    """How much of the objective's variation each parameter explains."""
    shown = list(reversed(importances[:_MAX_PARAMETERS]))
    figure = graph_objects.Figure(
        graph_objects.Bar(
            x=[found.share for found in shown],
            y=[found.name for found in shown],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [min(found.spread, 1 - found.share) for found in shown],
                "arrayminus": [min(found.spread, found.share) for found in shown],
                "color": "#555",
            },
            orientation="h",
            marker_color=_USUAL,
            customdata=[found.spread for found in shown],
            hovertemplate="%{y}: %{x:.1%} ± %{customdata:.1%}<extra></extra>",
        )
    )
    _finish(figure, xaxis_title="share of the variation")
    figure.update_xaxes(tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(automargin=True)
    return Plot(
        figure=figure.to_plotly_json(),
        caption="fANOVA; the lines are the standard deviation over resampled trials.",
        height_pixels=110 + 34 * len(shown),
    )


def plot_slices(result: ExperimentResult, trials: Numbered) -> Plot:
    """The objective over each parameter; the later a trial, the darker its point."""
    names = list(result.search_space)[:_MAX_PARAMETERS]
    num_rows = math.ceil(len(names) / _COLUMNS)
    figure = make_subplots(
        rows=num_rows,
        cols=min(_COLUMNS, len(names)),
        shared_yaxes=True,
        horizontal_spacing=0.04,
        vertical_spacing=0.32 / num_rows,
    )
    best = result.best.name if result.best else ""
    for index, name in enumerate(names):
        row, column = index // _COLUMNS + 1, index % _COLUMNS + 1
        _add_slice(figure, result, trials, name=name, best=best, row=row, column=column)
        axis = _describe_axis(result.search_space[name])
        figure.update_xaxes(title_text=name, row=row, col=column, **axis)
    _finish(figure, showlegend=False)
    figure.update_yaxes(title_text=result.objective_metric, col=1)
    _focus(figure, result, [trial.objective for _, trial in trials])
    return Plot(
        figure=figure.to_plotly_json(),
        caption="The later a trial, the darker its point; the best one is orange.",
        height_pixels=70 + 270 * num_rows,
    )


def describe(trial: TrialResult) -> str:
    """A trial for a pointer that rests on it."""
    lines = [f"{name} = {render(value)}" for name, value in trial.parameters.items()]
    return "<br>".join([trial.name, *lines])


def render(value: object) -> str:
    """A value as a table or label has it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _add_slice(
    figure: Figure,
    result: ExperimentResult,
    trials: Numbered,
    *,
    name: str,
    best: str,
    row: int,
    column: int,
) -> None:
    is_choice = result.search_space[name].min is None
    # The best one last, so that nothing covers it.
    shown = sorted(trials, key=lambda item: item[1].name == best)
    values = [trial.parameters.get(name) for _, trial in shown]
    figure.add_scatter(
        x=[str(value) for value in values] if is_choice else values,
        y=[trial.objective for _, trial in shown],
        text=[describe(trial) for _, trial in shown],
        hovertemplate="%{text}<br>%{y:.6g}<extra></extra>",
        mode="markers",
        marker={
            "size": [12 if trial.name == best else 7 for _, trial in shown],
            "color": [
                _BEST if trial.name == best else _shade(number / max(trials[-1][0], 1))
                for number, trial in shown
            ],
            "line": {"width": 0.5, "color": "#ffffff"},
            "opacity": 1.0,
        },
        row=row,
        col=column,
    )


def _describe_axis(space: ParameterSpace) -> dict[str, Any]:
    if space.min is None or space.max is None:
        values = [str(value) for value in space.values]
        return {
            "type": "category",
            "categoryorder": "array",
            "categoryarray": values,
            "range": [-0.5, len(values) - 0.5],  # also those that no trial has tried
        }
    margin = 0.05
    if not space.is_log:
        margin *= space.max - space.min
        return {"type": "linear", "range": [space.min - margin, space.max + margin]}
    low, high = math.log10(space.min), math.log10(space.max)
    margin *= high - low
    is_wide = space.max / space.min >= 100  # two orders of magnitude
    return {
        "type": "log",
        "range": [low - margin, high + margin],
        "exponentformat": "power",
        "dtick": 1 if is_wide else "D2",
    }


def _shade(share: float) -> str:
    """From light to dark blue."""
    light, dark = (178, 203, 245), (16, 44, 110)
    mixed = (round(a + (b - a) * share) for a, b in zip(light, dark, strict=True))
    return f"rgb({', '.join(map(str, mixed))})"


def _fade(num_curves: int) -> float:
    return max(0.3, min(0.9, 12 / max(num_curves, 1)))


def _find_bests(result: ExperimentResult, trials: Numbered) -> Iterator[tuple[int, float]]:
    best: float | None = None
    for number, trial in trials:
        value = trial.objective or 0.0
        if best is None or (value > best if result.is_maximized else value < best):
            best = value
        yield number, best


def _merit(result: ExperimentResult, trial: TrialResult) -> float:
    value = trial.objective or 0.0
    return value if result.is_maximized else -value


def _focus(figure: Figure, result: ExperimentResult, objectives: Sequence[float | None]) -> None:
    """Let no hopeless trial squeeze the others into a line; zooming out shows it."""
    values = sorted(value for value in objectives if value is not None)
    worst, best = (values[0], values[-1]) if result.is_maximized else (values[-1], values[0])
    middle = values[len(values) // 2]
    if abs(best - worst) <= 6 * abs(best - middle) or best == middle:
        return
    low, high = sorted((best, best + 6 * (middle - best)))
    room = (high - low) * _ROOM
    figure.update_yaxes(range=[low - room, high + room])


def _dimension(name: str, space: ParameterSpace, values: Sequence[Any]) -> dict[str, Any]:
    """An axis of parallel coordinates: choices by number, orders of magnitude evenly."""
    if space.min is None:
        known = list(dict.fromkeys([*space.values, *values]))
        return {
            "label": name,
            "values": [known.index(value) for value in values],
            "tickvals": list(range(len(known))),
            "ticktext": [str(value) for value in known],
            "range": [0, len(known) - 1] if len(known) > 1 else [-1, 1],
        }
    if not space.is_log:
        return {"label": name, "values": list(values), "range": [space.min, space.max]}
    low, high = math.log10(space.min), math.log10(space.max or space.min)
    ticks = [low, *range(math.ceil(low), math.floor(high) + 1), high]
    ticks = [
        tick for n, tick in enumerate(ticks) if n == 0 or tick - ticks[n - 1] > (high - low) / 20
    ]
    return {
        "label": name,
        "values": [math.log10(value) for value in values],
        "range": [low, high],
        "tickvals": ticks,
        "ticktext": [render(10.0**tick) for tick in ticks],
    }


def _legend() -> dict[str, Any]:
    return {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"}


def _finish(figure: Figure, **layout: Any) -> None:
    figure.update_layout(**_LAYOUT, **layout)
