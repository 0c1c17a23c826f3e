"""Batch statistics that fit the weights they are used with.

Batch normalisation scores with running averages of what it saw while the weights were changing.
After a short epoch at a high learning rate those lag far behind, and a model that has learnt well
scores like a guess, which would mislead early stopping and the choice of hyperparameters. A few
forward passes with the weights at rest give statistics that fit.

Source: Wu and Johnson, Rethinking "Batch" in BatchNorm, 2021 (precise BatchNorm).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def refresh_statistics(module: nn.Module, inputs: Iterable[Any]) -> None:
    """Replace the running statistics by the means over some batches of training inputs."""
    norms = [
        part
        for part in module.modules()
        if isinstance(part, _BatchNorm) and part.track_running_stats
    ]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    module.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # NB: torch's way to ask for the plain mean.
    try:
        with torch.no_grad():
            for batch in inputs:
                module(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
