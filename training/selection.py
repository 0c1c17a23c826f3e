"""Which epoch of a run was the best, and whether the run still gets better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

_NO_SCORES: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """How good the model is on a split."""

    loss: float
    accuracy: float
    others: Mapping[str, float] = field(default_factory=lambda: _NO_SCORES)
    """What else the program measures, by name."""

    def render(self, prefix: str = "val_") -> dict[str, float]:
        """Return the scores under the names of metric lines."""
        values = {"loss": self.loss, "accuracy": self.accuracy, **self.others}
        return {f"{prefix}{name}": value for name, value in values.items()}

    def is_better_than(self, other: Scores) -> bool:
        """Compare by accuracy, then by loss; a model that answers no numbers is worse than any."""
        return self._rank() > other._rank()

    @property
    def is_finite(self) -> bool:
        """Whether the model answers numbers, so that the loss is one."""
        return math.isfinite(self.loss)

    def _rank(self) -> tuple[bool, float, float]:
        return self.is_finite, self.accuracy, -self.loss


class BestEpoch:
    """The best epoch so far, with its weights in memory where they are kept."""

    def __init__(self, *, keeps_weights: bool) -> None:
        self._keeps_weights = keeps_weights
        self.scores: Scores | None = None
        self.epoch = 0
        self.num_worse = 0
        """Epochs since the best."""
        self._weights: dict[str, Tensor] | None = None

    def offer(self, epoch: int, scores: Scores, module: nn.Module) -> None:
        """Look at an epoch that has just ended."""
        if self.scores is not None and not scores.is_better_than(self.scores):
            self.num_worse += 1
            return
        self.scores, self.epoch, self.num_worse = scores, epoch, 0
        if self._keeps_weights:
            state = module.state_dict()
            self._weights = {name: value.to("cpu", copy=True) for name, value in state.items()}

    def restore(self, module: nn.Module) -> None:
        """Put the best epoch's weights into the module; where none are kept, do nothing."""
        if self._weights is not None:
            module.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps.

        NB: the weights of an epoch that has just ended are those of the model, but a checkpoint
        within the next epoch needs both.
        """
        return {
            "scores": _render(self.scores),
            "epoch": self.epoch,
            "num_worse": self.num_worse,
            "weights": self._weights,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.scores = Scores(**state["scores"]) if state["scores"] else None
        self.epoch, self.num_worse = state["epoch"], state["num_worse"]
        self._weights = state["weights"] if self._keeps_weights else None


def _render(scores: Scores | None) -> dict[str, Any] | None:
    if scores is None:
        return None
    return {"loss": scores.loss, "accuracy": scores.accuracy, "others": dict(scores.others)}
