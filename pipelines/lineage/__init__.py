"""Where things come from and what came of them, read from KFP's record of runs.

`find_target` says what a user means, `trace` walks from it, and the renderings show what was found.
"""

from kubeloop.pipelines.lineage.graph import (
    Direction,
    LineageEdge,
    LineageGraph,
    LineageKind,
    LineageNode,
    Relation,
)
from kubeloop.pipelines.lineage.targets import ACCEPTED, find_target
from kubeloop.pipelines.lineage.tracing import Target, TraceLimits, trace

__all__ = [
    "ACCEPTED",
    "Direction",
    "LineageEdge",
    "LineageGraph",
    "LineageKind",
    "LineageNode",
    "Relation",
    "Target",
    "TraceLimits",
    "find_target",
    "trace",
]
