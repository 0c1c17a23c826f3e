"""Hyperparameters of the training loop, the same for every program that uses it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from kubeloop.errors import InputError


class Optimizer(StrEnum):
    """Which optimizer takes the steps."""

    ADAMW = "adamw"
    SGD = "sgd"
    """With Nesterov's momentum."""


class Schedule(StrEnum):
    """How the learning rate falls after the warm-up."""

    COSINE = "cosine"
    LINEAR = "linear"
    CONSTANT = "constant"


class Precision(StrEnum):
    """In which numbers the model is computed; its weights are 32-bit numbers in every case."""

    AUTO = "auto"
    """bf16 on a GPU that has it, fp16 on another one, fp32 on a CPU."""
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class ClassWeights(StrEnum):
    """How much an example of a class counts in the loss."""

    NONE = "none"
    BALANCED = "balanced"
    """Inversely to the number of the class's examples, 1 on average."""


class Selection(StrEnum):
    """Which epoch's weights a run ends with."""

    BEST = "best"
    """Of the highest accuracy on the validation data; among equals of the lowest loss."""
    LAST = "last"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """Hyperparameters of the loop; each is checked on construction."""

    learning_rate: float = 0.02
    """Peak of the schedule."""
    batch_size: int = 64
    """Examples in a step of one process; all processes together take that many times as many."""
    epochs: int = 15
    """Passes over the training data."""
    optimizer: Optimizer = Optimizer.ADAMW
    """What takes the steps."""
    momentum: float = 0.9
    """SGD's momentum."""
    weight_decay: float = 0.02
    """Decay of weights; biases and normalisation are left alone."""
    schedule: Schedule = Schedule.COSINE
    """How the learning rate falls after the warm-up."""
    warm_up: float = 0.3
    """Share of the steps in which the learning rate rises from 0 to its peak."""
    label_smoothing: float = 0.1
    """Probability given to the other classes."""
    class_weights: ClassWeights = ClassWeights.NONE
    """How much an example of a class counts."""
    gradient_clipping: float = 0.0
    """Largest norm of the gradient; 0: any."""
    accumulation_steps: int = 1
    """Parts in which a step's batch is computed one after the other, where it fills the memory."""
    precision: Precision = Precision.AUTO
    """In which numbers the model is computed."""
    patience: int = 0
    """Epochs without a better one after which the run ends; 0: it goes on to the last epoch."""
    selection: Selection = Selection.BEST
    """Which epoch's weights the run ends with."""
    checkpoint_seconds: float = 60.0
    """Time between two checkpoints within an epoch; there is always one after each epoch."""
    num_checkpoints: int = 2
    """Checkpoints that are kept."""
    seed: int = 0
    """Another seed gives another model."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        _check("learning_rate", self.learning_rate, low=0.0, high=10.0, open_low=True)
        _check("batch_size", self.batch_size, low=1, high=65536)
        _check("epochs", self.epochs, low=1, high=100_000)
        _check("momentum", self.momentum, low=0.0, high=0.999)
        _check("weight_decay", self.weight_decay, low=0.0, high=10.0)
        _check("warm_up", self.warm_up, low=0.0, high=0.9)
        _check("label_smoothing", self.label_smoothing, low=0.0, high=0.9)
        _check("gradient_clipping", self.gradient_clipping, low=0.0, high=1e9)
        _check("accumulation_steps", self.accumulation_steps, low=1, high=self.batch_size)
        _check("patience", self.patience, low=0, high=100_000)
        _check("checkpoint_seconds", self.checkpoint_seconds, low=0.0, high=1e9)
        _check("num_checkpoints", self.num_checkpoints, low=1, high=1000)
        _check("seed", self.seed, low=0, high=2**31 - 1)


def _check(name: str, value: float, *, low: float, high: float, open_low: bool = False) -> None:
    if not (low < value if open_low else low <= value) or not value <= high:
        above = "above" if open_low else "from"
        raise InputError(f"{name} must be {above} {low} to {high}, not {value!r}.")
