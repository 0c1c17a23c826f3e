"""Text classification in torch: two views of a text, their batches, and the exported program.

The bag view sums an embedding of every feature, weighted by how telling it is, and knows words and
word pairs wherever they stand. The sequence view makes a vector of each word from its pieces, lets
neighbours and then all words of the text look at each other, and knows order. They fail on other
texts, so that both together are better than either, and than two of one kind.

Source: Joulin et al., Bag of Tricks for Efficient Text Classification, 2016 (hashed bags);
Bojanowski et al., Enriching Word Vectors with Subword Information, 2016 (words from pieces).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from kubeloop.errors import InputError
from kubeloop.training.text_preprocessing import (
    FeatureKind,
    TextFeatures,
    TextPreprocessing,
    pad_features,
)

if TYPE_CHECKING:
    from torch.export import ExportedProgram

MAX_BATCH = 4096
_MAX_PAIRS = 1 << 16
_KERNEL = 5
_IMPORTANCE = {
    FeatureKind.LETTERS: 1.0,
    FeatureKind.WORD: 3.0,
    FeatureKind.NEIGHBOURS: 2.0,
    FeatureKind.PAIR: 0.8,
}
"""How much a feature weighs in the bag, where a text has many of one kind and few of another."""


class TextArchitecture(StrEnum):
    """Which views of a text a model has."""

    BAG = "bag"
    TRANSFORMER = "transformer"
    BOTH = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextModelConfig:
    """Size and regularisation of the model."""

    architecture: TextArchitecture = TextArchitecture.BOTH
    """Which views of a text the model has."""
    bag_size: int = 96
    """Numbers in the embedding of a feature, in the bag view."""
    bag_hidden: int = 512
    """Units of the bag view's hidden layer."""
    bag_dropout: float = 0.5
    """Share of the features that the bag view does without, in training."""
    word_size: int = 128
    """Numbers in the vector of a word, in the sequence view."""
    num_sequences: int = 2
    """Sequence views, each from other random weights; together they are surer than one."""
    num_layers: int = 1
    """Transformer layers of a sequence view."""
    num_heads: int = 4
    """Attention heads of a layer."""
    word_dropout: float = 0.2
    """Share of the words that the sequence view does without, in training."""
    dropout: float = 0.4
    """Share of hidden numbers that are left out, in training."""
    min_count: int = 3
    """Training texts in which a feature must occur to have an embedding."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot work."""
        for name, least, most in (
            ("bag_size", 4, 4096), ("bag_hidden", 4, 16384), ("word_size", 4, 4096),
            ("num_sequences", 1, 16), ("num_layers", 1, 64), ("num_heads", 1, 64),
            ("min_count", 1, 10_000), ("dropout", 0.0, 0.95),
            ("bag_dropout", 0.0, 0.95), ("word_dropout", 0.0, 0.95),
        ):  # fmt: skip
            value = getattr(self, name)
            if not least <= value <= most:
                raise InputError(f"{name} must be from {least} to {most}, not {value!r}.")
        if self.word_size % self.num_heads:
            raise InputError(
                f"word_size must be a multiple of num_heads ({self.num_heads}), not"
                f" {self.word_size!r}."
            )


class Vocabulary(nn.Module):
    """Which features have a row in the embeddings, and how telling each is.

    Rows of pieces come first, so that the sequence view's table ends with them.
    """

    rows: Tensor
    weights: Tensor

    def __init__(
        self, texts: Sequence[TextFeatures], *, preprocessing: TextPreprocessing, min_count: int
    ) -> None:
        super().__init__()
        pieces, pairs = Counter[int](), Counter[int]()
        for text in texts:
            pieces.update({number for word in text.pieces for number in word})
            pairs.update(text.pairs)
        kept = [number for number, count in sorted(pieces.items()) if count >= min_count]
        self.num_pieces = 1 + len(kept)
        kept += [n for n, count in sorted(pairs.items()) if count >= min_count]
        self.num_rows = 1 + len(kept)
        counts = torch.tensor([0, *(pieces[n] or pairs[n] for n in kept)], dtype=torch.float64)
        weights = ((1 + len(texts)) / (1 + counts)).log() + 1
        weights *= torch.tensor([0.0, *(_IMPORTANCE[preprocessing.kind_of(n)] for n in kept)])
        rows = torch.zeros(1 << preprocessing.hash_bits, dtype=torch.int32)
        rows[torch.tensor(kept, dtype=torch.int64)] = torch.arange(
            1, self.num_rows, dtype=torch.int32
        )
        self.register_buffer("rows", rows)
        self.register_buffer("weights", weights.float())

    def forward(self, numbers: Tensor) -> Tensor:
        """Return the rows of features; 0 where a feature was not seen often enough."""
        rows: Tensor = self.rows[numbers]
        return rows


