"""Walks from a target to its causes or to its effects.

Each level of the walk is read ahead in a few requests, every node is visited once, so that cycles
end, and depth and size are bounded.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from kubeloop.kserve.endpoints import Endpoint
from kubeloop.pipelines.lineage.describing import describe_run
from kubeloop.pipelines.lineage.graph import (
    Direction,
    LineageGraph,
    LineageKind,
    LineageNode,
)
from kubeloop.pipelines.lineage.linking import Linker
from kubeloop.pipelines.lineage.records import Records
from kubeloop.pipelines.lineage.web import Web
from kubeloop.pipelines.metadata import Artifact, MetadataSource, RunRecord, TaskRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What lineage starts from: exactly one of these."""

    endpoint: Endpoint | None = None
    run: RunRecord | None = None
    task: TaskRecord | None = None
    artifacts: tuple[Artifact, ...] = ()
    """All records of one thing: a dataset commit that ten runs ingested has ten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceLimits:
    """Where a walk stops, and says so."""

    max_depth: int = 50
    """Links from the target."""
    max_nodes: int = 5000
    """Nodes in all; a dataset may have led to tens of thousands."""


def trace(
    target: Target,
    source: MetadataSource,
    *,
    direction: Direction = Direction.BACKWARD,
    endpoints: Sequence[Endpoint] = (),
    limits: TraceLimits | None = None,
) -> LineageGraph:
    """Read the lineage of a target.

    Args:
        target: What to start from.
        source: The record of runs.
        direction: To the causes, or to the effects.
        endpoints: InferenceServices that models may have become.
        limits: Where to stop.

    Raises:
        TransientError: The record cannot be reached.
    """
    limits = limits or TraceLimits()
    walk = _Walk(source, endpoints=endpoints)
    root, reached = walk.begin(target)
    level, depth, cut = list(reached), 0, ""
    while level and not cut:
        found = [key for key in walk.step(level, direction) if key not in reached]
        level = list(dict.fromkeys(found))
        if level and depth >= limits.max_depth:
            cut = f"stopped after {depth} links; {len(level)} or more nodes follow"
            level = []
        elif len(reached) + len(level) > limits.max_nodes:
            level = level[: max(0, limits.max_nodes - len(reached))]
            cut = f"stopped at {limits.max_nodes} nodes; the record holds more"
        reached |= dict.fromkeys(level)
        depth += 1
    return walk.collect(root, reached, direction=direction, cut=cut)


class _Walk:
    def __init__(self, source: MetadataSource, *, endpoints: Sequence[Endpoint]) -> None:
        self._records = Records(source)
        self._web = Web()
        self._linker = Linker(self._records, self._web, endpoints=endpoints)

    def begin(self, target: Target) -> tuple[LineageNode, dict[str, None]]:
        """The target's node, and the keys of all nodes that the walk starts from."""
        if target.run is not None:
            return self._enter_run(target.run)
        if target.endpoint is not None:
            root = self._linker.add_endpoint(target.endpoint)
        elif target.task is not None:
            root = self._linker.add_task(target.task)
        else:
            nodes = [self._linker.add_artifact(artifact) for artifact in target.artifacts]
            return nodes[-1], {node.key: None for node in nodes}
        return root, {root.key: None}

    def _enter_run(self, run: RunRecord) -> tuple[LineageNode, dict[str, None]]:
        """A run stands for its tasks, what they gave, and the endpoints that this became."""
        root = self._web.add(describe_run(run.run_id, run))
        keys = [self._linker.add_task(task).key for task in self._records.tasks(run.run_id)]
        self._linker.read_outputs(keys)
        inside = {
            key: None
            for key, node in self._web.nodes.items()
            if node.kind is not LineageKind.RUN or key == root.key
        }
        for key in list(inside):
            self._linker.link_endpoints(key)
        served = [edge for key in inside for edge in self._web.effects(key)]
        for edge in served:
            if self._web.nodes[edge.effect].details.get("run_id") == run.run_id:
                inside[edge.effect] = None
        return root, inside

    def step(self, level: Sequence[str], direction: Direction) -> list[str]:
        """The keys one link further; reads what the level needs."""
        if direction is Direction.BACKWARD:
            self._linker.read_makers(level)
            self._linker.read_inputs(level)
            edges = [edge for key in level for edge in self._web.causes(key)]
        else:
            self._linker.read_takers(level)
            self._linker.read_outputs(level)
            edges = [edge for key in level for edge in self._web.effects(key)]
        kinds = self._web.nodes
        return [
            edge.cause if direction is Direction.BACKWARD else edge.effect
            for edge in edges
            if kinds[edge.cause].kind is not LineageKind.RUN
        ]

    def collect(
        self, root: LineageNode, reached: Collection[str], *, direction: Direction, cut: str
    ) -> LineageGraph:
        """What was reached, and the runs of its tasks: told with each, never walked through."""
        runs = [
            edge.cause
            for key in reached
            for edge in self._web.causes(key)
            if self._web.nodes[edge.cause].kind is LineageKind.RUN
        ]
        keys = dict.fromkeys([*reached, *runs])
        return LineageGraph(
            target=self._web.nodes[root.key],
            direction=direction,
            nodes={key: self._web.nodes[key] for key in keys},
            edges=self._web.among(set(keys)),
            cut=cut,
        )
