"""Nodes and links as they are found; a walk takes from it what it reaches."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from kubeloop.pipelines.lineage.graph import LineageEdge, LineageNode, Relation


class Web:
    """Everything that was read so far; adding the same twice changes nothing."""

    def __init__(self) -> None:
        self.nodes: dict[str, LineageNode] = {}
        self._edges: dict[tuple[str, str], LineageEdge] = {}
        self._causes: dict[str, list[LineageEdge]] = defaultdict(list)
        self._effects: dict[str, list[LineageEdge]] = defaultdict(list)

    def add(self, node: LineageNode) -> LineageNode:
        """Add a node; one of the same key stays as it is."""
        return self.nodes.setdefault(node.key, node)

    def note(self, key: str, text: str) -> None:
        """Say at a node why nothing lies beyond it."""
        self.nodes[key] = replace(self.nodes[key], note=text)

    def link(self, cause: LineageNode, effect: LineageNode, relation: Relation) -> None:
        """Add two nodes and the link between them."""
        self.add(cause)
        self.add(effect)
        pair = (cause.key, effect.key)
        if cause.key != effect.key and pair not in self._edges:
            edge = LineageEdge(cause=cause.key, effect=effect.key, relation=relation)
            self._edges[pair] = edge
            self._causes[effect.key].append(edge)
            self._effects[cause.key].append(edge)

    def causes(self, key: str) -> list[LineageEdge]:
        """Links that lead to a node."""
        return self._causes.get(key, [])

    def effects(self, key: str) -> list[LineageEdge]:
        """Links that lead on from a node."""
        return self._effects.get(key, [])

    def among(self, keys: set[str]) -> list[LineageEdge]:
        """Links between nodes of a set, in the order in which they were found."""
        return [edge for edge in self._edges.values() if edge.cause in keys and edge.effect in keys]
