"""A split as batches of a packaged program's inputs, whatever kind of data it holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kubeloop.datasets.reading import EncodedImage, Split, TextExample
from kubeloop.training.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleBatch:
    """Some examples of a split, ready for the program."""

    indices: Sequence[int]
    """Where they stand in the split."""
    inputs: tuple[Tensor, ...]
    """The program's."""
    targets: Tensor
    """Class of each, by the model's labels."""


def iterate_batches(
    rows: Split[Any],  # of images or texts
    labels: Sequence[str],
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    indices: Sequence[int] | None = None,
) -> Iterator[ExampleBatch]:
    """Read the examples of `labels`, a batch at a time, in order.

    Args:
        rows: The split.
        labels: The model's; examples of others are left out.
        preprocessing: Of the model's package.
        batch_size: Examples read at a time.
        indices: Which examples; None: all.
    """
    import torch

    indices = range(len(rows)) if indices is None else indices
    positions = {label: index for index, label in enumerate(labels)}
    classes = [positions.get(label, -1) for label in rows.labels]
    for start in range(0, len(indices), batch_size):
        batch = [(index, rows[index]) for index in indices[start : start + batch_size]]
        batch = [(index, row) for index, row in batch if classes[row.class_index] >= 0]
        if not batch:
            continue
        inputs = preprocessing.prepare([_encoded(row) for _, row in batch])
        yield ExampleBatch(
            indices=[index for index, _ in batch],
            inputs=tuple(torch.from_numpy(part) for part in inputs),
            targets=torch.tensor([classes[row.class_index] for _, row in batch]),
        )


def _encoded(row: EncodedImage | TextExample) -> bytes:
    return row.text.encode() if isinstance(row, TextExample) else row.data
