"""Rules about texts and about missing values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kubeloop.datasets.findings import Finding
from kubeloop.datasets.statistics import CategorySummary, NumberSummary
from kubeloop.datasets.validation.base import MAX_EXAMPLES, RULES, Rule, RuleContext

if TYPE_CHECKING:
    import pyarrow as pa

_GARBLED = re.compile("\ufffd|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|Ã[\x80-\xbf]|â€|Â[\xa0-\xbf]")
_SUSPECT = re.compile("[\ufffd\x00-\x08\x0b\x0c\x0e-\x1f\x7fÃâÂ]")
"""What every garbled text has one of; found ten times as fast."""
_MANY_MISSING = 0.5


class EmptyText(Rule):
    """Texts without a letter or digit."""

    name = "empty_text"
    kinds = frozenset({"text_classification"})

    def __init__(self) -> None:
        self._count = 0
        self._examples: list[str] = []

    def observe(self, rows: pa.RecordBatch, *, split: str) -> None:
        """Count them."""
        labels = rows.column("label").to_pylist()
        for text, label in zip(rows.column("text").to_pylist(), labels, strict=True):
            if not text.strip():
                self._count += 1
                if len(self._examples) < MAX_EXAMPLES:
                    self._examples.append(f"{text!r} ({label}, {split})")

    def conclude(self, context: RuleContext) -> Iterator[Finding]:  # noqa: ARG002 - it counted
        """Say how many."""
        if self._count:
            yield self.find(
                f"{self._count} texts are empty.", count=self._count, examples=self._examples
            )


class GarbledText(Rule):
    """Texts that were decoded in a wrong encoding somewhere on their way."""

    name = "encoding"
    kinds = frozenset({"text_classification"})

    def __init__(self) -> None:
        self._count = 0
        self._examples: list[str] = []

    def observe(self, rows: pa.RecordBatch, *, split: str) -> None:  # noqa: ARG002 - in any split
        """Count texts with replacement or control characters, or UTF-8 read as Latin-1."""
        texts = rows.column("text").to_pylist()
        if not _SUSPECT.search("\n".join(texts)):
            return
        for text in texts:
            if _GARBLED.search(text):
                self._count += 1
                if len(self._examples) < MAX_EXAMPLES:
                    self._examples.append(repr(text[:80]))

    def conclude(self, context: RuleContext) -> Iterator[Finding]:  # noqa: ARG002 - it counted
        """Say how many."""
        if self._count:
            yield self.find(
                f"{self._count} texts look as if they were decoded in a wrong encoding.",
                count=self._count,
                examples=self._examples,
            )


class MissingValues(Rule):
    """Columns that are mostly empty."""

    name = "missing_values"
    kinds = frozenset({"tabular"})

    def conclude(self, context: RuleContext) -> Iterator[Finding]:
        """Find columns with many missing values."""
        missing = {
            name: summary.missing / (summary.missing + summary.count)
            for name, summary in context.statistics.features.items()
            if isinstance(summary, (NumberSummary, CategorySummary))
            and summary.missing + summary.count
        }
        many = sorted(name for name, share in missing.items() if share > _MANY_MISSING)
        if many:
            yield self.find(
                f"{len(many)} columns are empty in more than half of the rows.",
                count=len(many),
                examples=[f"{name}: {missing[name]:.0%} missing" for name in many],
            )


for rule in (EmptyText, GarbledText, MissingValues):
    RULES.register(rule.name, rule)
