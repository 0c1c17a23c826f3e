"""A page of sections, each a heading over notes, tables, Plotly figures and graphs.

The values of a report come from data and from users' programs, so everything is escaped: text by
Jinja, figures as JSON in which no tag can close the script element around it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from kubeloop.optional_imports import import_from_extra
from kubeloop.reports.graph import BOX_HEIGHT, BOX_WIDTH, Graph, draw

with import_from_extra("reports", why="Reports need Jinja"):
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A paragraph of plain text; `level` colours it."""

    text: str
    level: str = "plain"
    """One of `plain`, `good`, `warning` and `error`."""

    kind: str = field(default="note", init=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of cells under column names; numbers are aligned right, None is left empty."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    highlighted: frozenset[int] = frozenset()
    """Indices of rows that stand out."""

    kind: str = field(default="table", init=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A Plotly figure: what `plotly.graph_objects.Figure.to_plotly_json()` returns."""

    figure: Mapping[str, Any]
    caption: str = ""
    height_pixels: int = 420

    kind: str = field(default="plot", init=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading and what stands below it."""

    heading: str
    parts: Sequence[Note | Table | Plot | Graph]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A report: `facts` are shown as name and value below the title."""

    title: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    sections: Sequence[Section] = ()


def render_page(page: Page) -> str:
    """Render a page as one HTML document, with the plotting library only where it has plots."""
    has_plots = any(isinstance(part, Plot) for section in page.sections for part in section.parts)
    template = _environment().get_template("page.html.jinja")
    return template.render(page=page, plotly=_read_plotly() if has_plots else "")


def _read_plotly() -> Markup:
    """The plotting library; not imported for a page without plots, which takes a while."""
    with import_from_extra("reports", why="Plots need Plotly"):
        from plotly.offline import get_plotlyjs
    return Markup(get_plotlyjs())  # noqa: S704  # plotly's own file


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("kubeloop.reports"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["script_json"] = _script_json
    environment.filters["figure_json"] = _figure_json
    environment.filters["cell"] = _cell
    environment.filters["draw"] = draw
    environment.filters["number_columns"] = _find_number_columns
    environment.globals.update(box_width=BOX_WIDTH, box_height=BOX_HEIGHT)
    environment.tests["number_cell"] = _is_number
    return environment


def _figure_json(value: Mapping[str, Any]) -> Markup:
    """A figure that a script element can hold; Plotly's arrays become lists, NaN becomes null."""
    from plotly.utils import PlotlyJSONEncoder

    return _script_json(json.loads(json.dumps(value, cls=PlotlyJSONEncoder)))


def _script_json(value: Any) -> Markup:  # Any: JSON
    """JSON that a script element can hold."""
    text = json.dumps(value)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704  # escaped above


def _cell(value: Any) -> str:  # Any: what a table's cell holds
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _is_number(value: Any) -> bool:  # Any: what a table's cell holds
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _find_number_columns(table: Table) -> set[int]:
    """Columns that hold numbers and nothing else, whose names are aligned like them."""
    columns = enumerate(zip(*table.rows, strict=True))
    return {
        index
        for index, values in columns
        if all(_is_number(value) for value in values if value is not None)
    }
