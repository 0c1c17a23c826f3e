"""Accuracy on parts of a split: by a column of the data, by the tags of commits, or by label.

A model that is good on the whole may fail on one source, one language or one camera. Columns that
divide the split into a few parts are taken without being asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from kubeloop.datasets.commits import COMMITS, Commit, dataset_of, read_commit
from kubeloop.datasets.history import read_tags
from kubeloop.errors import InputError

TAG, LABEL = "tag", "label"
_MAX_VALUES = 30

Metadata = Callable[[int], Mapping[str, Any]]  # Any: JSON, from the source


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceScores:
    """How a model does on the examples that share a value."""

    column: str
    """Column of the data, `tag` or `label`."""
    value: str
    num_examples: int
    accuracy: float


class SliceTally:
    """Counts right predictions by the values that examples have."""

    def __init__(
        self,
        metadata: Metadata,
        *,
        columns: Sequence[str] = (),
        tagged: Mapping[str, Sequence[range]] | None = None,
    ) -> None:
        """Prepare to count.

        Args:
            metadata: What the source says of an example, by its index.
            columns: Columns to slice by; none: those with at most 30 values, and tags.
            tagged: Tag to where its examples are.
        """
        self._metadata = metadata
        self._is_chosen = bool(columns)
        self._wanted = set(columns) - {TAG, LABEL}
        self._tagged = dict(tagged or {}) if not columns or TAG in columns else {}
        self._by_label = LABEL in columns
        self._known: list[str] = []
        self._columns: list[str] = []
        self._seen = [0, 0]
        self._counts: dict[str, dict[str, list[int]]] = {}

    def add(self, index: int, *, label: str, is_right: bool) -> None:
        """Count an example.

        Raises:
            InputError: A column that was asked for has too many values.
        """
        for column, value in self._describe(index, label):
            counts = self._counts.setdefault(column, {})
            count = counts.setdefault(value, [0, 0])
            count[0] += 1
            count[1] += is_right
            if len(counts) > _MAX_VALUES and column in self._columns:
                self._drop(column)
        self._seen[0] += 1
        self._seen[1] += is_right

    def slices(self) -> tuple[SliceScores, ...]:
        """The parts, by column, the worst first; by label where nothing else divides the split.

        Raises:
            InputError: No example has a column that was asked for.
        """
        if self._seen[0] and (unknown := sorted(self._wanted - {*self._known})):
            accepted = ", ".join([*self._known, TAG, LABEL])
            raise InputError(f"No column {unknown[0]!r} to slice by; there are {accepted}.")
        by_column = {name: counts for name, counts in self._counts.items() if name != LABEL}
        if not self._is_chosen:
            by_column = {name: counts for name, counts in by_column.items() if len(counts) > 1}
        if self._by_label or not by_column:
            by_column[LABEL] = self._counts.get(LABEL, {})
        return tuple(
            SliceScores(column=name, value=value, num_examples=total, accuracy=right / total)
            for name, counts in by_column.items()
            for value, (total, right) in sorted(
                counts.items(), key=lambda item: item[1][1] / item[1][0]
            )
        )

    def _describe(self, index: int, label: str) -> Iterator[tuple[str, str]]:
        yield LABEL, label
        if self._wanted or not self._is_chosen:
            values = self._metadata(index)
            self._discover(values)
            yield from ((name, _write(values.get(name))) for name in self._columns)
        if self._tagged:
            tags = [t for t, places in self._tagged.items() if any(index in p for p in places)]
            yield from ((TAG, tag) for tag in tags or ["none"])

    def _discover(self, values: Mapping[str, Any]) -> None:
        """Take note of columns that come up; the examples of earlier commits may lack them."""
        for name in values:
            if name in self._known:
                continue
            self._known.append(name)
            if self._is_chosen and name not in self._wanted:
                continue
            self._columns.append(name)
            if self._seen[0]:
                self._counts[name] = {_write(None): [*self._seen]}

    def _drop(self, column: str) -> None:
        if self._is_chosen:
            raise InputError(
                f"Column {column!r} has more than {_MAX_VALUES} values; slice by one with fewer."
            )
        self._columns.remove(column)
        del self._counts[column]


def _write(value: Any) -> str:  # Any: JSON
    return "missing" if value is None else str(value)


def find_tagged(commit: Commit, split: str) -> dict[str, list[range]]:
    """Tag to where the examples of its commits are in a split of a commit or snapshot."""
    dataset = dataset_of(commit.uri)
    shards = commit.manifest.splits[split]
    ends = list(accumulate(shard.num_rows for shard in shards))
    places: dict[str, list[range]] = {}
    for tag, hashes in read_tags(dataset).items():
        keys = [f"{COMMITS}/{version_hash}.json" for version_hash in hashes]
        commits = [read_commit(dataset.uri_of(key)) for key in keys if dataset.exists(key)]
        tagged = {s.sha256 for c in commits for s in c.manifest.splits.get(split, ())}
        places[tag] = [
            range(end - shard.num_rows, end)
            for shard, end in zip(shards, ends, strict=True)
            if shard.sha256 in tagged
        ]
    return places
