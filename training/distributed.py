"""The processes of one training job, as the environment of a PyTorchJob describes them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn

from kubeloop.errors import InputError, TransientError

_TIMEOUT = timedelta(minutes=10)
_PEER_MESSAGES = ("gloo", "Connection closed by peer", "Connection reset by peer", "NCCL")


class LostPeerError(TransientError):
    """Another process of the job went away; the job goes on when both are started again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Which process of how many this is."""

    rank: int = 0
    """Number of this process; 0 writes the model."""
    size: int = 1
    """Number of processes."""
    local_rank: int = 0
    """Number of this process on its machine; chooses its GPU."""

    @property
    def is_main(self) -> bool:
        """Tell whether this process writes what the job produces."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """Return where this process computes."""
        if torch.cuda.is_available():
            return torch.device("cuda", self.local_rank)
        return torch.device("cpu")


def read_world(environment: Mapping[str, str]) -> World:
    """Read RANK, WORLD_SIZE and LOCAL_RANK.

    Raises:
        InputError: They are no numbers, or do not fit together.
    """
    try:
        world = World(
            rank=int(environment.get("RANK", "0")),
            size=int(environment.get("WORLD_SIZE", "1")),
            local_rank=int(environment.get("LOCAL_RANK", "0")),
        )
    except ValueError as error:
        raise InputError(f"RANK, WORLD_SIZE and LOCAL_RANK must be whole numbers: {error}") from (
            error
        )
    if not 0 <= world.rank < world.size:
        raise InputError(f"RANK {world.rank} must be below WORLD_SIZE {world.size}.")
    return world


@contextlib.contextmanager
def joined(world: World) -> Iterator[None]:
    """Meet the other processes at MASTER_ADDR and MASTER_PORT for the time of the context.

    Raises:
        LostPeerError: A process went away, or did not come.
    """
    if world.size == 1:
        yield
        return
    with translated_errors():
        backend = "nccl" if world.device.type == "cuda" else "gloo"
        distributed.init_process_group(
            backend, rank=world.rank, world_size=world.size, timeout=_TIMEOUT
        )
        try:
            yield
        finally:
            distributed.destroy_process_group()


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """Turn what torch raises for a lost process into `LostPeerError`."""
    try:
        yield
    except distributed.DistError as error:
        raise LostPeerError(f"Lost another process of the job: {error}") from error
    except RuntimeError as error:
        # NB: Gloo reports a closed connection as a plain RuntimeError.
        if not any(message in str(error) for message in _PEER_MESSAGES):
            raise
        raise LostPeerError(f"Lost another process of the job: {error}") from error


def wrap(module: nn.Module, world: World) -> nn.Module:
    """Return the module that averages gradients over all processes."""
    if world.size == 1:
        return module
    device_ids = [world.local_rank] if world.device.type == "cuda" else None
    # NB: batch statistics are averaged once an epoch, by `average_buffers`, not at each step.
    return nn.parallel.DistributedDataParallel(
        module, device_ids=device_ids, forward_sync_buffers=False, gradient_as_bucket_view=True
    )


def average_buffers(module: nn.Module, world: World) -> None:
    """Give all processes the mean of their batch statistics."""
    if world.size == 1:
        return
    buffers = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
    if not buffers:
        return
    flat = torch.cat([buffer.flatten() for buffer in buffers])
    distributed.all_reduce(flat)
    flat /= world.size
    for buffer, mean in zip(buffers, torch.split(flat, [b.numel() for b in buffers]), strict=True):
        buffer.copy_(mean.view_as(buffer))


def sum_over_processes(values: Tensor, world: World) -> Tensor:
    """Return the sum of a tensor over all processes."""
    if world.size == 1:
        return values
    total = values.to(world.device, copy=True)
    distributed.all_reduce(total)
    return total


def share_number(number: int, world: World) -> int:
    """Give all processes the main process's number."""
    if world.size == 1:
        return number
    shared = torch.tensor([number], dtype=torch.int64, device=world.device)
    distributed.broadcast(shared, src=0)
    return int(shared.item())


def limit_threads(environment: Mapping[str, str]) -> None:
    """Use OMP_NUM_THREADS threads, also where torch was loaded before it was set."""
    if (text := environment.get("OMP_NUM_THREADS", "")).isdigit() and int(text) > 0:
        torch.set_num_threads(int(text))
