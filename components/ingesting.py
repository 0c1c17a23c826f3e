"""What the ingest components do with a commit: artifact metadata, the report, the log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kubeloop.components.descriptions import describe_commit
from kubeloop.datasets import Commit
from kubeloop.datasets.report import build_report
from kubeloop.reports import render_page

if TYPE_CHECKING:
    from kfp import dsl


def finish_ingest(commit: Commit, *, dataset: dsl.Dataset, report: dsl.HTML) -> None:
    """Fill in the artifacts of a step that made a commit, and print what it chose and found."""
    dataset.uri = commit.uri
    dataset.metadata.update(describe_commit(commit))
    Path(report.path).write_text(render_page(build_report(commit)))
    for note in commit.record.notes:
        print(note)
    for finding in commit.record.findings:
        print(f"{finding.severity.value}: {finding.rule}: {finding.message}")
    state = "new" if commit.is_new else "unchanged"
    print(
        f"{commit.name}@{commit.version_hash[:12]} ({state}): {commit.num_examples} examples,"
        f" {len(commit.labels)} labels"
    )
