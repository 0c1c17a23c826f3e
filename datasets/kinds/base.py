"""The plug point for kinds of datasets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubeloop.datasets.sources import Source
from kubeloop.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A file that should become an example."""

    path: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A file that does not become an example."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a kind makes of a source's files."""

    candidates: tuple[Candidate, ...]
    """Files that should become examples, in the source's order."""
    rejected: tuple[Rejection, ...]
    """Files of another sort; they are reported and otherwise ignored."""
    labels: tuple[str, ...]
    """All labels, in the order of their index."""


class DatasetKind(ABC):
    """How the files of a source become labelled examples.

    A kind is stateless and deterministic: the same files give the same listing, facts and
    statistics on any machine. `name` is what users write and what a commit's manifest records.
    """

    name: str

    @abstractmethod
    def list_candidates(self, source: Source) -> Listing:
        """Sort a source's files by what they are, without reading them.

        Raises:
            InputError: The source does not have the shape of this kind.
        """

    @abstractmethod
    def inspect(self, data: bytes, *, max_pixels: int) -> Mapping[str, Any]:
        """Check that a candidate's bytes can be used, and describe them.

        Raises:
            InputError: They cannot; the message says why, without the path.
        """

    @abstractmethod
    def summarize(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Compute statistics from what `inspect` returned for each example."""

    @abstractmethod
    def describe_schema(self) -> dict[str, str]:
        """Name the features of an example and their types."""


KINDS: Registry[DatasetKind] = Registry("dataset kind")
