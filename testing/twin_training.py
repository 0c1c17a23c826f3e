"""Training on two clouds of points, alone or as one of several workers of one model.

`python -m kubeloop.testing.twin_training` is a worker: it finds the others by RANK, WORLD_SIZE,
MASTER_ADDR and MASTER_PORT.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor, nn

from kubeloop.training.distributed import World, joined, read_world
from kubeloop.training.loop import TrainingLoop
from kubeloop.training.loop_config import ClassWeights, LoopConfig


class Blobs:
    """Two clouds of points; a generator moves them a little."""

    def __init__(self, count: int, *, scale: float = 1.0, is_still: bool = False) -> None:
        self.is_still = is_still
        generator = torch.Generator().manual_seed(count)
        self.labels = torch.arange(count) % 2
        centres = torch.stack([self.labels, 1 - self.labels], dim=1) * 2.0
        self.points = (centres + torch.randn(count, 2, generator=generator) * 0.3) * scale

    def __len__(self) -> int:
        return len(self.labels)

    def count_classes(self) -> Tensor:
        """Points of each cloud."""
        return torch.bincount(self.labels)

    def fetch(self, rows: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Points, and the clouds that they belong to."""
        points = self.points[rows]
        if generator is not None and not self.is_still:
            points = points + torch.randn(points.shape, generator=generator) * 0.1
        return points, self.labels[rows]


def train_twin(batch_size: int, *, world: World, report: Callable[[str], None]) -> None:
    """Train a model whose result depends on the batch of all workers, not on how it is shared."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 2))
    config = LoopConfig(
        batch_size=batch_size,
        epochs=4,
        learning_rate=0.02,
        gradient_clipping=1.0,
        accumulation_steps=2,
        class_weights=ClassWeights.BALANCED,
    )
    TrainingLoop(
        module,
        config,
        world=world,
        train=Blobs(51, is_still=True),
        validation=Blobs(21),
        report=report,
    ).run()


def main() -> None:
    """Train as the worker that the environment says."""
    world = read_world(os.environ)
    with joined(world):
        train_twin(8, world=world, report=print)


if __name__ == "__main__":
    main()
