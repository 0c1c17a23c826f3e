"""The plug point for validation rules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubeloop.datasets.findings import Finding, ScanLog, Severity
from kubeloop.datasets.statistics import Statistics
from kubeloop.datasets.validation.content_index import Repetitions
from kubeloop.registry import Registry

if TYPE_CHECKING:
    import pyarrow as pa

MAX_EXAMPLES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleContext:
    """What is known at the end of an ingestion."""

    labels: tuple[str, ...]
    statistics: Statistics
    """Labels are counted in it, in all splits."""
    log: ScanLog
    repetitions: Repetitions
    """Contents that occur more than once."""


class Rule(ABC):
    """Looks at the examples of one ingestion.

    A rule keeps a bounded amount, whatever the number of examples. `name` is what users write to
    change its severity.
    """

    name: str
    severity: Severity = Severity.WARNING
    """Severity unless the user says another."""
    kinds: frozenset[str] | None = None
    """Kinds of datasets it is for; None: all."""

    def observe(self, rows: pa.RecordBatch, *, split: str) -> None:  # noqa: B027 - optional
        """Look at scanned rows of a split."""

    @abstractmethod
    def conclude(self, context: RuleContext) -> Iterator[Finding]:
        """Yield what was found, with the rule's own severity."""

    def find(self, message: str, *, count: int, examples: list[str] | None = None) -> Finding:
        """Build a finding of this rule."""
        return Finding(
            rule=self.name,
            severity=self.severity,
            message=message,
            count=count,
            examples=tuple((examples or [])[:MAX_EXAMPLES]),
        )


RULES: Registry[Callable[[], Rule]] = Registry("validation rule")
"""Rule name → what makes a fresh one for an ingestion."""