class BagView(nn.Module):
    """Logits from the weighted sum of the embeddings of all features."""

    def __init__(
        self, vocabulary: Vocabulary, config: TextModelConfig, *, num_classes: int
    ) -> None:
        super().__init__()
        self.share_dropped = config.bag_dropout
        self.embedding = nn.EmbeddingBag(
            vocabulary.num_rows, config.bag_size, mode="sum", padding_idx=0
        )
        nn.init.normal_(self.embedding.weight, std=config.bag_size**-0.5)
        self.head = nn.Sequential(
            nn.LayerNorm(config.bag_size),
            nn.Dropout(config.dropout),
            nn.Linear(config.bag_size, config.bag_hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.bag_hidden, num_classes),
        )

    def forward(self, pieces: Tensor, pairs: Tensor, all_weights: Tensor) -> Tensor:
        """Return batch x classes."""
        rows = torch.cat([pieces, pairs], dim=1)
        weights = all_weights[rows]
        if self.training:
            weights = weights * (torch.rand_like(weights) >= self.share_dropped)
        summed = self.embedding(rows, per_sample_weights=_normalize(weights))
        logits: Tensor = self.head(summed)
        return logits


def _normalize(weights: Tensor) -> Tensor:
    lengths: Tensor = weights.norm(dim=1, keepdim=True)
    return weights / lengths.clamp(min=1e-6)


