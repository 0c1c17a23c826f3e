"""Statistics that add up.

Every shard carries the statistics of its rows, and those of a commit, of a snapshot or of a source
ingested in parts are sums of them: no row is read twice, and memory does not grow with the data.
Sums are exact, so that the same rows give the same statistics in any order and on any machine.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

_ORIGIN = 4000
"""Keeps the number of a bin, two an octave, above zero."""
_LARGEST = 1e140
"""Moments take larger numbers for this one, so that squares and sums stay finite."""
_HALF_OCTAVE = math.sqrt(0.5)
_MAX_TRACKED = 100
_MAX_SHOWN = 20
_LONGEST_VALUE = 100


@dataclass(slots=True)
class NumberSummary:
    """Numbers of one feature: exact moments, and a histogram over a logarithmic scale."""

    count: int = 0
    missing: int = 0
    minimum: float = math.inf
    maximum: float = -math.inf
    total: Fraction = Fraction(0)
    squares: Fraction = Fraction(0)
    bins: Counter[int] = field(default_factory=Counter)

    def add(self, values: Iterable[float | None]) -> None:
        """Take in values; None and what is not finite are missing.

        NB: sums of floats are rounded once a call, so equal rows must come in equal portions.
        """
        import numpy as np

        # NB: numpy takes None for not a number.
        given = np.array(list(values), dtype=float)
        numbers = given[np.isfinite(given)]
        self.missing += len(given) - len(numbers)
        if not len(numbers):
            return
        self.count += len(numbers)
        self.minimum = min(self.minimum, float(numbers.min()))
        self.maximum = max(self.maximum, float(numbers.max()))
        moderate = np.clip(numbers, -_LARGEST, _LARGEST)
        self.total += Fraction(math.fsum(moderate.tolist()))
        self.squares += Fraction(math.fsum((moderate * moderate).tolist()))
        mantissas, exponents = np.frexp(np.abs(numbers))
        bins = np.where(numbers == 0, 0, 2 * exponents + (mantissas >= _HALF_OCTAVE) + _ORIGIN)
        found, counts = np.unique(np.where(numbers < 0, -bins, bins), return_counts=True)
        self.bins.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))

    def merge(self, other: NumberSummary) -> None:
        """Add another summary of the same feature."""
        self.count += other.count
        self.missing += other.missing
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        self.total += other.total
        self.squares += other.squares
        self.bins.update(other.bins)

    def render(self) -> dict[str, Any]:
        """Write for people: moments and a histogram."""
        document: dict[str, Any] = {"type": "number", "count": self.count, "missing": self.missing}
        if not self.count:
            return document
        mean = self.total / self.count
        variance = max(self.squares / self.count - mean * mean, Fraction(0))
        return document | {
            "min": _round(self.minimum),
            "max": _round(self.maximum),
            "mean": _round(float(mean)),
            "std": _round(math.sqrt(float(variance))),
            "histogram": [
                [_round(_start_of(number)), self.bins[number]] for number in sorted(self.bins)
            ],
        }

    def dump(self) -> dict[str, Any]:
        """Write exactly, to be added up later."""
        return {
            "type": "number",
            "count": self.count,
            "missing": self.missing,
            "range": [self.minimum, self.maximum] if self.count else [],
            "sums": [str(self.total), str(self.squares)],
            "bins": {str(number): self.bins[number] for number in sorted(self.bins)},
        }

    @classmethod
    def load(cls, document: Mapping[str, Any]) -> NumberSummary:
        """Read what `dump` wrote."""
        minimum, maximum = document["range"] or (math.inf, -math.inf)
        total, squares = (Fraction(text) for text in document["sums"])
        bins = Counter({int(number): count for number, count in document["bins"].items()})
        return cls(document["count"], document["missing"], minimum, maximum, total, squares, bins)


@dataclass(slots=True)
class CategorySummary:
    """Values of one feature by how often they occur; beyond a hundred different ones, the first.

    Values that begin with the same hundred characters count as one.
    """

    count: int = 0
    missing: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    is_complete: bool = True

    def add(self, values: Iterable[object | None]) -> None:
        """Take in values; None and the empty text are missing."""
        # NB: manifests hold the values, of every shard; a few long texts would swell them.
        texts = ["" if value is None else str(value)[:_LONGEST_VALUE] for value in values]
        given = Counter(texts)
        self.missing += given.pop("", 0)
        self.count += given.total()
        self._track(given)

    def merge(self, other: CategorySummary) -> None:
        """Add another summary of the same feature."""
        self.count += other.count
        self.missing += other.missing
        self.is_complete &= other.is_complete
        self._track(other.counts)

    def _track(self, counts: Mapping[Any, int]) -> None:
        self.counts.update(counts)
        if len(self.counts) > _MAX_TRACKED:
            self.is_complete = False
            ranked = sorted(self.counts.items(), key=lambda entry: (-entry[1], entry[0]))
            self.counts = Counter(dict(ranked[:_MAX_TRACKED]))

    def render(self) -> dict[str, Any]:
        """Write for people: the most common values."""
        ranked = sorted(self.counts.items(), key=lambda entry: (-entry[1], entry[0]))
        return {
            "type": "category",
            "count": self.count,
            "missing": self.missing,
            "num_distinct": len(self.counts) if self.is_complete else f"more than {_MAX_TRACKED}",
            "most_common": dict(ranked[:_MAX_SHOWN]),
        }

    def dump(self) -> dict[str, Any]:
        """Write exactly, to be added up later."""
        return {
            "type": "category",
            "count": self.count,
            "missing": self.missing,
            "counts": dict(sorted(self.counts.items())),
            "is_complete": self.is_complete,
        }

    @classmethod
    def load(cls, document: Mapping[str, Any]) -> CategorySummary:
        """Read what `dump` wrote."""
        counts = Counter(document["counts"])
        return cls(document["count"], document["missing"], counts, document["is_complete"])


Summary = NumberSummary | CategorySummary


@dataclass(slots=True)
class Statistics:
    """What a set of rows is like."""

    num_rows: int = 0
    num_bytes: int = 0
    """Bytes of the encoded examples."""
    labels: Counter[str] = field(default_factory=Counter)
    features: dict[str, Summary] = field(default_factory=dict)

    def add_numbers(self, feature: str, values: Iterable[float | None]) -> None:
        """Take in numbers of a feature."""
        summary = self.features.setdefault(feature, NumberSummary())
        assert isinstance(summary, NumberSummary)
        summary.add(values)

    def add_categories(self, feature: str, values: Iterable[object | None]) -> None:
        """Take in values of a feature."""
        summary = self.features.setdefault(feature, CategorySummary())
        assert isinstance(summary, CategorySummary)
        summary.add(values)

    def merge(self, other: Statistics) -> None:
        """Add the statistics of other rows."""
        self.num_rows += other.num_rows
        self.num_bytes += other.num_bytes
        self.labels.update(other.labels)
        for feature, summary in other.features.items():
            mine = self.features.setdefault(feature, type(summary)())
            mine.merge(summary)  # type: ignore[arg-type]  # a feature has one type everywhere

    def render_features(self) -> dict[str, Any]:
        """Write the features for people."""
        return {name: summary.render() for name, summary in sorted(self.features.items())}

    def dump(self) -> dict[str, Any]:
        """Write exactly, to be added up later."""
        return {
            "num_rows": self.num_rows,
            "num_bytes": self.num_bytes,
            "labels": dict(sorted(self.labels.items())),
            "features": {name: summary.dump() for name, summary in sorted(self.features.items())},
        }

    @classmethod
    def load(cls, document: Mapping[str, Any]) -> Statistics:
        """Read what `dump` wrote."""
        features: dict[str, Summary] = {
            name: (NumberSummary if entry["type"] == "number" else CategorySummary).load(entry)
            for name, entry in document["features"].items()
        }
        labels = Counter(document["labels"])
        return cls(document["num_rows"], document["num_bytes"], labels, features)


def add_up(parts: Iterable[Statistics]) -> Statistics:
    """Return the statistics of all rows together."""
    total = Statistics()
    for part in parts:
        total.merge(part)
    return total


def _start_of(number: int) -> float:
    """Return the end of a histogram bin that lies nearer to zero."""
    if not number:
        return 0.0
    magnitude = math.exp2((abs(number) - _ORIGIN) / 2 - 1)
    return magnitude if number > 0 else -magnitude


def _round(number: float) -> float:
    """Return six digits of a number, and all of a whole one."""
    return int(number) if number.is_integer() and abs(number) < 1e15 else float(f"{number:.6g}")
