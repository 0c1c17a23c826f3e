"""A commit as an HTML report: what is in it, and what validation found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kubeloop.datasets.commits import Commit
from kubeloop.datasets.findings import Finding, Severity

if TYPE_CHECKING:
    from kubeloop.reports import Note, Page, Plot, Section, Table

_MAX_BARS = 60
_MAX_REJECTED = 50
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "plain"}
_COLORS = ("#326ce5", "#f0a030", "#2f9e6e", "#8c62c7")


def build_report(commit: Commit) -> Page:
    """Build the page of a commit; `kubeloop.reports.render_page` writes it."""
    from kubeloop.reports import Page, Section

    record = commit.record
    sections = [
        Section(heading="Validation", parts=_show_findings(record.findings)),
        Section(heading="Splits and labels", parts=_show_labels(commit)),
        Section(heading="Features", parts=_show_features(commit)),
        Section(heading="Sample", parts=[_show_sample(commit)]),
    ]
    if record.rejected:
        sections.append(_show_rejected(commit))
    facts = {
        "Version": commit.version_hash,
        "Kind": commit.manifest.kind,
        "Examples": f"{commit.num_examples:,}",
        "Labels": f"{len(commit.labels):,}",
        "Size": f"{commit.statistics['num_bytes']:,} bytes",
        "Source": record.source_uri,
        "Made": f"{record.created_at} by {record.author}" if record.author else record.created_at,
        "Message": record.message,
        "Chosen by itself": " ".join(record.notes),
    }
    return Page(
        title=f"Dataset {commit.name}",
        facts={name: value for name, value in facts.items() if value},
        sections=sections,
    )


def _show_findings(findings: Sequence[Finding]) -> list[Note | Table]:
    from kubeloop.reports import Note, Table

    if not findings:
        return [Note(text="No rule found anything.", level="good")]
    parts: list[Note | Table] = []
    for finding in findings:
        text = f"{finding.severity.value.capitalize()}, {finding.rule}: {finding.message}"
        parts.append(Note(text=text, level=_LEVELS[finding.severity]))
        if finding.examples:
            parts.append(Table(columns=["For example"], rows=[[e] for e in finding.examples]))
    return parts


def _show_labels(commit: Commit) -> list[Note | Table | Plot]:
    from kubeloop.reports import Note, Table

    statistics = commit.statistics
    rows = [[split, count] for split, count in statistics["num_examples"].items()]
    parts: list[Note | Table | Plot] = [Table(columns=["Split", "Examples"], rows=rows)]
    if not commit.labels:
        return parts
    totals: Mapping[str, int] = statistics["labels"]
    shown = sorted(commit.labels, key=lambda label: (-totals[label], label))
    if len(shown) > _MAX_BARS:
        half = _MAX_BARS // 2
        parts.append(
            Note(text=f"Of {len(shown)} labels, the {half} most common and the {half} rarest.")
        )
        shown = [*shown[:half], *shown[-half:]]
    bars = [
        {
            "type": "bar",
            "name": split,
            "x": shown,
            "y": [counts[label] for label in shown],
            "marker": {"color": _COLORS[number % len(_COLORS)]},
        }
        for number, (split, counts) in enumerate(statistics["splits"].items())
    ]
    layout = {
        "barmode": "stack",
        "xaxis": {"type": "category", "automargin": True},
        "yaxis": {"title": {"text": "examples"}},
    }
    parts.append(_plot(bars, layout))
    return parts


def _show_features(commit: Commit) -> list[Note | Table | Plot]:
    from kubeloop.reports import Note, Table

    features: Mapping[str, Mapping[str, Any]] = commit.statistics[commit.manifest.kind]
    numbers = {name: entry for name, entry in features.items() if entry["type"] == "number"}
    parts: list[Note | Table | Plot] = []
    if numbers:
        keys = ("count", "missing", "min", "max", "mean", "std")
        rows = [[name, *(entry.get(key) for key in keys)] for name, entry in numbers.items()]
        parts.append(Table(columns=["Number", *keys], rows=rows))
        parts += [_show_histogram(name, entry) for name, entry in numbers.items() if entry["count"]]
    categories = [
        [
            name,
            entry["num_distinct"],
            entry["missing"],
            ", ".join(f"{value} ({count})" for value, count in entry["most_common"].items()),
        ]
        for name, entry in features.items()
        if entry["type"] == "category"
    ]
    if categories:
        columns = ["Category", "distinct", "missing", "most common"]
        parts.append(Table(columns=columns, rows=categories))
    return parts or [Note(text="The kind describes no features.")]


def _show_histogram(name: str, entry: Mapping[str, Any]) -> Plot:
    bins = entry["histogram"]
    bars = [
        {
            "type": "bar",
            "x": [f"{start:.3g}" for start, _ in bins],
            "y": [count for _, count in bins],
            "marker": {"color": _COLORS[0]},
        }
    ]
    layout = {
        "xaxis": {"type": "category", "title": {"text": f"{name}, from"}},
        "yaxis": {"title": {"text": "examples"}},
        "bargap": 0.05,
    }
    return _plot(bars, layout, height=280)


def _show_sample(commit: Commit) -> Table:
    from kubeloop.reports import Table

    rows = [{k: v for k, v in row.items() if k != "digest"} for row in commit.manifest.sample]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return Table(columns=columns, rows=[[row.get(name) for name in columns] for row in rows])


def _show_rejected(commit: Commit) -> Section:
    from kubeloop.reports import Section, Table

    rejected = commit.record.rejected
    table = Table(
        columns=["Path", "Reason"],
        rows=[[entry.path, entry.reason] for entry in rejected[:_MAX_REJECTED]],
        caption=f"The first {min(len(rejected), _MAX_REJECTED)} of {commit.num_rejected}.",
    )
    return Section(heading="Left out", parts=[table])


def _plot(data: list[dict[str, Any]], layout: Mapping[str, Any], *, height: int = 420) -> Plot:
    from kubeloop.reports import Plot

    margin = {"l": 60, "r": 20, "t": 20, "b": 80}
    return Plot(figure={"data": data, "layout": {"margin": margin, **layout}}, height_pixels=height)