class Attention(nn.Module):
    """A Transformer layer, normalised before each of its halves."""

    def __init__(self, size: int, *, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.share_dropped = num_heads, dropout
        self.before, self.between = nn.LayerNorm(size), nn.LayerNorm(size)
        self.project, self.join = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.feed = nn.Sequential(
            nn.Linear(size, 2 * size), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * size, size)
        )

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Return batch x words x size; `mask` says which words there are."""
        batch, count, size = words.shape
        heads = self.project(self.before(words)).view(batch, count, 3, self.num_heads, -1)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        seen = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask[:, None, None, :],
            dropout_p=self.share_dropped if self.training else 0.0,
        )
        words = words + self.join(seen.transpose(1, 2).reshape(batch, count, size))
        fed: Tensor = self.feed(self.between(words))
        return words + fed


class SequenceView(nn.Module):
    """Logits from word vectors that look at their neighbours, then at the whole text."""

    def __init__(
        self, vocabulary: Vocabulary, config: TextModelConfig, *, num_classes: int
    ) -> None:
        super().__init__()
        size = config.word_size
        self.share_dropped, self.num_rows = config.word_dropout, vocabulary.num_pieces
        self.embedding = nn.EmbeddingBag(self.num_rows, size, mode="mean", padding_idx=0)
        self.norm = nn.LayerNorm(size)
        self.neighbours = nn.Conv1d(size, size, _KERNEL, padding=_KERNEL // 2)
        self.layers = nn.ModuleList(
            Attention(size, num_heads=config.num_heads, dropout=config.dropout / 3)
            for _ in range(config.num_layers)
        )
        self.head = nn.Sequential(
            nn.LayerNorm(4 * size), nn.Dropout(config.dropout), nn.Linear(4 * size, num_classes)
        )

    def forward(self, pieces: Tensor) -> Tensor:
        """Return batch x classes."""
        batch, count, width = pieces.shape
        mask = pieces.amax(2) > 0
        if self.training:
            mask = mask & (torch.rand(mask.shape, device=mask.device) >= self.share_dropped)
        # NB: a text in which nothing is left still has a first word to look at.
        mask = mask | ((torch.arange(count, device=mask.device) == 0) & ~mask.any(1, keepdim=True))
        vectors = self.embedding(pieces.reshape(batch * count, width)).view(batch, count, -1)
        vectors = self.norm(vectors) * mask.unsqueeze(2)
        near = functional.gelu(self.neighbours(vectors.transpose(1, 2))).transpose(1, 2)
        words = vectors + near
        for layer in self.layers:
            words = layer(words, mask)
        both = torch.cat([words, near], dim=2)
        total = (both * mask.unsqueeze(2)).sum(1) / mask.sum(1, keepdim=True)
        peak = both.masked_fill(~mask.unsqueeze(2), torch.finfo(both.dtype).min).amax(1)
        logits: Tensor = self.head(torch.cat([total, peak], dim=1))
        return logits


class TextNetwork(nn.Module):
    """One logit a class: the mean of the views' log-probabilities, and a shift.

    In training each view answers for itself, as if there were no other.
    """

    shift: Tensor

    def __init__(
        self,
        vocabulary: Vocabulary,
        config: TextModelConfig,
        *,
        shift: Tensor,
    ) -> None:
        """Build a network.

        Args:
            vocabulary: Which features have embeddings.
            config: Size and regularisation.
            shift: Added to the logit of each class once the network is trained.
        """
        super().__init__()
        num_classes = len(shift)
        self.vocabulary = vocabulary
        self.register_buffer("shift", shift)
        self.bag = None
        num_sequences = config.num_sequences
        if config.architecture is not TextArchitecture.TRANSFORMER:
            self.bag = BagView(vocabulary, config, num_classes=num_classes)
        if config.architecture is TextArchitecture.BAG:
            num_sequences = 0
        self.sequences = nn.ModuleList(
            SequenceView(vocabulary, config, num_classes=num_classes) for _ in range(num_sequences)
        )

    def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        """Answer from the numbers of pieces and pairs.

        Returns:
            Batch x classes; in training batch x views x classes.
        """
        pieces, pairs = (self.vocabulary(numbers) for numbers in inputs)
        views = []
        if self.bag is not None:
            views.append(self.bag(pieces.flatten(1), pairs, self.vocabulary.weights))
        views += [sequence(pieces) for sequence in self.sequences]
        if self.training:
            return torch.stack(views, dim=1)
        return torch.stack([logits.log_softmax(1) for logits in views]).mean(0) + self.shift


class TextClassifier(nn.Module):
    """The network as it is packaged."""

    def __init__(self, network: TextNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pieces: Tensor, pairs: Tensor) -> Tensor:
        """Return probabilities, batch x classes."""
        logits: Tensor = self.network((pieces, pairs))
        return logits.softmax(1)


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
        pieces, pairs = pad_features(texts)
        self._pieces, self._pairs = torch.from_numpy(pieces).int(), torch.from_numpy(pairs).int()
        self._num_words = torch.tensor([len(text.pieces) for text in texts])
        self._num_pairs = torch.tensor([len(text.pairs) for text in texts])

    def __len__(self) -> int:
        return len(self._labels)

    def count_classes(self) -> Tensor:
        """Return the number of examples of each class."""
        return torch.bincount(self._labels, minlength=self._num_classes)

    def fetch(
        self, rows: Tensor, generator: torch.Generator | None
    ) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Return features and labels of some rows, as wide as the longest text among them."""
        del generator  # Features are dropped by the network, from torch's own generator.
        num_words = max(2, int(self._num_words[rows].max()) if len(rows) else 2)
        num_pairs = max(2, int(self._num_pairs[rows].max()) if len(rows) else 2)
        pieces = self._pieces[rows, :num_words].to(self._device)
        pairs = self._pairs[rows, :num_pairs].to(self._device)
        return (pieces, pairs), self._labels[rows].to(self._device)


def export_text_classifier(
    classifier: nn.Module, preprocessing: TextPreprocessing
) -> ExportedProgram:
    """Trace the model for batches and texts of any size."""
    pieces, pairs = preprocessing.prepare([b"a text", b"another text of some words"])
    batch = torch.export.Dim("batch", max=MAX_BATCH)
    sizes = (
        {
            0: batch,
            1: torch.export.Dim("words", min=2, max=preprocessing.longest_text),
            2: torch.export.Dim("pieces", min=2, max=preprocessing.pieces_per_word),
        },
        {0: batch, 1: torch.export.Dim("pairs", min=2, max=_MAX_PAIRS)},
    )
    examples = (torch.from_numpy(pieces), torch.from_numpy(pairs))
    return torch.export.export(classifier, examples, dynamic_shapes=sizes)
