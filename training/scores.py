"""What a classifier's answers say about it: confusion, ROC curves and calibration.

Everything is counted batch by batch, so that memory does not grow with the number of examples. For
the ROC curves the probabilities are counted in bins of equal width in log-odds: as fine near 0 and
1, where a trained model's answers are, as around one half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from kubeloop.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

_MAX_LOG_ODDS = 20.0
_NUM_ROC_BINS = 200
_NUM_CONFIDENCE_BINS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScores:
    """How well one class is told from the others."""

    label: str
    precision: float
    """Share of the predictions of this class that are right; 0 where there are none."""
    recall: float
    """Share of the class's examples that are found."""
    f1: float
    """Harmonic mean of both."""
    num_examples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RocCurve:
    """What share of the others is taken for a class, against the share of the class found."""

    label: str
    """The class; empty: all classes, every probability against whether it is the true class's."""
    false_positive_rates: tuple[float, ...]
    true_positive_rates: tuple[float, ...]
    thresholds: tuple[float, ...]
    """Probability from which the class is predicted, falling from 1 to 0."""

    @property
    def area(self) -> float:
        """Area under the curve: 1 for a perfect order, 0.5 for one by chance."""
        points = pairwise(zip(self.false_positive_rates, self.true_positive_rates, strict=True))
        return sum((right[0] - left[0]) * (left[1] + right[1]) / 2 for left, right in points)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidenceBin:
    """Predictions of about the same confidence."""

    num_examples: int
    confidence: float
    """Mean probability of the predicted class."""
    accuracy: float
    """Share of them that is right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Whether predictions are right as often as their probabilities say."""

    bins: tuple[ConfidenceBin, ...]
    """From the least confident to the most; those without examples are left out."""

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of confidence and accuracy.

        Source: On Calibration of Modern Neural Networks (ICML 2017), with 15 bins of equal width.
        """
        total = sum(bin_.num_examples for bin_ in self.bins)
        off = sum(bin_.num_examples * abs(bin_.confidence - bin_.accuracy) for bin_ in self.bins)
        return off / total if total else 0.0


class ScoreTally:
    """Counts answers, batch by batch."""

    def __init__(self, labels: Sequence[str]) -> None:
        import torch

        self._labels = tuple(labels)
        size = len(self._labels)
        self._confusion = torch.zeros(size * size, dtype=torch.int64)
        self._answers = torch.zeros(size * _NUM_ROC_BINS, dtype=torch.int64)
        self._truths = torch.zeros_like(self._answers)
        self._confident = torch.zeros(3, _NUM_CONFIDENCE_BINS, dtype=torch.float64)
        self._log_likelihood = 0.0

    def add(self, probabilities: Tensor, targets: Tensor) -> Tensor:
        """Count a batch.

        Args:
            probabilities: Batch x classes.
            targets: Index of the true class of each.

        Returns:
            Which predictions are right.

        Raises:
            InputError: The model does not answer with numbers.
        """
        if not probabilities.isfinite().all():
            raise InputError("The model answers with NaN or infinity; train it anew.")
        probabilities = probabilities.double()
        size = len(self._labels)
        confidence, predicted = probabilities.max(1)
        hits = predicted == targets
        self._confusion += (targets * size + predicted).bincount(minlength=size * size)
        self._count_confidence(confidence, hits)
        self._count_answers(probabilities, targets)
        chosen = probabilities.gather(1, targets.unsqueeze(1)).clamp(min=math.ulp(0.0))
        self._log_likelihood += float(chosen.log().sum())
        return hits

    @property
    def num_examples(self) -> int:
        """Examples counted so far."""
        return int(self._confusion.sum())

    @property
    def loss(self) -> float:
        """Mean cross-entropy."""
        return -self._log_likelihood / max(self.num_examples, 1)

    @property
    def confusion(self) -> tuple[tuple[int, ...], ...]:
        """Examples by true class (row) and predicted class (column)."""
        size = len(self._labels)
        return tuple(tuple(row) for row in self._confusion.view(size, size).tolist())

    @property
    def calibration(self) -> Calibration:
        """Confidence against accuracy."""
        return Calibration(
            bins=tuple(
                ConfidenceBin(
                    num_examples=int(count), confidence=sure / count, accuracy=hits / count
                )
                for count, sure, hits in self._confident.T.tolist()
                if count
            )
        )

    @property
    def roc(self) -> RocCurve | None:
        """The curve of all classes together; None where there is but one."""
        answers, truths = (c.view(-1, _NUM_ROC_BINS).sum(0) for c in (self._answers, self._truths))
        return _draw_curve("", answers, truths)

    @property
    def class_rocs(self) -> tuple[RocCurve, ...]:
        """Curves of the classes that have both examples and others."""
        answers, truths = (c.view(-1, _NUM_ROC_BINS) for c in (self._answers, self._truths))
        curves = map(_draw_curve, self._labels, answers, truths)
        return tuple(curve for curve in curves if curve is not None)

    def _count_confidence(self, confidence: Tensor, hits: Tensor) -> None:
        bins = (confidence * _NUM_CONFIDENCE_BINS).long().clamp(0, _NUM_CONFIDENCE_BINS - 1)
        for row, weights in enumerate((hits.new_ones(hits.shape), confidence, hits)):
            self._confident[row].index_add_(0, bins, weights.double())

    def _count_answers(self, probabilities: Tensor, targets: Tensor) -> None:
        import torch

        log_odds = probabilities.logit(eps=1e-9)
        scaled = (log_odds + _MAX_LOG_ODDS) * (_NUM_ROC_BINS / (2 * _MAX_LOG_ODDS))
        cells = scaled.long().clamp(0, _NUM_ROC_BINS - 1)
        cells += torch.arange(len(self._labels)) * _NUM_ROC_BINS
        true_cells = cells.gather(1, targets.unsqueeze(1))
        self._answers += cells.flatten().bincount(minlength=len(self._answers))
        self._truths += true_cells.flatten().bincount(minlength=len(self._truths))


def score_classes(
    labels: Sequence[str], confusion: Sequence[Sequence[int]]
) -> tuple[ClassScores, ...]:
    """Precision, recall and F1 of every class."""
    predictions = [sum(column) for column in zip(*confusion, strict=True)]
    return tuple(
        _score_class(label, hits=row[index], actual=sum(row), predicted=predictions[index])
        for index, (label, row) in enumerate(zip(labels, confusion, strict=True))
    )


def _score_class(label: str, *, hits: int, actual: int, predicted: int) -> ClassScores:
    return ClassScores(
        label=label,
        precision=hits / predicted if predicted else 0.0,
        recall=hits / actual if actual else 0.0,
        f1=2 * hits / (actual + predicted) if actual + predicted else 0.0,
        num_examples=actual,
    )


def _draw_curve(label: str, answers: Tensor, truths: Tensor) -> RocCurve | None:
    """The curve of probabilities counted by bin: of all examples, and of those of the class."""
    num_true, num_false = int(truths.sum()), int((answers - truths).sum())
    if not num_true or not num_false:
        return None
    found = truths.flip(0).cumsum(0).tolist()
    wrong = (answers - truths).flip(0).cumsum(0).tolist()
    points = [(0.0, 0.0, 1.0)]
    for step, (right, other) in enumerate(zip(found, wrong, strict=True), 1):
        point = (other / num_false, right / num_true, _threshold(_NUM_ROC_BINS - step))
        if point[:2] != points[-1][:2]:
            points.append(point)
    false_positive_rates, true_positive_rates, thresholds = zip(*points, strict=True)
    return RocCurve(
        label=label,
        false_positive_rates=false_positive_rates,
        true_positive_rates=true_positive_rates,
        thresholds=thresholds,
    )


def _threshold(bin_: int) -> float:
    """The least probability of a bin."""
    if bin_ == 0:
        return 0.0
    return 1 / (1 + math.exp(_MAX_LOG_ODDS - bin_ * 2 * _MAX_LOG_ODDS / _NUM_ROC_BINS))
