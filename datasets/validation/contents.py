"""Rules about contents that repeat, and about what could not be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kubeloop.datasets.findings import Finding, Severity
from kubeloop.datasets.validation.base import RULES, Rule, RuleContext
from kubeloop.datasets.validation.content_index import Repetition


class Duplicates(Rule):
    """The same content with the same label in one split more than once."""

    name = "duplicates"

    def conclude(self, context: RuleContext) -> Iterator[Finding]:
        """Count them."""
        if count := context.repetitions.num_duplicates:
            yield self.find(
                f"{count} examples repeat another of their split and label, which weighs it more.",
                count=count,
                examples=_describe(context.repetitions.duplicates),
            )


class ConflictingLabels(Rule):
    """The same content under different labels."""

    name = "conflicting_labels"

    def conclude(self, context: RuleContext) -> Iterator[Finding]:
        """Count them."""
        if count := context.repetitions.num_conflicting:
            yield self.find(
                f"{count} contents have more than one label; no model can be right about both.",
                count=count,
                examples=[
                    f"{entry.description}: {', '.join(sorted(entry.labels))}"
                    for entry in context.repetitions.conflicting
                ],
            )


class Leakage(Rule):
    """The same content in more than one split."""

    name = "leakage"

    def conclude(self, context: RuleContext) -> Iterator[Finding]:
        """Count them."""
        if count := context.repetitions.num_leaking:
            yield self.find(
                f"{count} contents are in more than one split, so that scores on held-out data are"
                " too good.",
                count=count,
                examples=[
                    f"{entry.description}: {', '.join(sorted(entry.splits))}"
                    for entry in context.repetitions.leaking
                ],
            )


class Unreadable(Rule):
    """Examples that could not be read, as far as the ingestion allows any."""

    name = "unreadable"

    def conclude(self, context: RuleContext) -> Iterator[Finding]:
        """Count them."""
        if count := context.log.num_corrupt:
            yield self.find(
                f"{count} of {context.log.num_seen} examples cannot be read and are left out.",
                count=count,
                examples=[f"{entry.path}: {entry.reason}" for entry in context.log.corrupt],
            )


class IgnoredFiles(Rule):
    """Files of another sort in the source."""

    name = "ignored_files"
    severity = Severity.INFO

    def conclude(self, context: RuleContext) -> Iterator[Finding]:
        """Count them."""
        if count := context.log.num_ignored:
            yield self.find(
                f"{count} files of the source are no examples and were ignored.",
                count=count,
                examples=[f"{entry.path}: {entry.reason}" for entry in context.log.ignored],
            )


def _describe(repetitions: Sequence[Repetition]) -> list[str]:
    return [f"{entry.description} ({entry.count} times)" for entry in repetitions]


for rule in (Duplicates, ConflictingLabels, Leakage, Unreadable, IgnoredFiles):
    RULES.register(rule.name, rule)
