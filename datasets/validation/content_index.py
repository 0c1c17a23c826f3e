"""Which contents occur more than once, found on disk.

Every example leaves a small record in one of many files, chosen by its digest, so that equal
contents meet in one file; the files are then looked at one by one. Memory is that of one file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

_NUM_FILES = 256  # one for each value of the first byte
_MAX_SAMPLES = 10


@dataclass(slots=True)
class Repetition:
    """One content that occurs more than once."""

    digest: bytes
    labels: frozenset[str]
    splits: frozenset[str]
    count: int
    description: str = ""
    """Part of a text, or a path; filled in afterwards."""


@dataclass(slots=True)
class Repetitions:
    """How often contents repeat; the lists hold the first few."""

    num_duplicates: int = 0
    """Examples beyond the first of their content, label and split."""
    num_conflicting: int = 0
    """Contents with more than one label."""
    num_leaking: int = 0
    """Contents in more than one split."""
    duplicates: list[Repetition] = field(default_factory=list)
    conflicting: list[Repetition] = field(default_factory=list)
    leaking: list[Repetition] = field(default_factory=list)


class ContentIndex:
    """Notes the content, label and split of every example below a folder."""

    def __init__(self, folder: Path) -> None:
        self._paths = [folder / f"{number:03d}" for number in range(_NUM_FILES)]
        self._files: list[BinaryIO] = [path.open("wb") for path in self._paths]
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []

    def add(self, digests: Sequence[bytes], labels: Sequence[str], *, split: str) -> None:
        """Note examples."""
        import numpy as np

        records = np.zeros(len(digests), dtype=_record_type())
        records["digest"] = np.frombuffer(b"".join(digests), dtype="V32").view("V32")
        numbers = {label: self._number(label) for label in dict.fromkeys(labels)}
        records["label"] = [numbers[label] for label in labels]
        records["split"] = self._number(split)
        places = np.frombuffer(b"".join(digests), dtype=np.uint8)[::32]
        records = records[np.argsort(places, kind="stable")]
        ends = np.cumsum(np.bincount(places, minlength=_NUM_FILES)).tolist()
        for file, start, end in zip(self._files, [0, *ends], ends, strict=False):
            if start < end:
                file.write(records[start:end].tobytes())

    def _number(self, name: str) -> int:
        number = self._numbers.setdefault(name, len(self._names))
        if number == len(self._names):
            self._names.append(name)
        return number

    def summarize(self) -> Repetitions:
        """Find the contents that occur more than once."""
        import numpy as np

        found = Repetitions()
        for file, path in zip(self._files, self._paths, strict=True):
            file.close()
            records = np.fromfile(path, dtype=_record_type())
            digests = records["digest"].view("S32") if len(records) else records["digest"]
            keys, starts, counts = _group(digests)
            for start, count in zip(starts, counts, strict=True):
                self._note(records[keys[start : start + count]], found)
        return found

    def _note(self, group: Any, found: Repetitions) -> None:  # Any: a structured array
        labels, splits = set(group["label"].tolist()), set(group["split"].tolist())
        repetition = Repetition(
            digest=bytes(group["digest"][0]),
            labels=frozenset(self._names[number] for number in labels),
            splits=frozenset(self._names[number] for number in splits),
            count=len(group),
        )
        distinct = len({(row["label"], row["split"]) for row in group})
        if len(group) > distinct:
            found.num_duplicates += len(group) - distinct
            _append(found.duplicates, repetition)
        if len(labels) > 1:
            found.num_conflicting += 1
            _append(found.conflicting, repetition)
        if len(splits) > 1:
            found.num_leaking += 1
            _append(found.leaking, repetition)

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()


def _append(samples: list[Repetition], repetition: Repetition) -> None:
    if len(samples) < _MAX_SAMPLES:
        samples.append(repetition)


def _record_type() -> Any:  # Any: numpy's dtypes of records
    import numpy as np

    return np.dtype([("digest", "V32"), ("label", "<u4"), ("split", "<u4")])


def _group(digests: Any) -> tuple[Any, list[int], list[int]]:  # Any: numpy arrays
    """Return the order by digest, and start and length of each run of at least two equal ones."""
    import numpy as np

    if not len(digests):
        return np.empty(0, dtype=int), [], []
    words = np.ascontiguousarray(digests).view(">u8").reshape(-1, 4)
    order = np.lexsort((words[:, 1], words[:, 0]))
    ordered = words[order]
    changes = np.flatnonzero((ordered[1:] != ordered[:-1]).any(axis=1)) + 1
    starts = np.concatenate([[0], changes])
    lengths = np.diff(np.concatenate([starts, [len(ordered)]]))
    many = lengths > 1
    return order, starts[many].tolist(), lengths[many].tolist()
