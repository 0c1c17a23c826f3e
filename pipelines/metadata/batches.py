"""Long lists of identifiers, cut to what one request takes."""

from __future__ import annotations

from collections.abc import Collection, Iterator


def batches(identifiers: Collection[str], *, size: int) -> Iterator[list[str]]:
    """Yield the identifiers, each once, in lists of at most `size`."""
    distinct = list(dict.fromkeys(identifiers))
    for start in range(0, len(distinct), size):
        yield distinct[start : start + size]
