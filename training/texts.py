"""Text classification in torch: two views of a text, their batches, and the exported program.

The bag view sums an embedding of every feature, weighted by how telling it is, and knows words and
word pairs wherever they stand. The sequence view makes a vector of each word from its pieces, lets
neighbours and, as a Transformer, all words of the text look at each other, and knows order. They
fail on other texts, so that both together are better than either, and two networks than one.

Source: Joulin et al., Bag of Tricks for Efficient Text Classification, 2016 (hashed bags);
Bojanowski et al., Enriching Word Vectors with Subword Information, 2016 (words from pieces).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from kubeloop.errors import InputError
from kubeloop.training.text_batches import TextInputs
from kubeloop.training.text_preprocessing import (
    FEWEST_PIECES,
    FeatureKind,
    TextFeatures,
    TextPreprocessing,
)

if TYPE_CHECKING:
    from torch.export import ExportedProgram

MAX_BATCH = 4096
_MAX_PAIRS = 1 << 16
_KERNEL = 5
_BAG_SCALE, _SEQUENCE_SCALE = 0.02, 0.03
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
    """Bags alone."""
    TRANSFORMER = "transformer"
    """Sequences alone, in which all words of a text look at each other."""
    BOTH = "both"
    """Bags, and sequences in which words look at their neighbours alone: most for its time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextModelConfig:
    """Size and regularisation of the model."""

    architecture: TextArchitecture = TextArchitecture.BOTH
    """Which views of a text the model has."""
    num_members: int = 3
    """Networks of these views, each from other random weights; together they are surer."""
    bag_size: int = 64
    """Numbers in the embedding of a feature, in the bag view."""
    bag_dropout: float = 0.65
    """Share of the features that the bag view does without, in training."""
    word_size: int = 96
    """Numbers in the vector of a word, in the sequence view."""
    num_layers: int = 1
    """Transformer layers of the sequence view, where the architecture has them."""
    num_heads: int = 4
    """Attention heads of a layer."""
    piece_dropout: float = 0.5
    """Share of the pieces that the sequence view does without, in training."""
    word_dropout: float = 0.2
    """Share of the words that the sequence view does without, in training."""
    hidden: int = 512
    """Units of the hidden layer, to which the views add up."""
    dropout: float = 0.35
    """Share of hidden numbers that are left out, in training."""
    min_count: int = 2
    """Training texts in which a feature must occur to have an embedding."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot work."""
        for name, least, most in (
            ("num_members", 1, 16), ("bag_size", 4, 4096), ("word_size", 4, 4096),
            ("num_layers", 1, 64), ("num_heads", 1, 64), ("hidden", 4, 16384),
            ("min_count", 1, 10_000), ("dropout", 0.0, 0.95), ("bag_dropout", 0.0, 0.95),
            ("piece_dropout", 0.0, 0.95), ("word_dropout", 0.0, 0.95),
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

    Rows of pieces come first; those of pairs follow.
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
        self.num_pairs = 2 + len(kept) - self.num_pieces
        counts = torch.tensor([0, *(pieces[n] or pairs[n] for n in kept)], dtype=torch.float64)
        weights = ((1 + len(texts)) / (1 + counts)).log() + 1
        weights *= torch.tensor([0.0, *(_IMPORTANCE[preprocessing.kind_of(n)] for n in kept)])
        rows = torch.zeros(1 << preprocessing.hash_bits, dtype=torch.int32)
        rows[torch.tensor(kept, dtype=torch.int64)] = torch.arange(
            1, 1 + len(kept), dtype=torch.int32
        )
        self.register_buffer("rows", rows)
        self.register_buffer("weights", weights.float())

    def forward(self, inputs: TextInputs) -> Features:
        """Look features up; those that were not seen often enough are none."""
        pieces, places, pairs = inputs
        pieces, pairs = self.rows[pieces], self.rows[pairs]
        return Features(
            pieces=pieces,
            piece_weights=self.weights[pieces],
            places=places,
            pairs=(pairs - (self.num_pieces - 1)).clamp(min=0),
            pair_weights=self.weights[pairs],
        )


class Features(NamedTuple):
    """A batch of texts as rows of the embeddings; 0 is no feature."""

    pieces: Tensor
    """Words x pieces, each word of the batch once."""
    piece_weights: Tensor
    """How telling each is."""
    places: Tensor
    """Batch x words of a text: the row of `pieces`."""
    pairs: Tensor
    """Batch x pairs."""
    pair_weights: Tensor
    """How telling each is."""


def _drop(weights: Tensor, share: float, *, training: bool) -> Tensor:
    return weights * (torch.rand_like(weights) >= share) if training else weights


def _embed(rows: Tensor, table: nn.Embedding, weights: Tensor) -> Tensor:
    return functional.embedding_bag(
        rows, table.weight, mode="sum", per_sample_weights=weights, padding_idx=0
    )


def _build_table(num_rows: int, size: int, *, scale: float) -> nn.Embedding:
    table = nn.Embedding(num_rows, size, padding_idx=0)
    # NB: what is normalised afterwards learns the faster, the smaller it begins.
    nn.init.normal_(table.weight, std=scale)
    return table


class BagView(nn.Module):
    """Sums of the embeddings of a text's words, of their pieces, and of its pairs of words."""

    def __init__(self, vocabulary: Vocabulary, config: TextModelConfig) -> None:
        super().__init__()
        self.size = 3 * config.bag_size
        self.share_dropped = config.bag_dropout
        self.pieces = _build_table(vocabulary.num_pieces, config.bag_size, scale=_BAG_SCALE)
        self.pairs = _build_table(vocabulary.num_pairs, config.bag_size, scale=_BAG_SCALE)

    def forward(self, features: Features) -> Tensor:
        """Return batch x size."""
        of_pieces, of_pairs = (
            _drop(weights, self.share_dropped, training=self.training)
            for weights in (features.piece_weights, features.pair_weights)
        )
        # NB: the first of a word's pieces is the word.
        words = self._sum_pieces(features.pieces[:, :1], features.places, of_pieces[:, :1])
        letters = self._sum_pieces(features.pieces[:, 1:], features.places, of_pieces[:, 1:])
        pairs = _embed(features.pairs, self.pairs, of_pairs) / _measure(of_pairs.square().sum(1))
        return torch.cat([words, letters, pairs], dim=1)

    def _sum_pieces(self, pieces: Tensor, places: Tensor, weights: Tensor) -> Tensor:
        """Embed each word of the batch once, then sum over the words of each text."""
        words = _embed(pieces, self.pieces, weights)
        total = functional.embedding_bag(places, words, mode="sum")
        return total / _measure(weights.square().sum(1)[places].sum(1))


def _measure(squares: Tensor) -> Tensor:
    return squares.sqrt().clamp(min=1e-6).unsqueeze(1)


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
    """Word vectors that look at their neighbours, and with layers at the whole text."""

    def __init__(self, vocabulary: Vocabulary, config: TextModelConfig) -> None:
        super().__init__()
        size = config.word_size
        self.size = 4 * size
        self.pieces_dropped, self.words_dropped = config.piece_dropout, config.word_dropout
        self.pieces = _build_table(vocabulary.num_pieces, size, scale=_SEQUENCE_SCALE)
        self.norm = nn.LayerNorm(size)
        self.neighbours = nn.Linear(size, _KERNEL * size, bias=False)
        nn.init.uniform_(
            self.neighbours.weight, -((_KERNEL * size) ** -0.5), (_KERNEL * size) ** -0.5
        )
        self.bias = nn.Parameter(torch.zeros(size))
        has_layers = config.architecture is TextArchitecture.TRANSFORMER
        self.layers = nn.ModuleList(
            Attention(size, num_heads=config.num_heads, dropout=config.dropout / 3)
            for _ in range(config.num_layers if has_layers else 0)
        )

    def forward(self, features: Features) -> Tensor:
        """Return batch x size."""
        places = features.places
        mask = (features.pieces.amax(1) > 0)[places]
        if self.training:
            mask = mask & (torch.rand(mask.shape, device=mask.device) >= self.words_dropped)
        # NB: a text in which nothing is left still has a first word to look at.
        first = torch.arange(places.shape[1], device=mask.device) == 0
        mask = mask | (first & ~mask.any(1, keepdim=True))
        vectors = self._embed_words(features)
        near = functional.gelu(self._look_around(vectors, places, mask))
        words = functional.embedding(places, vectors) * mask.unsqueeze(2) + near
        for layer in self.layers:
            words = layer(words, mask)
        both = torch.cat([words, near], dim=2)
        total = (both * mask.unsqueeze(2)).sum(1) / mask.sum(1, keepdim=True)
        peak = both.masked_fill(~mask.unsqueeze(2), torch.finfo(both.dtype).min).amax(1)
        return torch.cat([total, peak], dim=1)

    def _embed_words(self, features: Features) -> Tensor:
        weights = _drop(features.piece_weights, self.pieces_dropped, training=self.training)
        weights = weights / weights.norm(dim=1, keepdim=True).clamp(min=1e-6)
        vectors: Tensor = self.norm(_embed(features.pieces, self.pieces, weights))
        return vectors

    def _look_around(self, vectors: Tensor, places: Tensor, mask: Tensor) -> Tensor:
        """Return a convolution over the words of each text.

        What a word says to a neighbour at some distance is computed once a batch for each word,
        however often it occurs; a place takes the sum of what its neighbours say.
        """
        said = self.neighbours(vectors).view(-1, vectors.shape[1])
        said = functional.pad(said, (0, 0, 1, 0))  # row 0: nothing
        rows = torch.where(mask, places * _KERNEL + 1, 0)
        rows = functional.pad(rows, (_KERNEL // 2, _KERNEL // 2))
        shifted = [rows[:, start : start + places.shape[1]] for start in range(_KERNEL)]
        rows = torch.stack(shifted, dim=2)
        rows = torch.where(rows > 0, rows + torch.arange(_KERNEL, device=rows.device), 0)
        near = functional.embedding_bag(
            rows.reshape(-1, _KERNEL), said, mode="sum", padding_idx=0
        ).view(*places.shape, -1)
        return near + self.bias


class Member(nn.Module):
    """Logits from each view alone, and from all of them.

    What it learns from one view must do without the other, so that neither is left to idle.
    """

    def __init__(
        self, vocabulary: Vocabulary, config: TextModelConfig, *, num_classes: int
    ) -> None:
        super().__init__()
        kinds: dict[TextArchitecture, list[type[BagView | SequenceView]]] = {
            TextArchitecture.BAG: [BagView],
            TextArchitecture.TRANSFORMER: [SequenceView],
            TextArchitecture.BOTH: [BagView, SequenceView],
        }
        views = [kind(vocabulary, config) for kind in kinds[config.architecture]]
        self.views = nn.ModuleList(views)
        self.joints = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(view.size),
                nn.Dropout(config.dropout),
                nn.Linear(view.size, config.hidden),
            )
            for view in views
        )
        self.head = nn.Sequential(
            nn.GELU(), nn.Dropout(config.dropout), nn.Linear(config.hidden, num_classes)
        )

    def forward(self, features: Features) -> Tensor:
        """Return batch x answers x classes."""
        pairs = zip(self.views, self.joints, strict=True)
        alone = [joint(view(features)) for view, joint in pairs]
        together = [torch.stack(alone).sum(0)] if len(alone) > 1 else []
        answers: Tensor = self.head(torch.stack(alone + together, dim=1))
        return answers


class TextNetwork(nn.Module):
    """One logit a class: the mean of the members' log-probabilities, and a shift.

    In training each answer counts for itself, as if there were no other.
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
        self.members = nn.ModuleList(
            Member(vocabulary, config, num_classes=num_classes) for _ in range(config.num_members)
        )

    def forward(self, inputs: TextInputs) -> Tensor:
        """Answer from the numbers of features.

        Returns:
            Batch x classes; in training batch x answers x classes.
        """
        features = self.vocabulary(inputs)
        answers = torch.cat([member(features) for member in self.members], dim=1)
        if self.training:
            return answers
        return answers.log_softmax(2).mean(1) + self.shift


class TextClassifier(nn.Module):
    """The network as it is packaged."""

    def __init__(self, network: TextNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pieces: Tensor, pairs: Tensor) -> Tensor:
        """Return probabilities, batch x classes."""
        batch, count, _ = pieces.shape
        places = torch.arange(batch * count, device=pieces.device).view(batch, count)
        logits: Tensor = self.network((pieces.flatten(0, 1), places, pairs))
        return logits.softmax(1)


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
            2: torch.export.Dim("pieces", min=FEWEST_PIECES, max=preprocessing.pieces_per_word),
        },
        {0: batch, 1: torch.export.Dim("pairs", min=2, max=_MAX_PAIRS)},
    )
    examples = (torch.from_numpy(pieces), torch.from_numpy(pairs))
    return torch.export.export(classifier, examples, dynamic_shapes=sizes)
