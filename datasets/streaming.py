"""Reading a split front to back, for data that is larger than memory or far away.

The order of an epoch is computed from seed, epoch and the shards' row counts alone: shards are
shuffled, a window of some of them is open at a time, and the rows of a window are shuffled among
each other. So it is the same for any number of workers, ranks take turns in it (two ranks with a
batch of n see what one with 2n sees), and resuming at a step computes where to go on and reads
nothing of what lies before.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from kubeloop.datasets.reading import Split
from kubeloop.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """How a split is streamed."""

    seed: int = 0
    """Another seed gives another order."""
    shuffle: bool = True
    """Whether each epoch has an order of its own; else it is that of the source."""
    window_shards: int = 8
    """Shards that are open at a time, among which rows are mixed."""
    rank: int = 0
    """Number of this process."""
    num_ranks: int = 1
    """Processes that share the split."""
    batch_size: int = 1
    """Batch size of the `DataLoader`: what workers take turns in, so that its batches are the same
    for any number of workers."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if not 0 <= self.rank < self.num_ranks:
            raise InputError(f"rank {self.rank} must be below num_ranks {self.num_ranks}.")
        if self.window_shards < 1 or self.batch_size < 1:
            raise InputError("window_shards and batch_size must be positive.")


class StreamingDataset(IterableDataset[Any]):
    """A split for a `DataLoader`, by rank and worker; an epoch has equal length on all ranks.

    Args:
        split: The split.
        config: Order and sharing.
        transform: Applied to each example, in the worker that reads it.
    """

    def __init__(
        self,
        split: Split[Any],
        config: StreamConfig,
        *,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        self._split = split
        self._config = config
        self._transform = transform
        # NB: shared with the workers of a `DataLoader`, which may outlive an epoch.
        self._position = torch.zeros(2, dtype=torch.int64)
        self._position.share_memory_()  # type: ignore[no-untyped-call]  # torch gives no types

    @property
    def epoch(self) -> int:
        """The epoch that is read next."""
        return int(self._position[0])

    def _go_to(self, epoch: int, first_batch: int) -> None:
        self._position[0], self._position[1] = epoch, first_batch

    def __len__(self) -> int:
        """Return the examples that this rank gets in an epoch."""
        return -(-len(self._split) // self._config.num_ranks)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; to be called before each."""
        self._go_to(epoch, 0)

    def state_dict(self, num_batches: int) -> dict[str, int]:
        """Return what resumes after `num_batches` batches of this epoch."""
        return {
            "epoch": self.epoch,
            "num_batches": num_batches,
            "batch_size": self._config.batch_size,
            "seed": self._config.seed,
        }

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Resume where `state_dict` was taken.

        Raises:
            InputError: Seed or batch size were others.
        """
        for name, value in (("seed", self._config.seed), ("batch_size", self._config.batch_size)):
            if state[name] != value:
                raise InputError(
                    f"The stream was saved with {name} {state[name]}, not {value}; resume with the"
                    " same."
                )
        self._go_to(state["epoch"], state["num_batches"])

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        size = self._config.batch_size
        first_batch = int(self._position[1])
        positions = np.arange(first_batch * size, len(self))
        mine = positions[(positions // size - first_batch) % count == number]
        if worker is None:
            self._go_to(self.epoch, 0)
        places = (mine * self._config.num_ranks + self._config.rank) % max(len(self._split), 1)
        for index in self._follow(places):
            example = self._split[index]
            yield self._transform(example) if self._transform is not None else example

    def _follow(self, places: np.ndarray[Any, Any]) -> Iterator[int]:
        """Yield the row at each place of the epoch's order; places ascend, but for the last few."""
        order = EpochOrder(
            [shard.num_rows for shard in self._split.shards], config=self._config, epoch=self.epoch
        )
        with ThreadPoolExecutor(1, thread_name_prefix="shards") as pool:
            window, start = -1, 0
            rows: list[int] = []
            for place in places.tolist():
                found = order.window_of(place)
                if found != window:
                    window, start, rows = found, order.start_of(found), order.rows(found).tolist()
                    for shard in order.shards(window + 1):
                        pool.submit(self._split.cache.fetch, self._split.shards[shard])
                yield rows[place - start]


class EpochOrder:
    """The order of an epoch, window by window."""

    def __init__(self, num_rows: Sequence[int], *, config: StreamConfig, epoch: int) -> None:
        self._config = config
        self._epoch = epoch
        self._starts = np.concatenate([[0], np.cumsum(num_rows)]).astype(np.int64)
        self._num_rows = num_rows
        shards = np.arange(len(num_rows))
        if config.shuffle:
            shards = self._generator(0).permutation(shards)
        width = config.window_shards
        self._windows = [shards[first : first + width] for first in range(0, len(shards), width)]
        sizes = [sum(num_rows[shard] for shard in window) for window in self._windows]
        self._ends = list(accumulate(sizes))

    def _generator(self, purpose: int) -> np.random.Generator:
        return np.random.default_rng((self._config.seed, self._epoch, purpose))

    def window_of(self, place: int) -> int:
        """Return the window that a place of the order lies in."""
        return bisect_right(self._ends, place)

    def start_of(self, window: int) -> int:
        """Return the first place of a window."""
        return self._ends[window - 1] if window else 0

    def shards(self, window: int) -> list[int]:
        """Return the shards of a window; none behind the last."""
        return self._windows[window].tolist() if window < len(self._windows) else []

    def rows(self, window: int) -> np.ndarray[Any, Any]:
        """Return the rows of the split at the places of a window."""
        rows = np.concatenate(
            [
                np.arange(self._starts[shard], self._starts[shard + 1])
                for shard in self._windows[window]
            ]
        )
        return self._generator(window + 1).permutation(rows) if self._config.shuffle else rows
