"""Rules about labels: their names, and how many examples they have."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from kubeloop.datasets.findings import Finding
from kubeloop.datasets.validation.base import RULES, Rule, RuleContext

_LONGEST_LABEL = 128
_FEW_EXAMPLES = 5
_LARGEST_IMBALANCE = 100


class LabelNames(Rule):
    """Labels that look like slips of the pen."""

    name = "label_names"

    def conclude(self, context: RuleContext) -> Iterator[Finding]:
        """Find labels with spaces around them, control characters, or too long."""
        odd = [label for label in context.labels if _is_odd(label)]
        if odd:
            yield self.find(
                f"{len(odd)} labels have spaces around them, control characters, or more than"
                f" {_LONGEST_LABEL} characters.",
                count=len(odd),
                examples=[repr(label[:_LONGEST_LABEL]) for label in odd],
            )
        alike: dict[str, list[str]] = {}
        for label in context.labels:
            folded = unicodedata.normalize("NFKC", label).casefold()
            alike.setdefault("".join(filter(str.isalnum, folded)) or label, []).append(label)
        pairs = [labels for labels in alike.values() if len(labels) > 1]
        if pairs:
            yield self.find(
                f"{len(pairs)} groups of labels differ in case, spaces or punctuation alone; are"
                " they one label?",
                count=len(pairs),
                examples=[", ".join(map(repr, labels)) for labels in pairs],
            )


class FewExamples(Rule):
    """Labels with too few examples to learn from, or far fewer than others have."""

    name = "few_examples"

    def conclude(self, context: RuleContext) -> Iterator[Finding]:
        """Count the examples of each label."""
        counts = {label: context.statistics.labels[label] for label in context.labels}
        few = sorted(label for label, count in counts.items() if count < _FEW_EXAMPLES)
        if few:
            yield self.find(
                f"{len(few)} labels have fewer than {_FEW_EXAMPLES} examples.",
                count=len(few),
                examples=[f"{label}: {counts[label]}" for label in few],
            )
        if counts and max(counts.values()) > _LARGEST_IMBALANCE * min(counts.values()):
            rare, common = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
            yield self.find(
                f"Label {common!r} has {counts[common]} examples and {rare!r} has {counts[rare]};"
                " weigh the classes in training.",
                count=1,
            )


def _is_odd(label: str) -> bool:
    return (
        label != label.strip()
        or len(label) > _LONGEST_LABEL
        or any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co") for character in label)
    )


for rule in (LabelNames, FewExamples):
    RULES.register(rule.name, rule)
