"""Applies all rules to one ingestion."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kubeloop.datasets.findings import OFF, Finding, ScanLog, Severity
from kubeloop.datasets.kinds.base import DatasetKind
from kubeloop.datasets.shards.base import LABEL, list_digests
from kubeloop.datasets.statistics import Statistics
from kubeloop.datasets.validation.base import RULES, Rule, RuleContext
from kubeloop.datasets.validation.content_index import ContentIndex, Repetitions

if TYPE_CHECKING:
    import pyarrow as pa

_DESCRIPTION_CHARACTERS = 80
_ORDER = (Severity.ERROR, Severity.WARNING, Severity.INFO)


class Validation:
    """The rules for one ingestion; `opened` makes it.

    Args:
        kind: Kind of the dataset.
        severities: Severities by rule, or `off`, where they are not the rules' own.
        folder: For what is kept on disk meanwhile.

    Raises:
        InputError: `severities` names an unknown rule.
    """

    def __init__(self, kind: DatasetKind, *, severities: Mapping[str, str], folder: Path) -> None:
        self._kind = kind
        self._rules: list[Rule] = []
        wanted = {name: severities.get(name) for name in [*RULES, *severities]}
        for name, severity in wanted.items():
            rule = RULES[name]()
            if severity != OFF and (rule.kinds is None or kind.name in rule.kinds):
                rule.severity = Severity(severity or rule.severity)
                self._rules.append(rule)
        self._index = ContentIndex(folder)

    @classmethod
    @contextmanager
    def opened(cls, kind: DatasetKind, *, severities: Mapping[str, str]) -> Iterator[Validation]:
        """Validate for the time of the context."""
        with tempfile.TemporaryDirectory(prefix="kubeloop-validate-") as folder:
            validation = cls(kind, severities=severities, folder=Path(folder))
            try:
                yield validation
            finally:
                validation._index.close()

    def observe(self, rows: pa.RecordBatch, *, split: str) -> None:
        """Look at scanned rows of a split."""
        labels = rows.column(LABEL).to_pylist()
        self._index.add(list_digests(rows), labels, split=split)
        for rule in self._rules:
            rule.observe(rows, split=split)

    def conclude(
        self,
        *,
        labels: tuple[str, ...],
        statistics: Statistics,
        log: ScanLog,
        read: Callable[[], Iterator[pa.RecordBatch]],
    ) -> tuple[Finding, ...]:
        """Return what was found, the gravest first.

        Args:
            labels: All labels.
            statistics: Of all examples.
            log: What scanning brought up.
            read: Gives all scanned rows once more, to show some.
        """
        repetitions = self._index.summarize()
        self._describe(repetitions, read)
        context = RuleContext(
            labels=labels, statistics=statistics, log=log, repetitions=repetitions
        )
        found = [
            replace(finding, severity=rule.severity)
            for rule in self._rules
            for finding in rule.conclude(context)
        ]
        return tuple(sorted(found, key=lambda finding: _ORDER.index(finding.severity)))

    def _describe(
        self, repetitions: Repetitions, read: Callable[[], Iterator[pa.RecordBatch]]
    ) -> None:
        lists = (repetitions.duplicates, repetitions.conflicting, repetitions.leaking)
        wanted = {entry.digest: entry for entries in lists for entry in entries}
        missing = set(wanted)
        if not missing:
            return
        for rows in read():
            for place, digest in enumerate(list_digests(rows)):
                if digest in missing:
                    missing.discard(digest)
                    row = self._kind.describe_row(rows.slice(place, 1).to_pylist()[0])
                    text = str(row.get("text") or row.get("path") or row)
                    for entries in lists:
                        for entry in entries:
                            if entry.digest == digest:
                                entry.description = repr(text[:_DESCRIPTION_CHARACTERS])
            if not missing:
                return
