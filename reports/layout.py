"""Places for the nodes of a directed graph: columns by longest path, few crossings, short links.

The method of Sugiyama, Tagawa and Toda in its plain form: break cycles, give every node a column,
let long links pass through the columns between, order each column by the mean of its neighbours,
and move nodes towards their neighbours without letting two touch.

Source: Methods for Visual Understanding of Hierarchical System Structures (IEEE SMC-11, 1981).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_SWEEPS = 12
_MAX_BENDS = 20_000
"""Places that long links may take; beyond, they are drawn straight."""

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A place in the grid; rows may be fractions."""

    column: int
    row: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where nodes lie, and where each link passes on its way."""

    places: Sequence[Point]
    routes: Sequence[Sequence[Point]]


def lay_out(num_nodes: int, links: Sequence[Pair]) -> Layout:
    """Place nodes 0 to `num_nodes` - 1; links point from the first of a pair to the second."""
    columns = _assign_columns(num_nodes, _without_cycles(num_nodes, links))
    num_bends = sum(max(0, abs(columns[end] - columns[start]) - 1) for start, end in links)
    bends: list[list[int]] = []
    for start, end in links:
        first, last = sorted((columns[start], columns[end]))
        between = range(first + 1, last) if num_bends <= _MAX_BENDS else range(0)
        passed = list(range(len(columns), len(columns) + len(between)))
        columns += between
        bends.append(passed if columns[start] <= columns[end] else passed[::-1])
    neighbours: list[list[int]] = [[] for _ in columns]
    for (start, end), passed in zip(links, bends, strict=True):
        way = [start, *passed, end]
        for here, there in pairwise(way):
            neighbours[here].append(there)
            neighbours[there].append(here)
    rows = _assign_rows(_order(columns, neighbours), columns, neighbours)
    points = [Point(column=c, row=r) for c, r in zip(columns, rows, strict=True)]
    return Layout(
        places=points[:num_nodes],
        routes=[
            [points[key] for key in (start, *passed, end)]
            for (start, end), passed in zip(links, bends, strict=True)
        ],
    )


def _without_cycles(num_nodes: int, links: Sequence[Pair]) -> list[Pair]:
    """The links, those that close a cycle turned round."""
    after: list[list[int]] = [[] for _ in range(num_nodes)]
    for start, end in links:
        after[start].append(end)
    # Depth first without recursion; a link to a node whose visit is open closes a cycle.
    state = [0] * num_nodes
    turned: set[Pair] = set()
    for root in range(num_nodes):
        stack = [(root, iter(after[root]))] if state[root] == 0 else []
        state[root] = state[root] or 1
        while stack:
            node, rest = stack[-1]
            for end in rest:
                if state[end] == 1:
                    turned.add((node, end))
                elif state[end] == 0:
                    state[end] = 1
                    stack.append((end, iter(after[end])))
                    break
            else:
                state[node] = 2
                stack.pop()
    pairs = [(end, start) if (start, end) in turned else (start, end) for start, end in links]
    return [(start, end) for start, end in pairs if start != end]


def _assign_columns(num_nodes: int, links: Sequence[Pair]) -> list[int]:
    """Longest path from the left; what nothing leads to moves right, next to what it leads to."""
    after: list[list[int]] = [[] for _ in range(num_nodes)]
    missing = [0] * num_nodes
    for start, end in links:
        after[start].append(end)
        missing[end] += 1
    columns = [0] * num_nodes
    roots = [node for node in range(num_nodes) if not missing[node]]
    ready = deque(roots)
    while ready:
        node = ready.popleft()
        for end in after[node]:
            columns[end] = max(columns[end], columns[node] + 1)
            missing[end] -= 1
            if not missing[end]:
                ready.append(end)
    for node in roots:
        if after[node]:
            columns[node] = min(columns[end] for end in after[node]) - 1
    return columns


def _order(columns: Sequence[int], neighbours: Sequence[Sequence[int]]) -> list[list[int]]:
    """The nodes of each column from top to bottom, sweeping left and right in turn."""
    layers: list[list[int]] = [[] for _ in range(max(columns, default=-1) + 1)]
    for node, column in enumerate(columns):
        layers[column].append(node)
    position = [0.0] * len(columns)
    for layer in layers:
        for row, node in enumerate(layer):
            position[node] = row
    for sweep in range(_SWEEPS):
        step = -1 if sweep % 2 else 1
        for layer in layers[::step]:
            means = {
                node: _mean(
                    [position[n] for n in neighbours[node] if columns[n] == columns[node] - step],
                    otherwise=position[node],
                )
                for node in layer
            }
            layer.sort(key=means.__getitem__)
            for row, node in enumerate(layer):
                position[node] = row
    return layers


def _assign_rows(
    layers: Sequence[Sequence[int]],
    columns: Sequence[int],
    neighbours: Sequence[Sequence[int]],
) -> list[float]:
    """Rows that keep the order, at least one apart, near the mean of the neighbours."""
    rows = [0.0] * len(columns)
    tallest = max((len(layer) for layer in layers), default=0)
    for layer in layers:
        for number, node in enumerate(layer):
            rows[node] = number + (tallest - len(layer)) / 2
    for sweep in range(_SWEEPS):
        for layer in layers[:: -1 if sweep % 2 else 1]:
            wished = [
                _mean([rows[n] for n in neighbours[node]], otherwise=rows[node]) for node in layer
            ]
            for node, row in zip(layer, _keep_apart(wished), strict=True):
                rows[node] = row
    top = min(rows, default=0.0)
    return [row - top for row in rows]


def _keep_apart(wished: Sequence[float]) -> list[float]:
    """The rows closest to those wished, in order, at least one apart."""
    # Blocks of touching nodes, each at the mean of its nodes' wishes (pool adjacent violators).
    blocks: list[tuple[float, int]] = []
    for number, wish in enumerate(wished):
        total, count = wish - number, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / count:
            earlier = blocks.pop()
            total, count = total + earlier[0], count + earlier[1]
        blocks.append((total, count))
    starts = [total / count for total, count in blocks for _ in range(count)]
    return [start + number for number, start in enumerate(starts)]


def _mean(values: Sequence[float], *, otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
