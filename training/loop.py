"""The training loop that the programs share.

Where a run stands is one place: the epoch, and how many of its examples all processes together have
taken. The order of examples, the learning rate and everything random are functions of the seed and
of that place, so that a run which is killed goes on exactly as it would have, and one that gains or
loses processes takes every example of an epoch once. The loop prints one line of metrics an epoch,
in the form that Katib's collector reads.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from kubeloop.datasets.stores import ObjectStore
from kubeloop.errors import PermanentError, TransientError
from kubeloop.training import distributed
from kubeloop.training.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from kubeloop.training.distributed import LostPeerError, World
from kubeloop.training.loop_config import ClassWeights, LoopConfig, Selection
from kubeloop.training.memory import translated_memory_errors
from kubeloop.training.normalization import refresh_statistics
from kubeloop.training.optimization import NumberFormat, build_optimizer, scale_learning_rate
from kubeloop.training.pace import Clock, Pace, render_duration
from kubeloop.training.selection import BestEpoch, Scores
from kubeloop.training.stopping import StoppedError, StopSignal

_EVALUATION_BATCH = 256
_NUM_STATISTICS_BATCHES = 4
_PROGRESS_SECONDS = 10.0
_MEMORY_ADVICE = (
    "lower batch_size, raise accumulation_steps, or give the job more memory (CPU) or a larger GPU"
)


class Batches(Protocol):
    """Examples in memory, by row.

    `fetch` returns the model's inputs and the class indices of some rows, on the model's device.
    A generator is given in training alone: it is the only source of chance for augmentation.
    """

    def __len__(self) -> int: ...

    def fetch(self, rows: Tensor, generator: torch.Generator | None) -> tuple[Any, Tensor]:
        """Return inputs, in whatever form the module takes them, and class indices."""
        ...

    def count_classes(self) -> Tensor:
        """Return the number of examples of each class."""
        ...


ScoreClasses = Callable[[Tensor, Tensor], Mapping[str, float]]
"""What a program scores beside accuracy, from the hits and the examples of each class."""


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
        report: Callable[[str], None],
        checkpoints: ObjectStore | None = None,
        identity: Mapping[str, Any] | None = None,
        stop: StopSignal | None = None,
        score_classes: ScoreClasses = lambda _hits, _counts: {},
        clock: Clock = time.monotonic,
    ) -> None:
        """Prepare a run.

        Args:
            module: Takes inputs, returns logits; on the device of `world`. In training it may
                answer several times, batch x answers x classes; each answer counts.
            config: Hyperparameters.
            world: The processes.
            train: Examples to fit on.
            validation: Examples to score on after each epoch.
            report: Called with each line of the log, in the main process.
            checkpoints: Where checkpoints go; None: nowhere.
            identity: What beside `config` makes this run what it is, such as the data's hash.
            stop: Asked after every step whether to write a checkpoint and end.
            score_classes: Further scores on the validation data.
            clock: Time for progress and for checkpoints within an epoch.

        Raises:
            InputError: The device cannot compute in the wanted precision.
        """
        self._module = module
        self._config = config
        self._world = world
        self._train = train
        self._validation = validation
        self._checkpoints = checkpoints
        self._settings = {**asdict(config), **(identity or {})}
        self._stop = stop or StopSignal()
        self._report = report
        self._score_classes = score_classes
        self._clock = clock
        self._wrapped = distributed.wrap(module, world)
        self._optimizer = build_optimizer(module, config)
        self._format = NumberFormat(config.precision, world.device)
        self._class_weights = self._weigh_classes()
        self._best = BestEpoch(keeps_weights=world.is_main and config.selection is Selection.BEST)
        share = math.ceil(len(train) / world.size)
        # NB: normalisation over a batch needs two examples.
        self._batch_size = min(config.batch_size, max(2, share)) * world.size
        self._steps_per_epoch = max(1, len(train) // self._batch_size)
        self._epoch, self._offset, self._num_steps = 0, 0, 0
        self._epoch_loss = torch.zeros((), dtype=torch.float64, device=world.device)
        self._pace = Pace(len(train) * config.epochs, clock=clock)
        self._saved_at = self._told_at = clock()

    def run(self) -> Scores:
        """Train to the end, and leave the selected epoch's weights in the module.

        Returns:
            The scores of that epoch on the validation data.

        Raises:
            PermanentError: The loss is not a number any more, or memory does not suffice.
            StoppedError: The run was asked to stop; the main process wrote a checkpoint.
            LostPeerError: Another process went away.
        """
        with translated_memory_errors(_MEMORY_ADVICE):
            self._resume()
            self._pace.start(self._num_seen)
            try:
                with distributed.translated_errors():
                    scores = self._run_epochs()
            except LostPeerError:
                self._save()  # The last step is whole: a peer is missed before weights change.
                raise
        return scores

    def _run_epochs(self) -> Scores:
        config, scores = self._config, None
        while self._epoch < config.epochs and not self._is_stale():
            scores = self._run_epoch()
        if config.selection is Selection.BEST and self._best.scores is not None:
            self._best.restore(self._module)
            scores = self._best.scores
            self._print(f"best_epoch={self._best.epoch} {_render(scores.render())}")
        return scores if scores is not None else self.evaluate()

    def _is_stale(self) -> bool:
        patience = self._config.patience
        if not patience or self._best.num_worse < patience:
            return False
        self._print(
            f"No epoch has been better than epoch {self._best.epoch} for {patience} epochs: the run"
            " ends early."
        )
        return True

    def _run_epoch(self) -> Scores:
        started, first = self._clock(), self._offset
        order = self._shuffle()
        self._wrapped.train()
        while not self._is_epoch_done():
            self._epoch_loss += self._step(self._take(order)) * self._batch_size
            self._offset += self._batch_size
            self._num_steps += 1
            if not self._is_epoch_done():
                self._look_up_from_work()
        rate = (self._offset - first) / max(self._clock() - started, 1e-9)
        train_loss = self._close_epoch()
        self._refresh_statistics(order)
        scores = self.evaluate()
        self._best.offer(self._epoch + 1, scores, self._module)
        self._epoch, self._offset = self._epoch + 1, 0
        values = {"train_loss": train_loss, **scores.render()}
        left = self._pace.seconds_left(self._num_seen)
        self._print(
            f"epoch={self._epoch} {_render(values)} examples_per_second={rate:.1f}"
            f" eta_seconds={left:.0f}"
        )
        if not scores.is_finite:
            self._print(
                f"Epoch {self._epoch} cannot be the best one: on the validation data its loss is"
                f" {scores.loss}; lower learning_rate (now {self._config.learning_rate!r})."
            )
        self._save()
        self._stop_if_asked(is_saved=True)
        return scores

    def _look_up_from_work(self) -> None:
        """Between two steps: tell how far the run is, keep it, end it."""
        now = self._clock()
        if now - self._told_at >= _PROGRESS_SECONDS:
            self._told_at = now
            left = render_duration(self._pace.seconds_left(self._num_seen))
            self._print(
                f"Epoch {self._epoch + 1} of {self._config.epochs}: {self._offset} of"
                f" {len(self._train)} examples, {left} left."
            )
        if now - self._saved_at >= self._config.checkpoint_seconds:
            self._check_loss(self._epoch_loss.item())
            self._save()
        self._stop_if_asked(is_saved=False)

    def _stop_if_asked(self, *, is_saved: bool) -> None:
        if self._stop.is_set:
            if not is_saved:
                self._save()
            raise StoppedError(f"Stopped after {self._num_steps} steps, as asked by SIGTERM.")

    @property
    def _num_seen(self) -> int:
        return self._epoch * len(self._train) + self._offset

    def _is_epoch_done(self) -> bool:
        # NB: fewer examples than a batch make one step, in which some come twice.
        return self._offset > 0 and self._offset + self._batch_size > len(self._train)

    def _take(self, order: Tensor) -> Tensor:
        """Return this process's rows of the next step."""
        rows = order[self._offset : self._offset + self._batch_size]
        return rows[self._world.rank :: self._world.size]

    def _step(self, rows: Tensor) -> Tensor:
        """Take one step of the optimizer and return the batch's loss."""
        generator = torch.Generator().manual_seed(self._seed_of("step"))
        _seed_modules(self._seed_of("model"), self._world.device)
        self._set_learning_rate()
        self._optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self._world.device)
        parts = torch.tensor_split(rows, min(self._config.accumulation_steps, len(rows)))
        for number, part in enumerate(parts, start=1):
            with self._gathering(is_last=number == len(parts)):
                loss = self._compute_loss(part, generator) * (len(part) / len(rows))
                self._format.backward(loss)
            total += loss.detach()
        self._format.step(self._optimizer, gradient_clipping=self._config.gradient_clipping)
        return total

    def _compute_loss(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Return the mean loss; NB: over examples, also where classes weigh differently."""
        inputs, targets = self._train.fetch(rows, generator)
        with self._format.autocast():
            logits = self._wrapped(inputs)
        if logits.ndim > targets.ndim + 1:
            targets = targets.unsqueeze(1).expand(logits.shape[:2]).flatten()
            logits = logits.flatten(0, 1)
        loss = functional.cross_entropy(
            logits.float(),
            targets,
            weight=self._class_weights,
            label_smoothing=self._config.label_smoothing,
            reduction="mean" if self._class_weights is None else "sum",
        )
        return loss if self._class_weights is None else loss / len(targets)

    def _gathering(self, *, is_last: bool) -> AbstractContextManager[Any]:
        """Average gradients over the processes only once a step."""
        wrapped = self._wrapped
        if is_last or not isinstance(wrapped, nn.parallel.DistributedDataParallel):
            return nullcontext()
        return wrapped.no_sync()

    def _set_learning_rate(self) -> None:
        steps = self._steps_per_epoch * self._config.epochs
        done = self._epoch * self._steps_per_epoch + self._offset / self._batch_size
        scale = scale_learning_rate(done / steps, step=1 / steps, config=self._config)
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.learning_rate * scale

    def _weigh_classes(self) -> Tensor | None:
        if self._config.class_weights is ClassWeights.NONE:
            return None
        counts = self._train.count_classes().double()
        present = counts > 0
        weights = torch.where(present, counts.sum() / (present.sum() * counts.clamp(min=1)), 0.0)
        return weights.float().to(self._world.device)

    def _shuffle(self) -> Tensor:
        """Return the rows of the epoch, for all processes in turn."""
        count = len(self._train)
        generator = torch.Generator().manual_seed(_mix(self._config.seed, f"epoch/{self._epoch}"))
        order = torch.randperm(count, generator=generator)
        return order.repeat(math.ceil(self._batch_size / count))

    def _close_epoch(self) -> float:
        """Return the mean loss of the epoch over all processes."""
        total = distributed.sum_over_processes(self._epoch_loss, self._world).item()
        mean = total / (self._offset * self._world.size)
        self._check_loss(mean)
        self._epoch_loss.zero_()
        return mean

    def _check_loss(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise PermanentError(
                f"Training diverged in epoch {self._epoch + 1}: the loss is {loss}; lower"
                f" learning_rate (now {self._config.learning_rate!r}) or set gradient_clipping"
                f" (now {self._config.gradient_clipping!r})."
            )

    def _refresh_statistics(self, order: Tensor) -> None:
        """Fit batch statistics to the weights, from a few batches of each process."""
        _seed_modules(self._seed_of("statistics"), self._world.device)
        generator = torch.Generator().manual_seed(self._seed_of("statistics"))
        rows = order[self._world.rank :: self._world.size]
        batches = torch.split(rows, self._batch_size // self._world.size)[:_NUM_STATISTICS_BATCHES]
        refresh_statistics(
            self._module, (self._train.fetch(rows, generator)[0] for rows in batches)
        )
        distributed.average_buffers(self._module, self._world)

    def evaluate(self) -> Scores:
        """Score the model on the validation data, each process on its share."""
        self._module.eval()
        loss = torch.zeros(1, dtype=torch.float64)
        counts: list[Tensor] = []
        share = torch.arange(self._world.rank, len(self._validation), self._world.size)
        with torch.inference_mode():
            for rows in torch.split(share, _EVALUATION_BATCH):
                inputs, targets = self._validation.fetch(rows, None)
                with self._format.autocast():
                    logits = self._module(inputs)
                logits = logits.float()
                loss += functional.cross_entropy(logits, targets, reduction="sum").item()
                hits = targets[logits.argmax(1) == targets]
                width = logits.shape[1]
                pair = [torch.bincount(found, minlength=width) for found in (hits, targets)]
                counts.append(torch.stack(pair).cpu())
        table = torch.stack(counts).sum(0).double()
        sums = distributed.sum_over_processes(torch.cat([loss, table.flatten()]), self._world)
        hits, totals = sums[1:].cpu().view(2, -1)
        num_examples = totals.sum().item()
        return Scores(
            loss=sums[0].item() / num_examples,
            accuracy=hits.sum().item() / num_examples,
            others=self._score_classes(hits, totals),
        )

    def _seed_of(self, purpose: str) -> int:
        """Derive the seed for something random at this place of the run, in this process."""
        place = f"{self._epoch}/{self._offset}/{self._world.rank}"
        return _mix(self._config.seed, f"{purpose}/{place}")

    def _save(self) -> None:
        """Write a checkpoint; one that a store refuses for now is not worth the run."""
        self._saved_at = self._clock()
        if self._checkpoints is None or not self._world.is_main:
            return
        state = {
            "epoch": self._epoch,
            "offset": self._offset,
            "model": self._module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "number_format": self._format.state_dict(),
            "best": self._best.state_dict(),
            # NB: asking the others within an epoch would cost each step; their losses are alike.
            "epoch_loss": self._epoch_loss * self._world.size,
        }
        checkpoint = Checkpoint(num_steps=self._num_steps, state=state, settings=self._settings)
        try:
            save_checkpoint(self._checkpoints, checkpoint, num_kept=self._config.num_checkpoints)
        except TransientError as error:
            self._print(f"Training goes on without the checkpoint that is due: {error}")

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
        state = checkpoint.state
        self._epoch, self._offset = state["epoch"], state["offset"]
        self._num_steps = checkpoint.num_steps
        self._module.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._format.load_state_dict(state["number_format"])
        self._best.load_state_dict(state["best"])
        if self._world.is_main:
            self._epoch_loss.copy_(state["epoch_loss"])
        self._print(
            f"Resuming from the checkpoint after {self._num_steps} steps;"
            f" processes: {self._world.size}."
        )

    def _print(self, line: str) -> None:
        if self._world.is_main:
            self._report(line)


def _render(values: Mapping[str, float]) -> str:
    return " ".join(f"{name}={value:.6f}" for name, value in values.items())


def _seed_modules(seed: int, device: torch.device) -> None:
    """Seed what modules draw from, such as dropout.

    NB: `torch.manual_seed` does so on all kinds of devices, and for those not in use it keeps the
    wish with a traceback, which costs most of a millisecond a step, and memory.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)


def _mix(seed: int, purpose: str) -> int:
    """Derive an independent seed."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
