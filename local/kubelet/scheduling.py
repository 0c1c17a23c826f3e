"""Accounts for what pods ask of this one machine.

Memory, GPUs and the number of pods are never promised twice. CPU is: pods of a development machine
wait most of the time, so some times as many cores are offered as there are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from kubeloop.local.client import Manifest
from kubeloop.local.kubelet import linux
from kubeloop.local.quantities import parse_quantity

GPU = "nvidia.com/gpu"
_GPU_DEVICE = re.compile(r"nvidia\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """What the machine offers to pods."""

    name: str = "kubeloop"
    """Name of the Node object."""
    cpu_overcommit: float = 4.0
    """Cores offered for each that there is."""
    memory_bytes: int | None = None
    """Memory offered; None: all that the machine has."""
    num_gpus: int | None = None
    """GPUs offered; None: those that the machine has."""
    max_pods: int = 500
    """Pods that may run at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What a pod holds of the machine."""

    requests: Mapping[str, Decimal]
    gpus: tuple[int, ...]
    """Indices of its GPUs."""


class NodeResources:
    """The machine's resources and who holds them."""

    def __init__(self, config: NodeConfig) -> None:
        num_gpus = count_gpus() if config.num_gpus is None else config.num_gpus
        memory = _count_memory() if config.memory_bytes is None else config.memory_bytes
        self.capacity: dict[str, Decimal] = {
            "cpu": Decimal(linux.count_cpus()),
            "memory": Decimal(memory),
            "pods": Decimal(config.max_pods),
            GPU: Decimal(num_gpus),
        }
        self.allocatable = self.capacity | {
            "cpu": self.capacity["cpu"] * Decimal(str(config.cpu_overcommit))
        }
        self._placements: dict[str, Placement] = {}

    def place(self, pod: Manifest) -> str:
        """Reserve what a pod asks for; returns why it does not fit, empty if it does."""
        uid = pod["metadata"]["uid"]
        if uid in self._placements:
            return ""
        requests = sum_requests(pod)
        short = [
            f"Insufficient {resource}"
            for resource, amount in sorted(requests.items())
            if amount > self._count_free(resource)
        ]
        if short:
            return f"0/1 nodes are available: {', '.join(f'1 {reason}' for reason in short)}."
        self.force(pod)
        return ""

    def force(self, pod: Manifest) -> None:
        """Note that a pod runs here, fit or not."""
        requests = sum_requests(pod)
        used = {index for placement in self._placements.values() for index in placement.gpus}
        free = [index for index in range(int(self.capacity[GPU])) if index not in used]
        self._placements[pod["metadata"]["uid"]] = Placement(
            requests=requests, gpus=tuple(free[: int(requests.get(GPU, 0))])
        )

    def release(self, uid: str) -> bool:
        """Take back what a pod held; whether it held anything."""
        return self._placements.pop(uid, None) is not None

    def build_device_env(self, uid: str) -> dict[str, str]:
        """Which GPUs a pod may see: none that it did not ask for."""
        if not self.capacity[GPU]:
            return {}
        placement = self._placements.get(uid)
        gpus = placement.gpus if placement else ()
        return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))}

    def _count_free(self, resource: str) -> Decimal:
        held = (placement.requests.get(resource) for placement in self._placements.values())
        held = (placement.requests.get(resource) for placement in self._placements.values())
        used = sum((amount for amount in held if amount), Decimal(0))
        return self.allocatable.get(resource, Decimal(0)) - used


def sum_requests(pod: Manifest) -> dict[str, Decimal]:
    """What a pod needs at any time: its containers together, or the largest init container."""
    spec = pod["spec"]
    total: dict[str, Decimal] = {"pods": Decimal(1)}
    for container in spec["containers"]:
        for resource, amount in _read_requests(container):
            total[resource] = total.get(resource, Decimal(0)) + amount
    for container in spec.get("initContainers") or ():
        for resource, amount in _read_requests(container):
            total[resource] = max(total.get(resource, Decimal(0)), amount)
    for resource, quantity in (spec.get("overhead") or {}).items():
        total[resource] = total.get(resource, Decimal(0)) + parse_quantity(quantity)
    return {
        resource: amount
        for resource, amount in total.items()
        if amount and not resource.startswith(("ephemeral-storage", "hugepages-"))
    }


def count_gpus() -> int:
    """NVIDIA devices of this machine."""
    folder = Path("/dev")
    return sum(1 for path in folder.iterdir() if _GPU_DEVICE.fullmatch(path.name))


def _read_requests(container: Manifest) -> Iterator[tuple[str, Decimal]]:
    resources = container.get("resources") or {}
    merged = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    for resource, quantity in merged.items():
        yield resource, parse_quantity(quantity)


def _count_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
