"""Texts in memory, in batches in which each word comes once.

A few words make up most of all text. What a network computes of a word alone, it computes once a
batch, however often the word occurs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kubeloop.training.text_preprocessing import TextFeatures, pad_numbers

TextInputs = tuple[Tensor, Tensor, Tensor]
"""Numbers of features: words x pieces, each word of a batch once; batch x words, the rows of the
former; batch x pairs."""


class TextBatches:
    """A split in memory, as numbers of features."""

    def __init__(
        self,
        texts: Sequence[TextFeatures],
        labels: Tensor,
        *,
        num_classes: int,
        device: torch.device,
    ) -> None:
        self._num_classes, self._device, self._labels = num_classes, device, labels
        numbers: dict[tuple[int, ...], int] = {(): 0}
        places = [[numbers.setdefault(word, len(numbers)) for word in t.pieces] for t in texts]
        self._pieces = _pad(list(numbers))
        self._places, self._pairs = _pad(places), _pad([text.pairs for text in texts])
        self._num_words = torch.tensor([len(text.pieces) for text in texts])
        self._num_pairs = torch.tensor([len(text.pairs) for text in texts])

    def __len__(self) -> int:
        return len(self._labels)

    def count_classes(self) -> Tensor:
        """Return the number of examples of each class."""
        return torch.bincount(self._labels, minlength=self._num_classes)

    def fetch(self, rows: Tensor, generator: torch.Generator | None) -> tuple[TextInputs, Tensor]:
        """Return features and labels of some rows, as wide as the longest text among them."""
        del generator  # Features are dropped by the network, from torch's own generator.
        num_words = max(1, int(self._num_words[rows].max()) if len(rows) else 1)
        num_pairs = max(1, int(self._num_pairs[rows].max()) if len(rows) else 1)
        words, places = torch.unique(self._places[rows, :num_words], return_inverse=True)
        inputs = (self._pieces[words], places, self._pairs[rows, :num_pairs])
        pieces, places, pairs = (part.to(self._device) for part in inputs)
        return (pieces, places, pairs), self._labels[rows].to(self._device)


def _pad(lists: Sequence[Sequence[int]]) -> Tensor:
    padded = torch.from_numpy(pad_numbers(lists))
    return padded.int()
