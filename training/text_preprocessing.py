"""From a text to the numbers of its features.

A text is words; a word is itself and its character n-grams, its pieces. Beside those come the pairs
of neighbouring words, in order, and of words that stand near each other, in any order. A feature is
a string, and its number is a hash of it: no vocabulary has to be built, kept or loaded, and a
misspelt or new word still shares most of its pieces with the ones that were seen.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any
from zlib import crc32

from kubeloop.errors import InputError
from kubeloop.training.preprocessing import PREPROCESSINGS, Preprocessing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_VERSION = 2
_WORD = re.compile(r"\w+|[^\w\s]")
_DIGITS = re.compile(r"\d+")
_SHORTEST = 2  # torch.export would take a dimension of 1 for a constant
FEWEST_PIECES = 3  # and the word apart, of its pieces


class FeatureKind(IntEnum):
    """What a feature is; its number says so."""

    LETTERS = 0
    """A character n-gram of a word."""
    WORD = 1
    NEIGHBOURS = 2
    """Two words, one after the other."""
    PAIR = 3
    """Two words that stand near each other, in any order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFeatures:
    """The numbers of one text's features; 0 is no feature."""

    pieces: list[tuple[int, ...]]
    """By word: the word and its character n-grams."""
    pairs: list[int]
    """Pairs of words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPreprocessing(Preprocessing):
    """Which features a text has; another setting is another model."""

    hash_bits: int = 20
    """Features have numbers below 2 to this power, a quarter of them for each kind."""
    shortest_piece: int = 2
    """Least number of characters of a piece, word boundaries included."""
    longest_piece: int = 4
    """Greatest number of characters of a piece."""
    pieces_per_word: int = 32
    """Pieces kept of a word."""
    window: int = 12
    """Words that the second word of a pair may stand after the first."""
    longest_text: int = 64
    """Words kept of a text."""
    masks_numbers: bool = True
    """Whether a word with digits has a piece more, in which all numbers are one, so that a number
    that was not seen is still a number."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        if not 8 <= self.hash_bits <= 24:
            raise InputError(f"hash_bits must be from 8 to 24, not {self.hash_bits!r}.")
        if not 1 <= self.shortest_piece <= self.longest_piece <= 8:
            raise InputError(
                "shortest_piece and longest_piece must be from 1 to 8, and in order, not"
                f" {self.shortest_piece!r} and {self.longest_piece!r}."
            )
        if not FEWEST_PIECES <= self.pieces_per_word <= 512:
            raise InputError(
                f"pieces_per_word must be from {FEWEST_PIECES} to 512, not"
                f" {self.pieces_per_word!r}."
            )
        if not 0 <= self.window <= 32 or not 2 <= self.longest_text <= 512:
            raise InputError(
                "window must be from 0 to 32 and longest_text from 2 to 512, not"
                f" {self.window!r} and {self.longest_text!r}."
            )

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> TextPreprocessing:
        """Read what `render` wrote."""
        settings = dict(document)
        if settings.pop("kind") != "text" or settings.pop("version") != _VERSION:
            raise ValueError(f"it is not of kind 'text', version {_VERSION}; train the model anew.")
        masks_numbers = bool(settings.pop("masks_numbers"))
        sizes = {name: int(value) for name, value in settings.items()}
        return cls(masks_numbers=masks_numbers, **sizes)

    def render(self) -> dict[str, Any]:
        """Write for a model package."""
        return {"kind": "text", "version": _VERSION, **asdict(self)}

    def prepare(self, examples: Sequence[bytes]) -> tuple[NDArray[Any], ...]:
        """Return pieces, batch x words x pieces, and pairs, batch x pairs."""
        try:
            texts = [example.decode() for example in examples]
        except UnicodeDecodeError as error:
            raise InputError(f"A text is not UTF-8: {error}.") from error
        return pad_features(self.extract_all(texts))

    def extract(self, text: str) -> TextFeatures:
        """Return a text's features."""
        return self.extract_all([text])[0]

    def extract_all(self, texts: Iterable[str]) -> list[TextFeatures]:
        """Return the features of texts; a word that many of them have is cut once."""
        cut = cache(self._cut)
        return [self._extract(text, cut) for text in texts]

    def _extract(self, text: str, cut: Callable[[str], tuple[int, ...]]) -> TextFeatures:
        # NB: a hostile text may be one endless word, or endless words; take only what is kept.
        found = _WORD.finditer(unicodedata.normalize("NFKC", text).lower())
        words = [match.group() for match in islice(found, self.longest_text)]
        pairs = list(dict.fromkeys(self._pair(words)))
        return TextFeatures(pieces=[cut(word) for word in words], pairs=pairs)

    def kind_of(self, number: int) -> FeatureKind:
        """Return what a feature is."""
        return FeatureKind(number >> (self.hash_bits - 2))

    def _number(self, kind: FeatureKind, checksum: int) -> int:
        size = 1 << (self.hash_bits - 2)
        # NB: number 0 is no feature.
        return max(1, kind * size + checksum % size)

    def _cut(self, word: str) -> tuple[int, ...]:
        pieces = [self._number(FeatureKind.WORD, crc32(word.encode()))]
        if self.masks_numbers and _DIGITS.search(word):
            masked = "#" + _DIGITS.sub("0", word)
            pieces.append(self._number(FeatureKind.LETTERS, crc32(masked.encode())))
        bounded = f" {word} "
        for length in range(self.shortest_piece, self.longest_piece + 1):
            for start in range(len(bounded) - length + 1):
                if len(pieces) == self.pieces_per_word:
                    return tuple(pieces)
                piece = bounded[start : start + length]
                pieces.append(self._number(FeatureKind.LETTERS, crc32(piece.encode())))
        return tuple(pieces)

    def _pair(self, words: Sequence[str]) -> Iterator[int]:
        encoded = [word.encode() for word in words]
        for index, first in enumerate(words):
            for other in range(index + 1, min(index + 1 + self.window, len(words))):
                if other == index + 1:
                    yield self._join(FeatureKind.NEIGHBOURS, b" ", encoded[index], encoded[other])
                low, high = (index, other) if first < words[other] else (other, index)
                yield self._join(FeatureKind.PAIR, b"&", encoded[low], encoded[high])

    def _join(self, kind: FeatureKind, sign: bytes, first: bytes, second: bytes) -> int:
        return self._number(kind, crc32(first + sign + second))


def pad_features(texts: Sequence[TextFeatures]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Join texts to one batch, filled up with 0."""
    import numpy as np

    num_words = max([_SHORTEST, *(len(text.pieces) for text in texts)])
    num_pieces = max([FEWEST_PIECES, *(len(word) for text in texts for word in text.pieces)])
    pieces = np.zeros((len(texts), num_words, num_pieces), dtype=np.int64)
    for row, text in enumerate(texts):
        for column, word in enumerate(text.pieces):
            pieces[row, column, : len(word)] = word
    return pieces, pad_numbers([text.pairs for text in texts])


def pad_numbers(lists: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Join lists to one array, filled up with 0."""
    import numpy as np

    padded = np.zeros((len(lists), max([_SHORTEST, *map(len, lists)])), dtype=np.int64)
    for row, numbers in enumerate(lists):
        padded[row, : len(numbers)] = numbers
    return padded


PREPROCESSINGS.register("text", TextPreprocessing.parse)
