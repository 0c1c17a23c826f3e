"""Stratified splits that depend on content and seed alone.

Within each class, distinct contents are ordered by a hash of seed and content and dealt out, so
that the same image is in the same split on any machine, and two copies of one image are never on
both sides of a split.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
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

    def fractions(self) -> dict[str, float]:
        """Return the fractions by split."""
        return {TRAIN: self.train, VALIDATION: self.validation, TEST: self.test}


def order_key(seed: int, content: str) -> bytes:
    """Return where a content falls in the order that a seed gives."""
    return hashlib.sha256(f"{seed}:{content}".encode()).digest()


def assign_splits(
    contents: Mapping[str, Iterable[str]], config: SplitConfig
) -> dict[tuple[str, str], str]:
    """Deal the contents of each class out to splits.

    Args:
        contents: For each label, the digests of its examples.
        config: Fractions and seed.

    Returns:
        The split of each (label, digest). Each split with a fraction above 0 gets at least one
        content of each class that has three; a class with two has none in validation.

    Raises:
        InputError: A class has one distinct content, which cannot be in two splits.
    """
    assigned: dict[tuple[str, str], str] = {}
    for label, digests in contents.items():
        ordered = sorted(set(digests), key=lambda digest: order_key(config.seed, digest))
        if len(ordered) < 2:
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
