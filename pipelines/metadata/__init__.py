"""KFP's record of runs, tasks and artifacts, whichever way the backend keeps it.

`connect_cluster` chooses the reader by what a cluster answers; everything above sees
`MetadataSource`.
"""

from kubeloop.pipelines.metadata.clusters import connect_cluster
from kubeloop.pipelines.metadata.native import NativeMetadata
from kubeloop.pipelines.metadata.source import (
    Artifact,
    ArtifactUse,
    MetadataSource,
    RunRecord,
    TaskRecord,
)

__all__ = [
    "Artifact",
    "ArtifactUse",
    "MetadataSource",
    "NativeMetadata",
    "RunRecord",
    "TaskRecord",
    "connect_cluster",
]
