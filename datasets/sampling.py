"""A few examples of each class, for runs that only show that everything works.

Which ones depends on content and seed alone, as with splits: the same examples are taken on any
machine, whatever the order of the source.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from kubeloop.datasets.splits import order_key


class ClassSampler:
    """Chooses up to `limit` distinct contents a class, after it has seen all; memory is theirs."""

    def __init__(self, limit: int, *, seed: int) -> None:
        self.limit = limit
        self._seed = seed
        self._kept: dict[str, list[tuple[int, bytes]]] = {}  # heaps, the last in order on top

    def observe(self, labels: Iterable[str], digests: Iterable[bytes]) -> None:
        """Take note of examples."""
        for label, digest in zip(labels, digests, strict=True):
            entry = (-self._place(digest), digest)
            heap = self._kept.setdefault(label, [])
            if entry in heap:
                continue
            if len(heap) < self.limit:
                heapq.heappush(heap, entry)
            else:
                heapq.heappushpop(heap, entry)

    def chooses(self, label: str, digest: bytes) -> bool:
        """Whether an example is among the chosen."""
        return (-self._place(digest), digest) in self._kept[label]

    def _place(self, digest: bytes) -> int:
        return int.from_bytes(order_key(self._seed, digest.hex())[:8])
