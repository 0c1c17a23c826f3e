"""Stratified splits that depend on content and seed alone.

Distinct contents are placed by a hash of seed and content, so that the same example is in the same
split on any machine, and two copies of one are never on both sides of a split. A class of some
hundred contents or more is cut at fixed points of the hash: chance evens out, memory stays flat,
and an example never changes sides as the class grows, which would show a later model its test data.
In a smaller class every example counts, so its contents are dealt out by rank.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kubeloop.errors import InputError

TRAIN, VALIDATION, TEST = "train", "validation", "test"


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitConfig:
    """How much of each class goes where."""

    train: float = 0.7
    """Fraction to fit on."""
    validation: float = 0.15
    """Fraction to choose hyperparameters on."""
    test: float = 0.15
    """Fraction to report on."""
    seed: int = 0
    """Another seed deals the examples out differently."""
    exact_below: int = 256
    """Classes with fewer distinct contents are dealt exactly; 0 where parts of a source are
    ingested apart and none knows a whole class."""

    def __post_init__(self) -> None:
        """Refuse fractions that are no fractions."""
        fractions = self.fractions()
        if not all(0 <= part < 1 for part in (self.validation, self.test)) or not (
            0 < self.train <= 1 and math.isclose(sum(fractions.values()), 1.0)
        ):
            raise InputError(
                f"Split fractions {fractions} must lie between 0 and 1, with some training data,"
                " and sum to 1."
            )
        if self.exact_below < 0:
            raise InputError(f"exact_below must not be negative, not {self.exact_below!r}.")

    @classmethod
    def held_out(cls, validation: float, test: float, *, seed: int = 0) -> SplitConfig:
        """Train on what is not held out."""
        return cls(train=1 - validation - test, validation=validation, test=test, seed=seed)

    def fractions(self) -> dict[str, float]:
        """Return the fractions by split."""
        return {TRAIN: self.train, VALIDATION: self.validation, TEST: self.test}


def order_key(seed: int, content: str) -> bytes:
    """Return where a content falls in the order that a seed gives."""
    return hashlib.sha256(f"{seed}:{content}".encode()).digest()


def order_keys(seed: int, digests: Sequence[bytes]) -> list[bytes]:
    """Return `order_key` of many contents."""
    start, contents = f"{seed}:".encode(), b"".join(digests).hex().encode()
    return [
        hashlib.sha256(start + contents[place : place + 64]).digest()
        for place in range(0, len(contents), 64)
    ]


def assign_splits(
    contents: Mapping[str, Iterable[str]], config: SplitConfig, *, is_whole: bool = True
) -> dict[tuple[str, str], str]:
    """Deal the contents of each class out to splits.

    Args:
        contents: For each label, the digests of its examples.
        config: Fractions and seed.
        is_whole: Whether there are no other examples of the classes elsewhere.

    Returns:
        The split of each (label, digest). Each split with a fraction above 0 gets at least one
        content of each class that has three; a class with two has none in validation.

    Raises:
        InputError: A class has one distinct content, which cannot be in two splits.
    """
    assigned: dict[tuple[str, str], str] = {}
    for label, digests in contents.items():
        ordered = sorted(set(digests), key=lambda digest: order_key(config.seed, digest))
        if len(ordered) < 2 and is_whole:
            raise InputError(
                f"Class {label!r} has {len(ordered)} distinct example; at least 2 are needed to"
                " train on one and test on another: add examples or remove the class."
            )
        sizes = count_splits(len(ordered), config)
        names = [split for split, size in sizes.items() for _ in range(size)]
        assigned |= {(label, digest): split for digest, split in zip(ordered, names, strict=True)}
    return assigned


def count_splits(num_contents: int, config: SplitConfig) -> dict[str, int]:
    """Return how many of a class's contents each split gets, test and validation first."""
    sizes: dict[str, int] = {}
    left = num_contents
    for split in (TEST, VALIDATION):
        fraction = config.fractions()[split]
        wanted = max(1, math.floor(num_contents * fraction + 0.5)) if fraction else 0
        sizes[split] = min(wanted, left - 1)
        left -= sizes[split]
    return sizes | {TRAIN: left}


class Dealer:
    """Deals the examples of a source out to splits, after it has seen all of them once."""

    def __init__(self, config: SplitConfig, *, is_whole: bool = True) -> None:
        self._config = config
        self._is_whole = is_whole
        self._small: dict[str, set[bytes] | None] = {}
        self._assigned: dict[tuple[str, str], str] | None = None
        fractions = config.fractions()
        largest = 2**64 - 1
        self._test_end = min(int(fractions[TEST] * 2**64), largest)
        self._validation_end = min(int((fractions[TEST] + fractions[VALIDATION]) * 2**64), largest)

    def observe(self, labels: Sequence[str], digests: Sequence[bytes]) -> None:
        """Take note of examples that the source leaves to be dealt."""
        limit = self._config.exact_below
        for label in {*labels} - self._small.keys():
            self._small[label] = set() if limit else None
        if all(self._small[label] is None for label in {*labels}):
            return
        for label, digest in zip(labels, digests, strict=True):
            known = self._small[label]
            if known is not None:
                known.add(digest)
                if len(known) >= limit:
                    self._small[label] = None

    def deal(self, labels: Sequence[str], digests: Sequence[bytes]) -> list[str]:
        """Return the splits of examples.

        Raises:
            InputError: A class has one distinct content, which cannot be in two splits.
        """
        if self._assigned is None:
            small = {
                label: [digest.hex() for digest in digests]
                for label, digests in self._small.items()
                if digests is not None
            }
            self._assigned = assign_splits(small, self._config, is_whole=self._is_whole)
        splits = self._deal_by_place(digests)
        exact = {label for label in {*labels} if self._small[label] is not None}
        if exact:
            for row, (label, digest) in enumerate(zip(labels, digests, strict=True)):
                if label in exact:
                    splits[row] = self._assigned[label, digest.hex()]
        return splits

    def _deal_by_place(self, digests: Sequence[bytes]) -> list[str]:
        import numpy as np

        keys = b"".join(order_keys(self._config.seed, digests))
        ends = np.array([self._test_end, self._validation_end], np.uint64)
        numbers = np.searchsorted(ends, np.frombuffer(keys, ">u8")[::4], side="right")
        return [(TEST, VALIDATION, TRAIN)[number] for number in numbers.tolist()]
