"""What all pods of this machine share: processes, ports, folders, resources and events."""

from __future__ import annotations

import asyncio
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from kubeloop.local.client import Client, Manifest
from kubeloop.local.kubelet.environment import PodFolders, build_shared_env
from kubeloop.local.kubelet.images import ImagesConfig
from kubeloop.local.kubelet.network import HostPorts, NetworkConfig
from kubeloop.local.kubelet.process import ProcessRunner
from kubeloop.local.kubelet.references import NODE_ADDRESS
from kubeloop.local.kubelet.requirement_sets import RequirementSets, RequirementSetsConfig
from kubeloop.local.kubelet.scheduling import GPU, NodeConfig, NodeResources
from kubeloop.local.kubelet.temporary import TemporaryFolders
from kubeloop.local.kubelet.volumes import VolumeSpace
from kubeloop.local.kubelet.warm_parent import WarmConfig
from kubeloop.local.operators.conditions import Clock, format_time, utc_now
from kubeloop.local.operators.events import record_event

SHUTDOWN_GRACE_ANNOTATION = "kubeloop.dev/shutdown-grace-seconds"
"""Annotation of a pod: time that it gets to end when the control plane goes down, up to what the
kubelet gives. With 0 it is killed at once: it shall not take the shutdown for its own end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeletConfig:
    """How pods run on this machine."""

    node: NodeConfig = field(default_factory=NodeConfig)
    """What the machine offers."""
    images: ImagesConfig = field(default_factory=ImagesConfig)
    """What images stand for."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    """Ports for pods."""
    warm: WarmConfig = field(default_factory=WarmConfig)
    """What the warm parent imports."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables that all pods find in their environment, unless they set them themselves."""
    requirement_sets: RequirementSetsConfig = field(default_factory=RequirementSetsConfig)
    """Packages that components ask for."""
    first_backoff_seconds: float = 1.0
    """Wait before the second restart of a container (the first is at once); it doubles each time.
    A cluster starts with 10 s."""
    last_backoff_seconds: float = 60.0
    """Longest wait before a restart. On a cluster: 300 s."""
    shutdown_grace_seconds: float = 5.0
    """Longest time a pod has to end when the control plane goes down."""
    reset_backoff_seconds: float = 600.0
    """A container that ran this long starts over with the shortest wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Handed to every pod's runner."""

    client: Client
    config: KubeletConfig
    state: Path
    kubeconfig: Path
    processes: ProcessRunner
    resources: NodeResources
    ports: HostPorts
    events: EventQueue
    temporary: TemporaryFolders
    requirement_sets: RequirementSets
    list_pods: Callable[[str], list[Manifest]]
    """The pods of a namespace, as last seen."""
    clock: Clock = utc_now

    def folder(self, uid: str) -> Path:
        """Folder of one pod."""
        return self.state / "pods" / uid

    def log(self, uid: str, *, container: str, restart_count: int) -> Path:
        """Log of one incarnation of a container."""
        return self.folder(uid) / "logs" / container / f"{restart_count}.log"

    def work_folders(self, uid: str) -> PodFolders:
        """Where a pod's processes work."""
        folders = PodFolders.below(self.folder(uid))
        return replace(folders, temporary=self.temporary.find(folders.temporary, uid=uid))

    def volume_space(self, pod: Manifest) -> VolumeSpace:
        """Where a pod's volumes are."""
        metadata = pod["metadata"]
        return VolumeSpace(
            pod=self.folder(metadata["uid"]) / "volumes",
            claims=self.state / "claims" / metadata["namespace"],
        )

    def shared_env(self) -> dict[str, str]:
        """What all pods and the warm parent have in their environment."""
        return {**build_shared_env(kubeconfig=self.kubeconfig), **self.config.env}


class EventQueue:
    """Writes events in order without making those wait who have something to tell."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._queue: asyncio.Queue[tuple[Manifest, Literal["Normal", "Warning"], str, str, str]] = (
            asyncio.Queue()
        )

    def say(
        self,
        pod: Manifest,
        reason: str,
        message: str,
        *,
        warning: bool = False,
        component: str = "kubelet",
    ) -> None:
        """Record an event about a pod, soon."""
        kind: Literal["Normal", "Warning"] = "Warning" if warning else "Normal"
        self._queue.put_nowait((pod, kind, reason, message, component))

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            pod, kind, reason, message, component = await self._queue.get()
            await record_event(
                self._client,
                pod,
                type=kind,
                reason=reason,
                message=message,
                component=component,
            )
            self._queue.task_done()

    async def drain(self) -> None:
        """Until everything said so far is written."""
        await self._queue.join()


def build_node(config: NodeConfig, resources: NodeResources, *, now: datetime) -> Manifest:
    """The Node object of this machine."""
    stamp = format_time(now)
    condition = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "the pod runner is ready",
        "lastHeartbeatTime": stamp,
        "lastTransitionTime": stamp,
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": config.name,
            "labels": {"kubernetes.io/hostname": config.name, "kubernetes.io/os": sys.platform},
        },
        "spec": {},
        "status": {
            "capacity": _render_amounts(resources.capacity),
            "allocatable": _render_amounts(resources.allocatable),
            "addresses": [
                {"type": "InternalIP", "address": NODE_ADDRESS},
                {"type": "Hostname", "address": config.name},
            ],
            "conditions": [condition],
            "nodeInfo": _describe_system(),
        },
    }


def _describe_system() -> dict[str, str]:
    return {
        "machineID": "",
        "systemUUID": "",
        "bootID": "",
        "kernelVersion": platform.release(),
        "osImage": platform.system(),
        "containerRuntimeVersion": f"kubeloop://{version('kubeloop')}",
        "kubeletVersion": f"kubeloop-{version('kubeloop')}",
        "kubeProxyVersion": "",
        "operatingSystem": sys.platform,
        "architecture": platform.machine(),
    }


def _render_amounts(amounts: Mapping[str, Decimal]) -> dict[str, str]:
    rendered = {
        "cpu": f"{int(amounts['cpu'] * 1000)}m",
        "memory": f"{int(amounts['memory']) // 1024}Ki",
        "pods": str(int(amounts["pods"])),
    }
    return rendered | ({GPU: str(int(amounts[GPU]))} if amounts[GPU] else {})
