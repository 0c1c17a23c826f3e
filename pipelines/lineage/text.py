"""Lineage as text: a tree for terminals, a Mermaid flowchart for documents.

A graph is no tree: what several things came from is written out once, and named where it is met
again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from kubeloop.pipelines.lineage.graph import Direction, LineageGraph, LineageKind, LineageNode

_HASH = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
_PLAIN = re.compile(r"[^A-Za-z0-9 ._/@-]")
_SHORT_RUN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeLine:
    """One node of a tree."""

    branch: str
    """What is drawn before the node's own line."""
    indent: str
    """What is drawn before further lines about the node."""
    node: LineageNode
    is_repeated: bool
    """Whether what lies beyond is written at the node's first line."""


def name_of(node: LineageNode) -> str:
    """What a node is called, hashes cut to twelve digits."""
    return _HASH.sub(r"\1", node.id)


def run_of(node: LineageNode) -> str:
    """Which run a task belongs to, such as `run 1f03c2ab, cached`; empty for other nodes."""
    if node.kind is not LineageKind.TASK:
        return ""
    cached = ", cached" if node.details.get("is_cached") else ""
    return f"run {str(node.details.get('run_id', ''))[:_SHORT_RUN]}{cached}"


def label_of(node: LineageNode) -> str:
    """What a node is called; tasks name their run."""
    run = run_of(node)
    return f"{name_of(node)} ({run})" if run else name_of(node)


def summarize(graph: LineageGraph) -> str:
    """How many things of each kind there are, such as `1 endpoint, 2 models`."""
    counts = Counter(node.kind for node in graph.nodes.values())
    words = [(counts[kind], kind.replace("_", " ")) for kind in LineageKind if counts[kind]]
    return ", ".join(f"{count} {word}{'s' if count > 1 else ''}" for count, word in words)


def build_tree(graph: LineageGraph) -> Iterator[TreeLine]:
    """Yield the lines of a tree from the target on."""
    graph = graph.without(LineageKind.RUN)
    links = graph.links()
    if graph.target.kind is LineageKind.RUN and graph.direction is Direction.BACKWARD:
        # It stands above its tasks already; below each it would only be in the way.
        links = {key: [c for c in found if c != graph.target.key] for key, found in links.items()}
    written: set[str] = set()
    roots = _find_roots(graph, links)
    # NB: a lineage may be thousands of links deep, deeper than Python calls go.
    open_nodes = [(key, "", "") for key in reversed(roots)]
    while open_nodes:
        key, branch, indent = open_nodes.pop()
        is_repeated = key in written and bool(links[key])
        yield TreeLine(branch=branch, indent=indent, node=graph.nodes[key], is_repeated=is_repeated)
        if key in written:
            continue
        written.add(key)
        for number, child in enumerate(reversed(links[key])):
            end, further = ("└── ", "    ") if number == 0 else ("├── ", "│   ")
            open_nodes.append((child, indent + end, indent + further))


def _find_roots(graph: LineageGraph, links: dict[str, list[str]]) -> list[str]:
    """The target; a run stands for what its tasks made or began with."""
    if graph.target.kind is not LineageKind.RUN:
        return [graph.target.key]
    reached = {child for children in links.values() for child in children}
    ends = [key for key in graph.nodes if key not in reached and key != graph.target.key]
    # In a circle nothing is an end.
    is_circle = not ends and not links[graph.target.key]
    return [graph.target.key, *(graph.nodes.keys() - {graph.target.key} if is_circle else ends)]


def render_tree(graph: LineageGraph) -> str:
    """Render the tree as plain text."""
    lines: list[str] = []
    for line in build_tree(graph):
        node = line.node
        seen = "  (see above)" if line.is_repeated else ""
        lines.append(f"{line.branch}{node.kind.replace('_', ' ')}  {label_of(node)}{seen}")
        facts = () if line.is_repeated else (node.uri, node.digest, node.note)
        lines += [f"{line.indent}{fact}" for fact in facts if fact]
    lines.append(summarize(graph))
    if graph.cut:
        lines.append(f"Not all: {graph.cut}.")
    return "\n".join(lines)


def render_mermaid(graph: LineageGraph) -> str:
    """Render a Mermaid flowchart, causes left of their effects."""
    graph = graph.without(LineageKind.RUN)
    names = {key: f"n{number}" for number, key in enumerate(graph.nodes)}
    lines = ["flowchart LR"]
    for key, node in graph.nodes.items():
        kind = node.kind.replace("_", " ")
        text = f"{_escape(kind)}<br/>{_escape(label_of(node))}"
        lines.append(f'  {names[key]}["{text}"]:::{node.kind}')
    lines += [
        f'  {names[edge.cause]} -->|"{_escape(edge.relation)}"| {names[edge.effect]}'
        for edge in graph.edges
    ]
    used = {node.kind for node in graph.nodes.values()}
    lines += [
        f"  classDef {kind} fill:{colour},stroke:#444,color:#111"
        for kind, colour in COLOURS.items()
        if kind in used
    ]
    return "\n".join(lines)


def _escape(text: str) -> str:
    """Write everything that could mean something to Mermaid as a character code."""
    return _PLAIN.sub(lambda match: f"#{ord(match[0])};", text)


COLOURS = {
    LineageKind.ENDPOINT: "#ffd8a8",
    LineageKind.MODEL: "#b2f2bb",
    LineageKind.TRAINING_JOB: "#a5d8ff",
    LineageKind.TRIAL: "#d0bfff",
    LineageKind.EXPERIMENT: "#e5dbff",
    LineageKind.RUN: "#dee2e6",
    LineageKind.TASK: "#f1f3f5",
    LineageKind.DATASET: "#ffec99",
    LineageKind.SOURCE: "#fff3bf",
    LineageKind.CODE: "#fcc2d7",
    LineageKind.ARTIFACT: "#c3fae8",
}
"""Fill of each kind, in every picture."""
