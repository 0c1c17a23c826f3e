"""`kubeloop runs compare`: runs side by side."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from kubeloop.cli.options import (
    DEFAULT_STATE,
    ContextOption,
    MetadataAddressOption,
    NamespaceOption,
    Session,
    StateOption,
    console,
    print_json,
)
from kubeloop.cli.run_names import RunsArgument
from kubeloop.errors import InputError, KubeloopError

if TYPE_CHECKING:
    from kubeloop.pipelines.comparison import Comparison, Row

_NAME_WIDTH = 28
_VALUE_WIDTH = 18
_MIN_RUNS = 2
_DIGEST_LENGTH = len("sha256:") + 12
_LOCATION_LENGTH = 40  # of a path or URI, whose end tells more than its start


class CompareOutput(StrEnum):
    """How a comparison is printed."""

    TEXT = "text"
    JSON = "json"
    HTML = "html"


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command()(compare)


def compare(
    runs: RunsArgument,
    *,
    different: Annotated[
        bool, typer.Option("--different", "-d", help="Show only what differs.")
    ] = False,
    save: Annotated[
        Path | None, typer.Option(help="With --output html: the file to write.")
    ] = None,
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    namespace: NamespaceOption = "",
    metadata_address: MetadataAddressOption = "",
    output: Annotated[
        CompareOutput, typer.Option("--output", "-o", help="Print tables or JSON, or write a page.")
    ] = CompareOutput.TEXT,
) -> None:
    """Put runs side by side: parameters, metrics, outputs, artifacts, states and durations.

    What differs is marked with ≠.

    Examples:
        kubeloop runs compare 0f3c 71d0

        kubeloop runs compare 0f3c 71d0 9a1e --different

        kubeloop runs compare 0f3c 71d0 --output html --save comparison.html
    """
    if len(runs) < _MIN_RUNS:
        raise InputError("Give two runs or more to compare.")
    if (save is not None) != (output is CompareOutput.HTML):
        raise InputError("--output html and --save FILE go together.")
    session = Session.open(
        state, context=context, namespace=namespace, metadata_address=metadata_address
    )
    comparison = gather(session, runs)
    if output is CompareOutput.JSON:
        print_json(describe(comparison))
    elif save is not None:
        write_page(comparison, save)
        console.print(f"{save}", soft_wrap=True)
    else:
        show(comparison, only_different=different)


def gather(session: Session, names: list[str]) -> Comparison:
    """Read runs and their records; without the record, what the runs themselves tell."""
    from kubeloop.pipelines.comparison import compare_runs
    from kubeloop.pipelines.run_control import find_run
    from kubeloop.pipelines.runs import get_run

    client = session.connect_pipelines()
    found = [
        get_run(client, run_id) for run_id in dict.fromkeys(find_run(client, n) for n in names)
    ]
    if len(found) < _MIN_RUNS:
        raise InputError("These are one and the same run; give two or more to compare.")
    try:
        with session.connect_metadata() as metadata:
            records = {run.run_id: metadata.list_tasks(run.run_id) for run in found}
    except KubeloopError as error:
        note = f"Metrics, outputs and artifacts cannot be read: {error}"
        return compare_runs(found, {}, notes=[note])
    return compare_runs(found, records)


def describe(comparison: Comparison) -> dict[str, Any]:
    """A comparison as JSON."""
    return {
        "runs": [asdict(run) for run in comparison.runs],
        **{
            heading: [
                {"name": row.name, "values": list(row.values), "differs": row.differs}
                for row in rows
            ]
            for heading, rows in comparison.sections.items()
        },
        "classifications": [asdict(found) for found in comparison.classifications],
        "notes": list(comparison.notes),
    }


def write_page(comparison: Comparison, path: Path) -> None:
    """Write a comparison as an HTML page.

    Raises:
        InputError: The file cannot be written.
    """
    from kubeloop.pipelines.comparison_report import build_comparison_page
    from kubeloop.reports import render_page

    page = render_page(build_comparison_page(comparison))
    try:
        path.write_text(page)
    except OSError as error:
        raise InputError(f"Failed to write {path}: {error.strerror}.") from error


def show(comparison: Comparison, *, only_different: bool) -> None:
    """Print a comparison: as tables, or one value a line where the terminal is too narrow."""
    from kubeloop.pipelines.comparison_report import label_runs

    labels = label_runs(comparison)
    runs = Table(box=None, pad_edge=False)
    for column in ("RUN", "NAME", "STATE", "STARTED", "SECONDS"):
        runs.add_column(column, no_wrap=column == "RUN")
    for label, run in zip(labels, comparison.runs, strict=True):
        started = f"{run.created_at:%Y-%m-%d %H:%M:%S}" if run.created_at else ""
        runs.add_row(
            label, run.name, run.state, started, "" if run.seconds is None else f"{run.seconds:.1f}"
        )
    console.print(runs)
    is_wide = console.width >= _NAME_WIDTH + _VALUE_WIDTH * len(labels)
    for heading, rows in comparison.sections.items():
        chosen = [row for row in rows if row.differs or not only_different]
        if chosen:
            console.print(f"\n[bold]{heading.capitalize()}[/bold]")
            console.print(render(chosen, labels) if is_wide else stack(chosen, labels))
    for note in comparison.notes:
        console.print(Text(note, "yellow"), soft_wrap=True)


def render(rows: list[Row], labels: list[str]) -> Table:
    """Rows as a table, one column a run."""
    table = Table("", "", *labels, box=None, pad_edge=False)
    for row in rows:
        cells = [Text(shorten(value), overflow="fold") for value in row.values]
        table.add_row(mark(row), row.name, *cells, style="yellow" if row.differs else "")
    return table


def stack(rows: list[Row], labels: list[str]) -> Table:
    """Rows one below the other, one line a run."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for row in rows:
        style = "yellow" if row.differs else ""
        table.add_row(mark(row), Text(row.name, overflow="fold"), style=style)
        for label, value in zip(labels, row.values, strict=True):
            table.add_row("", Text(f"  {label}  {shorten(value)}", overflow="fold"), style=style)
    return table


def mark(row: Row) -> str:
    """The sign of a row that differs."""
    return "≠" if row.differs else ""


def shorten(value: Any) -> str:  # Any: JSON
    """A value for a cell."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict | list):
        return json.dumps(value)
    text = str(value)
    if text.startswith("sha256:"):
        return text[:_DIGEST_LENGTH]
    is_location = "/" in text and len(text) > _LOCATION_LENGTH
    return f"…{text[1 - _LOCATION_LENGTH :]}" if is_location else text
