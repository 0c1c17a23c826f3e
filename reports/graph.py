"""A directed graph as a part of a page: boxes in columns, links from left to right.

The picture is drawn here as SVG, so that it is there without scripts; a short script adds panning,
zooming and the details of a node that is clicked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kubeloop.reports.layout import Point, lay_out

BOX_WIDTH, BOX_HEIGHT = 178, 46
_COLUMN, _ROW, _MARGIN = BOX_WIDTH + 46, BOX_HEIGHT + 20, 16
_LABEL_LENGTH, _CAPTION_LENGTH = 22, 29
_MIN_HEIGHT, _MAX_HEIGHT = 320, 640


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphNode:
    """A box; `details` are shown when it is clicked."""

    key: str
    label: str
    caption: str = ""
    """A small line above the label, such as the node's kind."""
    colour: str = "#f1f3f5"
    is_marked: bool = False
    """Drawn with a thick border."""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphLink:
    """An arrow between two nodes, by their keys."""

    start: str
    end: str
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Nodes and links; cycles are drawn too."""

    nodes: Sequence[GraphNode]
    links: Sequence[GraphLink]
    caption: str = ""
    legend: Mapping[str, str] = field(default_factory=dict)
    """Colours by what they mean."""

    kind: str = field(default="graph", init=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A node in its place, as the template draws it."""

    node: GraphNode
    x: float
    y: float
    label: str
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrow:
    """A link as the template draws it: an SVG path."""

    link: GraphLink
    path: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A graph with a place for everything."""

    boxes: Sequence[Box]
    arrows: Sequence[Arrow]
    width: float
    height: float
    view_height: int
    """Pixels that the picture takes on the page."""
    details: Sequence[Mapping[str, Any]]
    """What the script shows of each box."""


def draw(graph: Graph) -> Drawing:
    """Find a place for every node and a way for every link."""
    numbers = {node.key: number for number, node in enumerate(graph.nodes)}
    pairs = [(numbers[link.start], numbers[link.end]) for link in graph.links]
    layout = lay_out(len(graph.nodes), pairs)
    boxes = [
        Box(
            node=node,
            x=_x(place),
            y=_y(place),
            label=_shorten(node.label, _LABEL_LENGTH),
            caption=_shorten(node.caption, _CAPTION_LENGTH),
        )
        for node, place in zip(graph.nodes, layout.places, strict=True)
    ]
    arrows = [
        Arrow(link=link, path=_draw_path(route), start=pair[0], end=pair[1])
        for link, pair, route in zip(graph.links, pairs, layout.routes, strict=True)
    ]
    height = max((box.y for box in boxes), default=0.0) + BOX_HEIGHT + _MARGIN
    return Drawing(
        boxes=boxes,
        arrows=arrows,
        width=max((box.x for box in boxes), default=0.0) + BOX_WIDTH + _MARGIN,
        height=height,
        view_height=int(min(max(height + 24, _MIN_HEIGHT), _MAX_HEIGHT)),
        details=[_describe(node) for node in graph.nodes],
    )


def _x(place: Point) -> float:
    return _MARGIN + place.column * _COLUMN


def _y(place: Point) -> float:
    return _MARGIN + place.row * _ROW


def _draw_path(route: Sequence[Point]) -> str:
    """Curve from box to box; where a link passes a column, it passes it straight."""
    middle = BOX_HEIGHT / 2
    x, y = _x(route[0]) + BOX_WIDTH, _y(route[0]) + middle
    parts = [f"M{x:.1f} {y:.1f}"]
    for place in route[1:]:
        next_x, next_y = _x(place), _y(place) + middle
        bend = max((next_x - x) / 2, 24.0)
        parts.append(
            f"C{x + bend:.1f} {y:.1f} {next_x - bend:.1f} {next_y:.1f} {next_x:.1f} {next_y:.1f}"
        )
        x, y = next_x, next_y
        if place is not route[-1]:
            x += BOX_WIDTH
            parts.append(f"H{x:.1f}")
    return "".join(parts)


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _describe(node: GraphNode) -> dict[str, Any]:
    rows = [[name, _write(value)] for name, value in node.details.items()]
    return {"caption": node.caption, "label": node.label, "rows": rows}


def _write(value: Any) -> str:  # Any: JSON
    if isinstance(value, (Mapping, list, tuple)):
        return json.dumps(value, indent=2, default=str, ensure_ascii=False)
    return str(value)
