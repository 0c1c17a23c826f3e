"""What lineage is: nodes, links from cause to effect, and where the record ends.

A node's key is what it is, not how it was reached: an artifact is its URI and digest, so that runs
which wrote or used the same thing meet in one node, and content that changed in place is two.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class LineageKind(StrEnum):
    """What a node is."""

    ENDPOINT = "endpoint"
    MODEL = "model"
    TRAINING_JOB = "training_job"
    TRIAL = "trial"
    EXPERIMENT = "experiment"
    RUN = "run"
    TASK = "task"
    DATASET = "dataset"
    SOURCE = "source"
    CODE = "code"
    """Archive of a user's own program."""
    ARTIFACT = "artifact"


class Relation(StrEnum):
    """How a cause led to its effect."""

    USED = "used by"
    MADE = "made"
    REUSED = "taken from the cache by"
    RAN = "ran"
    STARTED = "started"
    TRAINED = "trained"
    TUNED = "gave hyperparameters to"
    INGESTED = "ingested into"
    SERVED = "served by"


class Direction(StrEnum):
    """Which way links are followed from the target."""

    BACKWARD = "backward"
    FORWARD = "forward"


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageNode:
    """One node: `digest` is `sha256:…` of its content, empty where nothing was recorded."""

    key: str
    kind: LineageKind
    id: str
    uri: str = ""
    digest: str = ""
    note: str = ""
    """Why nothing lies beyond it, where the record ends before it should."""
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The node as JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageEdge:
    """A link between two nodes, by their keys."""

    cause: str
    effect: str
    relation: Relation


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageGraph:
    """The lineage of a target; `nodes` in the order in which they were reached."""

    target: LineageNode
    direction: Direction
    nodes: Mapping[str, LineageNode]
    edges: Collection[LineageEdge]
    cut: str = ""
    """Why nodes that the record holds are missing; empty when none is."""

    def select(self, *kinds: LineageKind) -> list[LineageNode]:
        """The nodes of these kinds."""
        return [node for node in self.nodes.values() if node.kind in kinds]

    def without(self, *kinds: LineageKind) -> LineageGraph:
        """The graph without these kinds; the target stays."""
        kept = {
            key: node
            for key, node in self.nodes.items()
            if node.kind not in kinds or key == self.target.key
        }
        return LineageGraph(
            target=self.target,
            direction=self.direction,
            nodes=kept,
            edges=[edge for edge in self.edges if edge.cause in kept and edge.effect in kept],
            cut=self.cut,
        )

    def links(self) -> dict[str, list[str]]:
        """Keys of the nodes that lie one link further from the target, by key."""
        found: dict[str, list[str]] = {key: [] for key in self.nodes}
        for edge in self.edges:
            if self.direction is Direction.BACKWARD:
                found[edge.effect].append(edge.cause)
            else:
                found[edge.cause].append(edge.effect)
        return found

    def to_json(self) -> dict[str, Any]:
        """The graph as JSON."""
        return {
            "target": self.target.key,
            "direction": self.direction,
            "nodes": [node.to_json() for node in self.nodes.values()],
            "edges": [asdict(edge) for edge in self.edges],
            "cut": self.cut,
        }
