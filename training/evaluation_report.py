"""An evaluation as one HTML page: classes, mistakes, ROC, calibration, slices, and the champion."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kubeloop.reports import Note, Page, Plot, Section, Table, render_page
from kubeloop.training.evaluation import Comparison, Evaluation
from kubeloop.training.scores import Calibration, RocCurve

_BLUE, _GREY, _ORANGE = "#2f6fb0", "#9aa5b1", "#d9822b"
_MAX_CURVES = 8
_MAX_CELLS_WITH_TEXT = 15
_MAX_MISTAKES = 15
_MAX_ROWS = 40


def render_evaluation(
    evaluation: Evaluation,
    comparison: Comparison | None = None,
    *,
    facts: Mapping[str, Any],
    verdict: str = "",
) -> str:
    """Render an evaluation as one HTML document.

    Args:
        evaluation: The model's scores.
        comparison: The same beside the served model's, where there is one.
        facts: Shown below the heading before the scores, such as the URIs of model and data.
        verdict: What the comparison came to, in a sentence.
    """
    area = evaluation.roc.area if evaluation.roc else None
    scores = {
        "examples": evaluation.num_examples,
        "accuracy": f"{evaluation.accuracy:.4f}",
        "macro F1": f"{evaluation.macro_f1:.4f}",
        "cross-entropy": f"{evaluation.loss:.4f}",
        "calibration error": f"{evaluation.calibration.error:.4f}",
        "area under ROC": "" if area is None else f"{area:.4f}",
    }
    return render_page(
        Page(
            title=f"Evaluation on the {evaluation.split} split",
            facts={**facts, **scores},
            sections=[
                *_show_comparison(comparison, verdict),
                _show_classes(evaluation),
                _show_mistakes(evaluation),
                *_show_rocs(evaluation),
                _show_calibration(evaluation.calibration),
                _show_slices(evaluation),
            ],
        )
    )


def _show_comparison(comparison: Comparison | None, verdict: str) -> Iterator[Section]:
    heading = "Champion and challenger"
    if comparison is None:
        if verdict:
            yield Section(heading=heading, parts=[Note(text=verdict)])
        return
    recalls = {s.label: s.recall for s in comparison.champion.classes if s.num_examples}
    total = _compare(
        "all that both know", comparison.champion_accuracy, comparison.challenger_accuracy
    )
    rows = [
        _compare(scores.label, recalls.get(scores.label), scores.recall)
        for scores in comparison.challenger.classes
        if scores.num_examples
    ]
    rows.sort(key=lambda row: -math.inf if row[3] is None else row[3])
    about = f"Share found by the served model, {comparison.champion_uri}, and by the new one."
    table = Table(
        columns=["examples of", "champion", "challenger", "gain"],
        rows=[total, *rows[:_MAX_ROWS]],
        caption=_caption(about, rows, what="classes with the least gain"),
        highlighted=frozenset({0}),
    )
    yield Section(heading=heading, parts=[Note(text=verdict), table])


def _compare(label: str, old: float | None, new: float) -> list[Any]:
    return [label, _round(old), _round(new), None if old is None else _round(new - old)]


def _show_classes(evaluation: Evaluation) -> Section:
    areas = {curve.label: curve.area for curve in evaluation.class_rocs}
    classes = evaluation.classes
    if len(classes) > _MAX_ROWS:
        classes = tuple(sorted(classes, key=lambda scores: scores.f1))
    rows = [
        [
            scores.label,
            scores.num_examples,
            _round(scores.precision),
            _round(scores.recall),
            _round(scores.f1),
            _round(areas.get(scores.label)),
        ]
        for scores in classes[:_MAX_ROWS]
    ]
    columns = ["class", "examples", "precision", "recall", "F1", "area under ROC"]
    caption = _caption("", classes, what="classes with the least F1")
    return Section(heading="Classes", parts=[Table(columns=columns, rows=rows, caption=caption)])


def _show_mistakes(evaluation: Evaluation) -> Section:
    labels = list(evaluation.labels)
    # Shares of the true class, so that rare classes are seen; counts are written in the cells.
    shares = [[cell / max(sum(row), 1) for cell in row] for row in evaluation.confusion]
    heatmap = {
        "type": "heatmap",
        "x": labels,
        "y": labels,
        "z": shares,
        "zmin": 0,
        "zmax": 1,
        "text": [[str(cell) if cell else "" for cell in row] for row in evaluation.confusion],
        "colorscale": [[0, "#ffffff"], [1, _BLUE]],
        "showscale": False,
        "hovertemplate": "true %{y}<br>predicted %{x}<br>%{text} (%{z:.1%})<extra></extra>",
    }
    if len(labels) <= _MAX_CELLS_WITH_TEXT:
        heatmap["texttemplate"] = "%{text}"
    layout = {
        "xaxis": {"type": "category", "title": {"text": "predicted"}, "automargin": True},
        "yaxis": {
            "type": "category",
            "title": {"text": "true"},
            "automargin": True,
            "autorange": "reversed",
        },
    }
    height = min(max(380, 30 * len(labels) + 140), 900)
    parts: list[Plot | Table] = [_plot([heatmap], layout, height=height)]
    mistakes: list[list[Any]] = [
        [true, predicted, count]
        for true, row in zip(labels, evaluation.confusion, strict=True)
        for predicted, count in zip(labels, row, strict=True)
        if count and true != predicted
    ]
    if mistakes:
        mistakes.sort(key=lambda mistake: mistake[2], reverse=True)
        parts.append(
            Table(
                columns=["true", "taken for", "examples"],
                rows=mistakes[:_MAX_MISTAKES],
                caption="The most common mistakes.",
            )
        )
    return Section(heading="Confusion matrix", parts=parts)


def _show_rocs(evaluation: Evaluation) -> Iterator[Section]:
    if evaluation.roc is None:
        return
    worst = sorted(evaluation.class_rocs, key=lambda curve: curve.area)[:_MAX_CURVES]
    chance = {
        "type": "scatter",
        "x": [0, 1],
        "y": [0, 1],
        "mode": "lines",
        "name": "by chance",
        "line": {"color": _GREY, "dash": "dot"},
        "hoverinfo": "skip",
    }
    everything = _draw_roc(evaluation.roc, "all classes") | {"line": {"color": "#222", "width": 3}}
    curves = [chance, everything, *(_draw_roc(curve, curve.label) for curve in worst)]
    layout = {
        "xaxis": {"title": {"text": "share of others taken for the class"}, "range": [-0.01, 1.01]},
        "yaxis": {"title": {"text": "share of the class found"}, "range": [-0.01, 1.02]},
        "legend": {"title": {"text": "area under the curve"}},
    }
    caption = ""
    if len(worst) < len(evaluation.class_rocs):
        caption = f"Of {len(evaluation.class_rocs)} classes, the {len(worst)} with the least area."
    yield Section(heading="ROC", parts=[_plot(curves, layout, caption=caption)])


def _draw_roc(curve: RocCurve, name: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "x": curve.false_positive_rates,
        "y": curve.true_positive_rates,
        "customdata": curve.thresholds,
        "mode": "lines",
        "name": f"{name}: {curve.area:.4f}",
        "hovertemplate": "from %{customdata:.3g} on<br>%{x:.3f}, %{y:.3f}",
    }


def _show_calibration(calibration: Calibration) -> Section:
    confidences = [bin_.confidence for bin_ in calibration.bins]
    traces: list[dict[str, Any]] = [
        {
            "type": "bar",
            "x": confidences,
            "y": [bin_.num_examples for bin_ in calibration.bins],
            "width": 0.02,
            "name": "examples",
            "marker": {"color": _GREY, "opacity": 0.45},
            "yaxis": "y2",
        },
        {
            "type": "scatter",
            "x": [0, 1],
            "y": [0, 1],
            "mode": "lines",
            "name": "perfect",
            "line": {"color": _GREY, "dash": "dot"},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "x": confidences,
            "y": [bin_.accuracy for bin_ in calibration.bins],
            "customdata": [bin_.num_examples for bin_ in calibration.bins],
            "mode": "lines+markers",
            "name": "this model",
            "line": {"color": _BLUE},
            "hovertemplate": "confident %{x:.3f}<br>right %{y:.3f}<br>%{customdata} examples",
        },
    ]
    layout = {
        "xaxis": {"title": {"text": "confidence of the prediction"}, "range": [0, 1.03]},
        "yaxis": {"title": {"text": "share that is right"}, "range": [0, 1.05]},
        "yaxis2": {
            "title": {"text": "examples"},
            "overlaying": "y",
            "side": "right",
            "showgrid": False,
            "rangemode": "tozero",
            "tickmode": "auto",
        },
        "legend": {"orientation": "h", "y": 1.12},
    }
    caption = (
        f"Expected calibration error {calibration.error:.4f}. Below the dotted line the model is"
        " surer than it should be."
    )
    return Section(heading="Calibration", parts=[_plot(traces, layout, caption=caption)])


def _show_slices(evaluation: Evaluation) -> Section:
    shown = evaluation.slices
    if len(shown) > _MAX_ROWS:
        shown = tuple(sorted(shown, key=lambda part: part.accuracy))[:_MAX_ROWS]
    rows = [[part.column, part.value, part.num_examples, _round(part.accuracy)] for part in shown]
    columns = ["column", "value", "examples", "accuracy"]
    caption = _caption("", evaluation.slices, what="slices with the least accuracy")
    return Section(heading="Slices", parts=[Table(columns=columns, rows=rows, caption=caption)])


def _caption(text: str, rows: Sequence[object], *, what: str) -> str:
    if len(rows) > _MAX_ROWS:
        text = f"{text} Of {len(rows)}, the {_MAX_ROWS} {what}."
    return text.strip()


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _plot(
    data: Sequence[Mapping[str, Any]],
    layout: Mapping[str, Any],
    *,
    caption: str = "",
    height: int = 420,
) -> Plot:
    margin = {"l": 60, "r": 60, "t": 30, "b": 60}
    figure = {"data": list(data), "layout": {"margin": margin, **layout}}
    return Plot(figure=figure, caption=caption, height_pixels=height)
