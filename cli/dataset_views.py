"""How `kubeloop datasets` shows commits, logs and differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from kubeloop.cli.options import console

if TYPE_CHECKING:
    from kubeloop.datasets import Commit, Progress
    from kubeloop.datasets.history import LogEntry
    from kubeloop.datasets.housekeeping import CommitDiff

SHORT_HASH = 12
_MAX_LABELS = 20
_MAX_CELL = 100
_STAGES = {"scan": "Reading", "pack": "Writing"}
_COLORS = {"error": "red", "warning": "yellow", "info": "dim"}


def summarize_commit(commit: Commit, *, name: str) -> dict[str, Any]:
    """The latest commit of a dataset in a list of datasets."""
    return {
        "name": name,
        "kind": commit.manifest.kind,
        "version": commit.version_hash[:SHORT_HASH],
        "examples": commit.num_examples,
        "labels": len(commit.labels),
        "made": commit.created_at,
    }


def describe_commit(commit: Commit) -> dict[str, Any]:
    """A commit as JSON."""
    return {
        "name": commit.name,
        "version_hash": commit.version_hash,
        "uri": commit.uri,
        "kind": commit.manifest.kind,
        "schema": dict(commit.manifest.schema),
        "labels": list(commit.labels),
        "num_examples": commit.num_examples,
        "statistics": commit.statistics,
        "is_new": commit.is_new,
        "record": asdict(commit.record),
    }


def print_commit(commit: Commit) -> None:
    """Print what a commit is."""
    record = commit.record
    facts = {
        "version": commit.version_hash,
        "uri": commit.uri,
        "kind": commit.manifest.kind,
        "source": record.source_uri,
        "made": " by ".join(part for part in (record.created_at, record.author) if part),
        "message": record.message,
        "parent": record.parent[:SHORT_HASH],
        "examples": f"{commit.num_examples}",
        "size": render_bytes(commit.statistics["num_bytes"]),
        "left out": str(record.num_rejected) if record.num_rejected else "",
        "chosen": "\n".join(record.notes),
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in facts.items():
        if value:
            table.add_row(Text(name, "dim"), Text(value))
    console.print(table)
    console.print()
    console.print(_tabulate_labels(commit))
    _print_features(commit)
    for finding in record.findings:
        severity = Text(f"{finding.severity.value}: ", _COLORS[finding.severity.value])
        console.print(severity + Text(f"{finding.rule}: {finding.message}", "default"))


def _tabulate_labels(commit: Commit) -> Table:
    statistics = commit.statistics
    splits = statistics["splits"]
    table = Table(box=None, pad_edge=False)
    table.add_column("LABEL", overflow="fold")
    for split in splits:
        table.add_column(split.upper(), justify="right")
    for label in commit.labels[:_MAX_LABELS]:
        table.add_row(Text(label), *(str(counts[label]) for counts in splits.values()))
    if len(commit.labels) > _MAX_LABELS:
        table.add_row(f"… {len(commit.labels) - _MAX_LABELS} more")
    totals = [str(count) for count in statistics["num_examples"].values()]
    table.add_row(Text("all", "bold"), *(Text(total, "bold") for total in totals))
    return table


def _print_features(commit: Commit) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("FEATURE", "COUNT", "MISSING", "MIN", "MEAN", "MAX", "VALUES"):
        table.add_column(column, overflow="fold")
    for name, entry in commit.statistics[commit.manifest.kind].items():
        numbers = [str(entry.get(key, "")) for key in ("count", "missing", "min", "mean", "max")]
        common = ", ".join(f"{v} ({n})" for v, n in list(entry.get("most_common", {}).items())[:5])
        table.add_row(name, *numbers, Text(common))
    console.print()
    console.print(table)


def print_log(entries: Sequence[LogEntry]) -> None:
    """Print commits, the newest first."""
    table = Table(box=None, pad_edge=False)
    for column in ("VERSION", "MADE", "AUTHOR", "TAGS", "MESSAGE", "SOURCE"):
        table.add_column(column, overflow="fold")
    for entry in entries:
        tags = ", ".join([*(["latest"] if entry.is_latest else []), *entry.tags])
        record = entry.record
        table.add_row(
            entry.version_hash[:SHORT_HASH],
            record.created_at,
            Text(record.author),
            Text(tags, "green"),
            Text(record.message),
            Text(record.source_uri),
        )
    console.print(table)


def print_diff(difference: CommitDiff) -> None:
    """Print what is different."""
    for sign, labels, color in (
        ("+", difference.added_labels, "green"),
        ("-", difference.removed_labels, "red"),
    ):
        for label in labels:
            console.print(Text(f"{sign} label {label}", color))
    table = Table(box=None, pad_edge=False)
    for column in ("SPLIT", "LABEL", "ADDED", "REMOVED"):
        table.add_column(column)
    for split, change in difference.splits.items():
        for label in sorted(change.added.keys() | change.removed.keys()):
            added, removed = change.added.get(label, 0), change.removed.get(label, 0)
            table.add_row(
                split,
                Text(label),
                Text(f"+{added}" if added else "", "green"),
                Text(f"-{removed}" if removed else "", "red"),
            )
    console.print(table if difference.splits else "The examples are the same.")
    shared, new = difference.num_shared_bytes, difference.num_new_bytes
    console.print(f"{render_bytes(new)} stored anew, {render_bytes(shared)} shared.")


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """Print examples."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column.upper(), overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(row.get(name, ""))[:_MAX_CELL]) for name in columns))
    console.print(table)


def render_progress(progress: Progress) -> str:
    """How far an ingestion is, for people."""
    done = f"{progress.done:,}" + (f" of {progress.total:,}" if progress.total else "")
    return f"{_STAGES.get(progress.stage, progress.stage)}: {done} examples"


def render_bytes(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
