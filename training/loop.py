"""The training loop that the programs share.

Everything random is seeded from the run's seed, the step and the rank, so that a run resumed after
any step goes on exactly as it would have. The loop prints one line of metrics an epoch, in the form
that Katib's collector reads.
"""

from __future__ import annotations

import hashlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from kubeloop.datasets.stores import ObjectStore
from kubeloop.errors import InputError, KubeloopError, PermanentError
from kubeloop.training import distributed
from kubeloop.training.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from kubeloop.training.distributed import World
from kubeloop.training.normalization import refresh_statistics

_EVALUATION_BATCH = 256
_WARM_UP = 0.3
_NUM_STATISTICS_BATCHES = 4


class StoppedError(KubeloopError):
    """The process was asked to end; a checkpoint was written."""


class Batches(Protocol):
    """Examples in memory, by row.

    `fetch` returns the model's inputs and the class indices of some rows, on the model's device.
    A generator is given in training alone: it is the only source of chance for augmentation.
    """

    def __len__(self) -> int: ...

    def fetch(self, rows: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Return inputs and class indices."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """Hyperparameters of the loop; each is checked on construction."""

    learning_rate: float = 0.02
    """Peak of the one-cycle schedule."""
    batch_size: int = 64
    """Examples in a step of one process; all processes together take that many times as many."""
    epochs: int = 15
    """Passes over the training data."""
    weight_decay: float = 0.02
    """AdamW's decay of weights; biases and normalisation are left alone."""
    label_smoothing: float = 0.1
    """Probability given to the other classes."""
    seed: int = 0
    """Another seed gives another model."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        _check("learning_rate", self.learning_rate, low=0.0, high=10.0, open_low=True)
        _check("batch_size", self.batch_size, low=1, high=65536)
        _check("epochs", self.epochs, low=1, high=100_000)
        _check("weight_decay", self.weight_decay, low=0.0, high=10.0)
        _check("label_smoothing", self.label_smoothing, low=0.0, high=0.9)
        _check("seed", self.seed, low=0, high=2**31 - 1)


def _check(name: str, value: float, *, low: float, high: float, open_low: bool = False) -> None:
    if not (low < value if open_low else low <= value) or not value <= high:
        above = "above" if open_low else "from"
        raise InputError(f"{name} must be {above} {low} to {high}, not {value!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """How good the model is on a split."""

    loss: float
    accuracy: float


class StopSignal:
    """Turns SIGTERM into a question that the loop asks between two steps."""

    def __init__(self) -> None:
        self.is_set = False

    def _set(self, _number: int, _frame: FrameType | None) -> None:
        self.is_set = True

    @contextmanager
    def installed(self) -> Iterator[StopSignal]:
        """Handle SIGTERM for the time of the context."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        previous = signal.signal(signal.SIGTERM, self._set)
        try:
            yield self
        finally:
            signal.signal(signal.SIGTERM, previous)


class TrainingLoop:
    """One run: from the newest checkpoint, or the beginning, to the last epoch."""

    def __init__(
        self,
        module: nn.Module,
        config: LoopConfig,
        *,
        world: World,
        train: Batches,
        validation: Batches,
        checkpoints: ObjectStore | None = None,
        identity: Mapping[str, Any] | None = None,
        stop: StopSignal | None = None,
        report: Callable[[str], None],
    ) -> None:
        """Prepare a run.

        Args:
            module: Takes inputs, returns logits; on the device of `world`.
            config: Hyperparameters.
            world: The processes.
            train: Examples to fit on.
            validation: Examples to score on after each epoch.
            checkpoints: Where checkpoints go; None: nowhere.
            identity: What beside `config` makes this run what it is, such as the data's hash.
            stop: Asked after every step whether to write a checkpoint and end.
            report: Called with each line of metrics, in the main process.
        """
        self._module = module
        self._config = config
        self._world = world
        self._train = train
        self._validation = validation
        self._checkpoints = checkpoints
        self._settings = {**asdict(config), **(identity or {}), "world_size": world.size}
        self._stop = stop or StopSignal()
        self._report = report
        self._wrapped = distributed.wrap(module, world)
        share = math.ceil(len(train) / world.size)
        self._batch_size = min(config.batch_size, max(2, share))
        self._steps_per_epoch = max(1, share // self._batch_size)
        self._optimizer = _build_optimizer(module, config)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer,
            config.learning_rate,
            total_steps=self._steps_per_epoch * config.epochs,
            pct_start=_WARM_UP,
        )
        self._num_steps = 0
        self._epoch_loss = torch.zeros((), dtype=torch.float64, device=world.device)

    def run(self) -> Scores:
        """Train to the end.

        Returns:
            Scores of the last epoch on the validation data.

        Raises:
            PermanentError: The loss is not a number any more.
            StoppedError: The run was asked to stop; the main process wrote a checkpoint.
            LostPeerError: Another process went away.
        """
        self._resume()
        scores: Scores | None = None
        for epoch in range(self._num_steps // self._steps_per_epoch, self._config.epochs):
            scores = self._run_epoch(epoch)
        return scores if scores is not None else self.evaluate()

    def _run_epoch(self, epoch: int) -> Scores:
        started, first_step = time.monotonic(), self._num_steps % self._steps_per_epoch
        order = self._shuffle(epoch)
        self._wrapped.train()
        for step in range(first_step, self._steps_per_epoch):
            rows = order[step * self._batch_size : (step + 1) * self._batch_size]
            self._epoch_loss += self._step(rows)
            self._num_steps += 1
            if step + 1 < self._steps_per_epoch:
                self._stop_if_asked(is_saved=False)
        seconds = time.monotonic() - started
        train_loss = self._close_epoch(epoch)
        self._refresh_statistics(epoch, order)
        scores = self.evaluate()
        rate = (self._steps_per_epoch - first_step) * self._batch_size * self._world.size / seconds
        self._print(
            f"epoch={epoch + 1} train_loss={train_loss:.6f} val_loss={scores.loss:.6f}"
            f" val_accuracy={scores.accuracy:.6f} examples_per_second={rate:.1f}"
        )
        self._save()
        self._stop_if_asked(is_saved=True)
        return scores

    def _stop_if_asked(self, *, is_saved: bool) -> None:
        if self._stop.is_set:
            if not is_saved:
                self._save()
            raise StoppedError(f"Stopped after {self._num_steps} steps, as asked by SIGTERM.")

    def _step(self, rows: Tensor) -> Tensor:
        """Take one step of the optimizer and return the batch's loss."""
        generator = torch.Generator().manual_seed(self._seed_of("step", self._num_steps))
        torch.manual_seed(self._seed_of("model", self._num_steps))
        inputs, targets = self._train.fetch(rows, generator)
        logits = self._wrapped(inputs)
        loss = functional.cross_entropy(
            logits, targets, label_smoothing=self._config.label_smoothing
        )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stubs lack it
        self._optimizer.step()
        self._schedule.step()
        return loss.detach()

    def _shuffle(self, epoch: int) -> Tensor:
        """Return this process's rows of an epoch; all processes get equally many."""
        count, size = len(self._train), self._world.size
        generator = torch.Generator().manual_seed(_mix(self._config.seed, "epoch", epoch))
        order = torch.randperm(count, generator=generator)
        needed = self._steps_per_epoch * self._batch_size * size
        repeats = math.ceil(needed / count)
        return order.repeat(repeats)[:needed][self._world.rank :: size]

    def _close_epoch(self, epoch: int) -> float:
        """Return the mean loss of the epoch over all processes."""
        total = distributed.sum_over_processes(self._epoch_loss, self._world)
        mean = total.item() / (self._steps_per_epoch * self._world.size)
        if not math.isfinite(mean):
            raise PermanentError(
                f"Training diverged in epoch {epoch + 1}: the loss is {mean}; lower learning_rate"
                f" (now {self._config.learning_rate!r})."
            )
        self._epoch_loss.zero_()
        return mean

    def _refresh_statistics(self, epoch: int, order: Tensor) -> None:
        """Fit batch statistics to the weights, from a few batches of each process."""
        torch.manual_seed(self._seed_of("statistics", epoch))
        generator = torch.Generator().manual_seed(self._seed_of("statistics", epoch))
        batches = torch.split(order, self._batch_size)[:_NUM_STATISTICS_BATCHES]
        refresh_statistics(
            self._module, (self._train.fetch(rows, generator)[0] for rows in batches)
        )
        distributed.average_buffers(self._module, self._world)

    def evaluate(self) -> Scores:
        """Score the model on the validation data, each process on its share."""
        self._module.eval()
        sums = torch.zeros(3, dtype=torch.float64)
        share = torch.arange(self._world.rank, len(self._validation), self._world.size)
        with torch.inference_mode():
            for rows in torch.split(share, _EVALUATION_BATCH):
                inputs, targets = self._validation.fetch(rows, None)
                logits = self._module(inputs)
                sums[0] += functional.cross_entropy(logits, targets, reduction="sum").item()
                sums[1] += (logits.argmax(1) == targets).sum().item()
                sums[2] += len(rows)
        loss, correct, count = distributed.sum_over_processes(sums, self._world).tolist()
        return Scores(loss=loss / count, accuracy=correct / count)

    def _seed_of(self, purpose: str, step: int) -> int:
        return _mix(self._config.seed, purpose, step * self._world.size + self._world.rank)

    def _save(self) -> None:
        if self._checkpoints is None or not self._world.is_main:
            return
        state = {
            "model": self._module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "epoch_loss": self._epoch_loss,
        }
        checkpoint = Checkpoint(num_steps=self._num_steps, state=state, settings=self._settings)
        save_checkpoint(self._checkpoints, checkpoint)

    def _resume(self) -> None:
        if self._checkpoints is None:
            return
        found = load_checkpoint(self._checkpoints, self._settings) if self._world.is_main else None
        num_steps = distributed.share_number(found.num_steps if found else -1, self._world)
        if num_steps < 0:
            return
        checkpoint = found or load_checkpoint(
            self._checkpoints, self._settings, num_steps=num_steps
        )
        if checkpoint is None:
            raise PermanentError(
                f"The checkpoint after {num_steps} steps, which the main process read, is not in"
                f" {self._checkpoints.uri!r}; all workers must see the same store."
            )
        self._module.load_state_dict(checkpoint.state["model"])
        self._optimizer.load_state_dict(checkpoint.state["optimizer"])
        self._schedule.load_state_dict(checkpoint.state["schedule"])
        self._epoch_loss.copy_(checkpoint.state["epoch_loss"])
        self._num_steps = checkpoint.num_steps
        self._print(f"Resuming from the checkpoint after {self._num_steps} steps.")

    def _print(self, line: str) -> None:
        if self._world.is_main:
            self._report(line)


def _build_optimizer(module: nn.Module, config: LoopConfig) -> torch.optim.Optimizer:
    """AdamW, without decay for biases and normalisation."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def _mix(seed: int, purpose: str, number: int) -> int:
    """Derive an independent seed."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
