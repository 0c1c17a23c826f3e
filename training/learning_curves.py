"""How a run learnt, as a page: its losses, scores and speed by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kubeloop.reports import Note, Page, Plot, Section, Table, render_page

Lines = Sequence[Mapping[str, float]]
"""What each metric line of a run said, in order."""

_NOT_CURVES = frozenset({"epoch", "best_epoch", "eta_seconds"})
_MAX_TICKS = 15
_SPEEDS = frozenset({"examples_per_second"})


def render_learning_curves(title: str, lines: Lines, *, facts: Mapping[str, Any]) -> str:
    """Render the curves of a run as one HTML document.

    Args:
        title: Heading of the page.
        lines: The run's metric lines; those of epochs make the curves.
        facts: Shown below the heading, such as the job's name and hyperparameters.
    """
    epochs = [line for line in lines if "epoch" in line]
    names = list(dict.fromkeys(name for line in epochs for name in line if name not in _NOT_CURVES))
    losses = [name for name in names if name.endswith("loss")]
    scores = [name for name in names if name not in losses and name not in _SPEEDS]
    speeds = [name for name in names if name in _SPEEDS]
    sections = [
        Section(heading=heading, parts=[Plot(figure=_draw(epochs, chosen, _find_best(lines)))])
        for heading, chosen in (("Loss", losses), ("Scores", scores), ("Speed", speeds))
        if chosen
    ]
    if not sections:
        note = Note(text="The program printed no line with epoch=… and metrics.", level="warning")
        sections.append(Section(heading="No curves", parts=[note]))
    if lines:
        rows = [[name, value] for name, value in lines[-1].items()]
        table = Table(columns=["metric", "value"], rows=rows)
        sections.append(Section(heading="Last line", parts=[table]))
    return render_page(Page(title=title, facts=facts, sections=sections))


def _find_best(lines: Lines) -> float | None:
    return next((line["best_epoch"] for line in reversed(lines) if "best_epoch" in line), None)


def _draw(epochs: Lines, names: Sequence[str], best_epoch: float | None) -> dict[str, Any]:
    import plotly.graph_objects as go

    figure = go.Figure()
    for name in names:
        points = [(line["epoch"], line[name]) for line in epochs if name in line]
        x, y = zip(*points, strict=True)
        figure.add_scatter(x=x, y=y, name=name, mode="lines+markers")
    if best_epoch is not None:
        figure.add_vline(
            x=best_epoch,
            line_dash="dot",
            line_width=1,
            annotation_text="best epoch",
            annotation_position="bottom right",
        )
    figure.update_layout(
        xaxis={"title": "epoch", "tick0": 0, "dtick": math.ceil(len(epochs) / _MAX_TICKS)},
        yaxis_title=names[0] if len(names) == 1 else None,
        showlegend=True,
        hovermode="x unified",
        template="plotly_white",
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"},
        margin={"l": 60, "t": 40, "r": 20, "b": 50},
    )
    figure_json: dict[str, Any] = figure.to_plotly_json()
    return figure_json
