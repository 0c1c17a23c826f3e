"""What an ingestion is told, and how it tells how far it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from kubeloop.datasets.findings import OFF, Severity
from kubeloop.datasets.kinds.base import ScanOptions
from kubeloop.datasets.sources.base import SourceLimits
from kubeloop.datasets.splits import SplitConfig
from kubeloop.errors import InputError

_NAME = re.compile(r"[a-z0-9]([-._a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestConfig:
    """One ingestion."""

    name: str
    """Name of the dataset: lower-case letters, digits, '-', '_' and '.'."""
    source: str
    """Where the raw data lies: a path or a URI."""
    store: str
    """Root URI of all datasets; the commit goes below `<store>/<name>/`."""
    kind: str = "image_classification"
    """Kind of dataset."""
    splits: SplitConfig = field(default_factory=SplitConfig)
    """Fractions and seed of the splits, for examples that the source does not assign to one."""
    scan: ScanOptions = field(default_factory=ScanOptions)
    """How the source is read."""
    limits: SourceLimits = field(default_factory=SourceLimits)
    """What the source may ask of this machine."""
    max_corrupt_fraction: float = 0.0
    """Fraction of unreadable examples that is left out; more is an error. By default any is."""
    max_examples_per_class: int = 0
    """Take only so many distinct examples of each class, chosen by content and seed; 0: all."""
    shard_bytes: int = 32 << 20
    """Size that the shards of a big split have about."""
    severities: Mapping[str, str] = field(default_factory=dict)
    """Severity of validation rules by name, where it is not the rule's own: error, warning, info,
    or off."""
    message: str = ""
    """Why the commit is made."""
    author: str = ""
    """Who makes it; empty: the user of this process."""
    extend: bool = False
    """Commit the newest commit's data and the source's together, rather than the source's alone."""
    full: bool = False
    """Read a source again although it looks unchanged by times and sizes."""

    def __post_init__(self) -> None:
        """Refuse what would fail later."""
        if not _NAME.fullmatch(self.name):
            raise InputError(
                f"Dataset name {self.name!r} must be at most 63 lower-case letters, digits, '-',"
                " '_' and '.', starting and ending with a letter or digit."
            )
        if not 0 <= self.max_corrupt_fraction < 1:
            raise InputError(
                "max_corrupt_fraction must be from 0 to below 1, not"
                f" {self.max_corrupt_fraction!r}."
            )
        allowed = (*(severity.value for severity in Severity), OFF)
        for rule, severity in self.severities.items():
            if severity not in allowed:
                raise InputError(
                    f"Severity of rule {rule!r} must be one of {', '.join(allowed)}, not"
                    f" {severity!r}."
                )
        if self.shard_bytes < 1:
            raise InputError(f"shard_bytes must be positive, not {self.shard_bytes!r}.")
        if self.max_examples_per_class < 0:
            raise InputError(
                "max_examples_per_class must be 0 for all, or positive, not"
                f" {self.max_examples_per_class!r}."
            )

    def render_settings(self) -> dict[str, Any]:
        """Return the settings that shape a commit's content."""
        return {
            "kind": self.kind,
            "splits": asdict(self.splits),
            "scan": asdict(self.scan),
            "max_corrupt_fraction": self.max_corrupt_fraction,
            "severities": dict(self.severities),
            "max_examples_per_class": self.max_examples_per_class,
            "shard_bytes": self.shard_bytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an ingestion is."""

    stage: str
    """`scan` or `pack`."""
    done: int
    """Examples."""
    total: int
    """Examples; 0 where it is not known yet."""


ProgressCallback = Callable[[Progress], None]
