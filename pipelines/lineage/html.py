"""Lineage as a page: a picture to pan, zoom and click, and a table of everything in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubeloop.pipelines.lineage.graph import Direction, LineageGraph, LineageKind, LineageNode
from kubeloop.pipelines.lineage.text import COLOURS, label_of, name_of, run_of, summarize
from kubeloop.reports import Graph, GraphLink, GraphNode, Note, Page, Section, Table, render_page


def render_html(graph: LineageGraph) -> str:
    """Render one HTML document that stands alone."""
    target = graph.target
    what = "What came of" if graph.direction is Direction.FORWARD else "Lineage of"
    facts = {
        "target": f"{_name_kind(target)} {target.id}",
        "URI": target.uri,
        "digest": target.digest,
        "found": summarize(graph),
    }
    parts = [Note(text=f"Not all is shown: {graph.cut}.", level="warning")] if graph.cut else []
    page = Page(
        title=f"{what} {_name_kind(target).lower()} {name_of(target)}",
        facts={name: fact for name, fact in facts.items() if fact},
        sections=[
            Section(heading="Lineage", parts=[*parts, _build_picture(graph)]),
            Section(heading="Everything found", parts=[_build_table(graph)]),
        ],
    )
    return render_page(page)


def _build_picture(graph: LineageGraph) -> Graph:
    drawn = graph.without(LineageKind.RUN)
    # A run is told with each of its tasks; a box of its own only where there is nothing else.
    nodes = [
        node
        for node in drawn.nodes.values()
        if node.kind is not LineageKind.RUN or len(drawn.nodes) == 1
    ]
    keys = {node.key for node in nodes}
    used = {node.kind for node in nodes}
    return Graph(
        nodes=[
            GraphNode(
                key=node.key,
                label=name_of(node),
                caption=_caption(node),
                colour=COLOURS[node.kind],
                is_marked=node.key == graph.target.key,
                details=_describe(node),
            )
            for node in nodes
        ],
        links=[
            GraphLink(start=edge.cause, end=edge.effect, label=edge.relation)
            for edge in drawn.edges
            if edge.cause in keys and edge.effect in keys
        ],
        legend={kind.replace("_", " "): colour for kind, colour in COLOURS.items() if kind in used},
    )


def _build_table(graph: LineageGraph) -> Table:
    nodes = sorted(graph.nodes.values(), key=lambda node: list(LineageKind).index(node.kind))
    return Table(
        columns=["kind", "name", "URI", "sha256", "note"],
        rows=[[_name_kind(n), label_of(n), n.uri, n.digest[7:17], n.note] for n in nodes],
        highlighted=frozenset(
            number for number, node in enumerate(nodes) if node.key == graph.target.key
        ),
    )


def _name_kind(node: LineageNode) -> str:
    """The kind, and of other artifacts their type, such as Metrics."""
    kind = str(node.details.get("type", "")) if node.kind is LineageKind.ARTIFACT else ""
    return kind or node.kind.replace("_", " ")


def _caption(node: LineageNode) -> str:
    return " · ".join(part for part in (_name_kind(node), run_of(node)) if part)


def _describe(node: LineageNode) -> Mapping[str, Any]:
    """Everything known about a node, metadata entry by entry."""
    facts = {"id": node.id, "URI": node.uri, "digest": node.digest, "note": node.note}
    metadata = node.details.get("metadata") or {}
    facts |= {name: value for name, value in node.details.items() if name != "metadata"}
    return {name: value for name, value in facts.items() if value != ""} | dict(metadata)
