"""Optimizers, learning rate schedules and number formats of the loop."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from kubeloop.errors import InputError
from kubeloop.training.loop_config import LoopConfig, Optimizer, Precision, Schedule


def build_optimizer(module: nn.Module, config: LoopConfig) -> torch.optim.Optimizer:
    """Build the optimizer; biases and normalisation do not decay."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer is Optimizer.SGD:
        return torch.optim.SGD(
            groups,
            lr=config.learning_rate,
            momentum=config.momentum,
            nesterov=config.momentum > 0,
            fused=True,
        )
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def scale_learning_rate(progress: float, *, step: float, config: LoopConfig) -> float:
    """Return the learning rate as a share of its peak.

    The schedule has no state of its own, so that a run which resumes with another number of
    processes goes on at the same point of it.

    Args:
        progress: Share of the run that is done, from 0 to 1.
        step: Share of the run that one step is.
        config: Schedule and warm-up.
    """
    if progress < config.warm_up:
        return min(1.0, (progress + step) / config.warm_up)
    fall = (progress - config.warm_up) / (1 - config.warm_up)
    match config.schedule:
        case Schedule.COSINE:
            return 0.5 * (1 + math.cos(math.pi * min(1.0, fall)))
        case Schedule.LINEAR:
            return max(0.0, 1 - fall)
        case Schedule.CONSTANT:
            return 1.0


class NumberFormat:
    """Computes in fewer bits where that is faster and safe."""

    def __init__(self, precision: Precision, device: torch.device) -> None:
        """Choose the format.

        Raises:
            InputError: A CPU is asked for fp16.
        """
        self._device = device
        self._dtype = _choose_dtype(precision, device)
        # NB: small gradients vanish in fp16 alone; bf16 has the range of fp32.
        self._scaler = torch.amp.GradScaler(enabled=self._dtype is torch.float16)

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context in which the forward pass runs."""
        if self._dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=self._dtype)

    def backward(self, loss: torch.Tensor) -> None:
        """Compute gradients."""
        scaled: torch.Tensor = self._scaler.scale(loss)
        scaled.backward()  # type: ignore[no-untyped-call]  # torch's stubs lack it

    def step(self, optimizer: torch.optim.Optimizer, *, gradient_clipping: float) -> None:
        """Limit the gradient's norm, and take a step unless the gradient overflowed."""
        if gradient_clipping:
            self._scaler.unscale_(optimizer)
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, gradient_clipping)
        self._scaler.step(optimizer)
        self._scaler.update()

    def state_dict(self) -> dict[str, float]:
        """Return what a checkpoint keeps."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from a checkpoint."""
        if state:
            self._scaler.load_state_dict(state)


def _choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    on_gpu = device.type == "cuda"
    match precision:
        case Precision.BF16:
            return torch.bfloat16
        case Precision.FP16:
            if not on_gpu:
                raise InputError("precision fp16 needs a GPU; use bf16, fp32 or auto on a CPU.")
            return torch.float16
        case Precision.AUTO if on_gpu:
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        case _:
            return torch.float32
