"""Where the files of pods are on this machine: what Katib's metrics collectors read.

On a cluster a collector is a container of the pod and sees its volumes. Here it is a part of the
control plane beside the pod runner, and asks for the real places.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kubeloop.local.client import Manifest
from kubeloop.local.kubelet.volumes import VolumeSpace, locate_volume, resolve_mounts

KEEP_VOLUMES_ANNOTATION = "kubeloop.dev/keep-volumes"
"""Annotation of a pod: its volumes stay until it is deleted, not only until it has ended."""

COMPLETE_ANNOTATION = "kubeloop.dev/complete"
"""Annotation of a pod: its containers are to end, and count as having succeeded. On a cluster
Katib's collector does so to a trial that it stops early, from inside of the pod."""


@dataclass(frozen=True, slots=True)
class PodFiles:
    """Files of the pods that ran from one state folder."""

    state: Path

    def log(self, pod: Manifest, container: str, *, restart_count: int) -> Path:
        """The log of one incarnation of a container."""
        folder = self.state / "pods" / str(pod["metadata"]["uid"])
        return folder / "logs" / container / f"{restart_count}.log"

    def claim(self, name: str, *, namespace: str) -> Path:
        """The folder of a persistent volume claim."""
        return self.state / "claims" / namespace / name

    def locate(self, pod: Manifest, container: str, path: str) -> Path:
        """Where an absolute path of a container is; the path itself when no volume is there."""
        metadata, spec = pod["metadata"], pod["spec"]
        space = VolumeSpace(
            pod=self.state / "pods" / str(metadata["uid"]) / "volumes",
            claims=self.state / "claims" / str(metadata["namespace"]),
        )
        volumes = {v["name"]: locate_volume(v, space) for v in spec.get("volumes") or ()}
        for described in spec["containers"]:
            if described["name"] == container:
                mounts = resolve_mounts(described, volumes=volumes, env={})
                return mounts.locate(path) or Path(path)
        return Path(path)
