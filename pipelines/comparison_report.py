"""A comparison of runs as an HTML page: tables with what differs marked, and plots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kubeloop.optional_imports import import_from_extra
from kubeloop.pipelines.comparison import Classification, Comparison, Row
from kubeloop.reports import Note, Page, Plot, Section, Table

_MAX_PLOTTED = 12
_COLUMNS = 3
_MIN_RUNS_OF_A_LINE = 4
_COLORS = ("#3b6fd4", "#e07b39", "#3a9d6e", "#b0478f", "#7a6ad8", "#8c6d46")
"""Of the runs, in their order."""
_LAYOUT = {
    "colorway": _COLORS,
    "margin": {"l": 48, "r": 16, "t": 40, "b": 40},
    "template": "plotly_white",
}

Figure = Any  # plotly has no types


def build_comparison_page(comparison: Comparison) -> Page:
    """Build the page; needs the `reports` extra."""
    labels = label_runs(comparison)
    sections = [_describe_runs(comparison, labels)]
    for heading, rows in comparison.sections.items():
        if rows:
            parts: list[Note | Table | Plot] = [_table(rows, labels)]
            if heading == "metrics":
                parts += _plot_metrics(rows, labels)
            if heading == "seconds":
                parts += _plot_seconds(rows, labels)
            sections.append(Section(heading=heading.capitalize(), parts=parts))
    sections += [
        Section(heading=found.name, parts=list(_plot_classification(found, labels)))
        for found in comparison.classifications
        if any((*found.confusions, *found.rocs))
    ]
    names = ", ".join(labels)
    return Page(
        title=f"Comparison of {len(comparison.runs)} runs", facts={"runs": names}, sections=sections
    )


def label_runs(comparison: Comparison) -> list[str]:
    """A short label for each run that tells it from the others: the start of its id."""
    length = 8
    identifiers = [run.run_id for run in comparison.runs]
    while len({text[:length] for text in identifiers}) < len(set(identifiers)):
        length += 1
    return [text[:length] for text in identifiers]


def _describe_runs(comparison: Comparison, labels: Sequence[str]) -> Section:
    rows = [
        [
            label,
            run.name,
            run.state,
            f"{run.created_at:%Y-%m-%d %H:%M:%S}" if run.created_at else None,
            None if run.seconds is None else round(run.seconds, 1),
        ]
        for label, run in zip(labels, comparison.runs, strict=True)
    ]
    table = Table(columns=["run", "name", "state", "started", "seconds"], rows=rows)
    notes = [Note(text=note, level="warning") for note in comparison.notes]
    return Section(heading="Runs", parts=[table, *notes])


def _table(rows: Sequence[Row], labels: Sequence[str]) -> Table:
    return Table(
        columns=["", *labels],
        rows=[[row.name, *map(_cell, row.values)] for row in rows],
        highlighted=frozenset(index for index, row in enumerate(rows) if row.differs),
    )


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float | str) else str(value)


def _numeric(rows: Sequence[Row]) -> list[Row]:
    """Rows to plot: numbers that differ, or all numbers where none does."""
    numeric = [row for row in rows if any(_is_number(value) for value in row.values)]
    return ([row for row in numeric if row.differs] or numeric)[:_MAX_PLOTTED]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plot_metrics(rows: Sequence[Row], labels: Sequence[str]) -> Iterator[Plot]:
    """One small plot a metric, each on its own scale: lines over many runs, bars of few."""
    numeric = _numeric(rows)
    if not numeric:
        return
    with import_from_extra("reports", why="Plots need Plotly"):
        from plotly import graph_objects
        from plotly.subplots import make_subplots
    num_rows = -(-len(numeric) // _COLUMNS)
    figure = make_subplots(
        rows=num_rows,
        cols=min(_COLUMNS, len(numeric)),
        subplot_titles=[_shorten(row.name) for row in numeric],
        vertical_spacing=0.35 / num_rows,
    )
    for index, row in enumerate(numeric):
        values = [value if _is_number(value) else None for value in row.values]
        if len(labels) >= _MIN_RUNS_OF_A_LINE:
            trace = graph_objects.Scatter(
                x=labels, y=values, mode="lines+markers", line_color=_COLORS[0]
            )
        else:
            trace = graph_objects.Bar(
                x=labels,
                y=values,
                text=values,
                texttemplate="%{text:.4g}",
                marker_color=_COLORS[: len(labels)],
            )
        figure.add_trace(trace, row=index // _COLUMNS + 1, col=index % _COLUMNS + 1)
    _finish(figure, showlegend=False)
    figure.update_annotations(font_size=12)
    figure.update_xaxes(type="category")
    yield Plot(figure=figure.to_plotly_json(), height_pixels=60 + 220 * num_rows)


def _plot_seconds(rows: Sequence[Row], labels: Sequence[str]) -> Iterator[Plot]:
    with import_from_extra("reports", why="Plots need Plotly"):
        from plotly import graph_objects
    figure = graph_objects.Figure(
        [
            graph_objects.Bar(
                y=[row.name for row in rows],
                x=[row.values[index] for row in rows],
                name=label,
                orientation="h",
            )
            for index, label in enumerate(labels)
        ]
    )
    _finish(figure, barmode="group", xaxis_title="seconds")
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_layout(legend_traceorder="normal")
    height = 100 + len(rows) * (16 + 14 * len(labels))
    yield Plot(figure=figure.to_plotly_json(), height_pixels=height)


def _plot_classification(found: Classification, labels: Sequence[str]) -> Iterator[Plot]:
    if any(found.confusions):
        yield _plot_confusions(found.confusions, labels)
    if any(found.rocs):
        yield _plot_rocs(found.rocs, labels)


def _plot_confusions(confusions: Sequence[Mapping[str, Any] | None], labels: Sequence[str]) -> Plot:
    with import_from_extra("reports", why="Plots need Plotly"):
        from plotly import graph_objects
        from plotly.subplots import make_subplots
    figure = make_subplots(rows=1, cols=len(labels), subplot_titles=list(labels))
    for index, confusion in enumerate(confusions):
        if not confusion:
            continue
        classes = [spec.get("displayName", "") for spec in confusion.get("annotationSpecs", ())]
        counts = [row.get("row", []) for row in confusion.get("rows", ())]
        heatmap = graph_objects.Heatmap(
            x=classes,
            y=classes,
            z=counts,
            texttemplate="%{z}",
            colorscale="Blues",
            showscale=False,
            hovertemplate="true %{y}<br>predicted %{x}<br>%{z}<extra></extra>",
        )
        figure.add_trace(heatmap, row=1, col=index + 1)
    _finish(figure)
    figure.update_xaxes(type="category", title_text="predicted")
    figure.update_yaxes(type="category", autorange="reversed")
    figure.update_yaxes(title_text="true", col=1)
    return Plot(figure=figure.to_plotly_json(), caption="Confusion matrices", height_pixels=420)


def _plot_rocs(rocs: Sequence[Sequence[Mapping[str, Any]] | None], labels: Sequence[str]) -> Plot:
    with import_from_extra("reports", why="Plots need Plotly"):
        from plotly import graph_objects
    figure = graph_objects.Figure()
    for label, points in zip(labels, rocs, strict=True):
        if points:
            figure.add_scatter(
                x=[point.get("falsePositiveRate") for point in points],
                y=[point.get("recall") for point in points],
                customdata=[point.get("confidenceThreshold") for point in points],
                hovertemplate="threshold %{customdata}<br>%{x:.3f}, %{y:.3f}",
                mode="lines",
                name=label,
            )
    _finish(figure, xaxis_title="false positive rate", yaxis_title="recall")
    return Plot(figure=figure.to_plotly_json(), caption="ROC curves", height_pixels=420)


def _finish(figure: Figure, **layout: Any) -> None:
    figure.update_layout(**_LAYOUT, **layout)


def _shorten(text: str, *, limit: int = 36) -> str:
    return text if len(text) <= limit else f"…{text[-limit + 1 :]}"
