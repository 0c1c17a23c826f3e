"""Score a model package on a split of a dataset commit.

The packaged program is scored, as serving will run it, not the weights that training still holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kubeloop.datasets.reading import EncodedImage, Split, TextExample, open_dataset
from kubeloop.datasets.splits import TEST
from kubeloop.errors import InputError
from kubeloop.training.package import ModelPackage, opened_package
from kubeloop.training.preprocessing import Preprocessing, parse_preprocessing

if TYPE_CHECKING:
    import torch
    from torch import Tensor


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
class Evaluation:
    """Scores of one model on one split."""

    split: str
    labels: tuple[str, ...]
    num_examples: int
    accuracy: float
    loss: float
    """Mean cross-entropy."""
    confusion: tuple[tuple[int, ...], ...]
    """Examples by true class (row) and predicted class (column)."""

    @property
    def classes(self) -> tuple[ClassScores, ...]:
        """Scores by class."""
        return tuple(self._score(index) for index in range(len(self.labels)))

    def _score(self, index: int) -> ClassScores:
        hits = self.confusion[index][index]
        actual = sum(self.confusion[index])
        predicted = sum(row[index] for row in self.confusion)
        return ClassScores(
            label=self.labels[index],
            precision=hits / predicted if predicted else 0.0,
            recall=hits / actual if actual else 0.0,
            f1=2 * hits / (actual + predicted) if actual + predicted else 0.0,
            num_examples=actual,
        )


def evaluate(
    model_uri: str,
    dataset_uri: str,
    *,
    split: str = TEST,
    batch_size: int = 256,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score a model package.

    Args:
        model_uri: A model package.
        dataset_uri: A dataset commit with the model's labels.
        split: Which of its splits.
        batch_size: Examples at a time.
        on_progress: Called with the number of examples done, and of all.

    Raises:
        InputError: The model is no classifier of this dataset's labels, or the split is empty.
        IntegrityError: Model or data differ from their recorded digests.
    """
    dataset = open_dataset(dataset_uri)
    rows = dataset.split(split)
    if not len(rows):
        raise InputError(f"Split {split!r} of {dataset_uri!r} has no examples to score on.")
    with opened_package(model_uri) as package:
        if package.manifest.labels != dataset.labels:
            raise InputError(
                f"The model {model_uri!r} knows the labels {list(package.manifest.labels)}, the"
                f" dataset {dataset_uri!r} has {list(dataset.labels)}; they must be the same."
            )
        return _score(package, rows, split=split, batch_size=batch_size, on_progress=on_progress)


def _score(
    package: ModelPackage,
    rows: Split[Any],  # of images or texts
    *,
    split: str,
    batch_size: int,
    on_progress: Callable[[int, int], None] | None,
) -> Evaluation:
    import torch

    model = package.load_model()
    preprocessing = parse_preprocessing(package.manifest.preprocessing)
    size = len(package.manifest.labels)
    confusion = torch.zeros(size * size, dtype=torch.int64)
    loss, done = 0.0, 0
    with torch.inference_mode():
        for inputs, targets in _batches(rows, preprocessing, batch_size=batch_size):
            probabilities: Tensor = model(*inputs)
            loss -= _log_likelihood(probabilities, targets)
            cells = targets * size + probabilities.argmax(1)
            confusion += torch.bincount(cells, minlength=size * size)
            done += len(targets)
            if on_progress is not None:
                on_progress(done, len(rows))
    table = confusion.view(size, size)
    return Evaluation(
        split=split,
        labels=package.manifest.labels,
        num_examples=done,
        accuracy=table.trace().item() / done,
        loss=loss / done,
        confusion=tuple(tuple(row) for row in table.tolist()),
    )


def _batches(
    rows: Split[Any], preprocessing: Preprocessing, *, batch_size: int
) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
    import torch

    for start in range(0, len(rows), batch_size):
        batch = [rows[index] for index in range(start, min(start + batch_size, len(rows)))]
        inputs = preprocessing.prepare([_encoded(row) for row in batch])
        targets = torch.tensor([row.class_index for row in batch])
        yield tuple(torch.from_numpy(part) for part in inputs), targets


def _encoded(row: EncodedImage | TextExample) -> bytes:
    return row.text.encode() if isinstance(row, TextExample) else row.data


def _log_likelihood(probabilities: torch.Tensor, targets: torch.Tensor) -> float:
    chosen = probabilities.gather(1, targets.unsqueeze(1)).clamp(min=math.ulp(0.0))
    return float(chosen.double().log().sum())
