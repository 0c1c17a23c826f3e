"""`kubeloop experiments report` and `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from kubeloop.cli.experiment_access import (
    DbManagerOption,
    ExperimentArgument,
    ExperimentsArgument,
    open_experiments,
)
from kubeloop.cli.experiment_views import render_number
from kubeloop.cli.options import (
    DEFAULT_STATE,
    ContextOption,
    NamespaceOption,
    Output,
    OutputOption,
    Session,
    StateOption,
    console,
    print_json,
)
from kubeloop.errors import InputError

if TYPE_CHECKING:
    from kubeloop.katib.comparison import ComparedRow

_MIN_EXPERIMENTS = 2


def register(group: typer.Typer) -> None:
    """Add the commands."""
    group.command()(report)
    group.command()(compare)


def report(
    experiment: ExperimentArgument,
    *,
    save: Annotated[
        Path | None,
        typer.Option(help="File to write; unset: NAME.html in this folder.", show_default=False),
    ] = None,
    db_manager: DbManagerOption = "",
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    namespace: NamespaceOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Write a search as one HTML page: history, curves, parameters, importances, trials.

    Examples:
        kubeloop experiments report 3fa9c --save search.html

        kubeloop experiments report digits --context my-cluster --db-manager localhost:6789
    """
    from kubeloop.katib.report import render_report

    session = Session.open(state, context=context, namespace=namespace)
    with open_experiments(session) as access:
        result = access.read(experiment)
        curves = access.read_curves(result, address=db_manager)
    path = save or Path(f"{result.name}.html")
    html = render_report(result, curves)
    try:
        path.write_text(html, encoding="utf-8")
    except OSError as error:
        raise InputError(f"Failed to write {str(path)!r}: {error.strerror}.") from error
    if output is Output.JSON:
        print_json({"name": result.name, "path": str(path), "problem": curves.problem})
    else:
        console.print(str(path), soft_wrap=True)


def compare(
    experiments: ExperimentsArgument,
    *,
    different: Annotated[
        bool, typer.Option("--different", "-d", help="Show only what differs.")
    ] = False,
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    namespace: NamespaceOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Put experiments side by side: settings, search spaces, outcomes, best parameters.

    What differs is marked with ≠.

    Examples:
        kubeloop experiments compare 3fa9c 77b01

        kubeloop experiments compare random-1 tpe-1 tpe-2 --different --output json
    """
    from kubeloop.katib.comparison import compare_experiments

    if len(experiments) < _MIN_EXPERIMENTS:
        raise InputError("Name at least two experiments to compare.")
    session = Session.open(state, context=context, namespace=namespace)
    with open_experiments(session) as access:
        results = [access.read(name) for name in experiments]
    rows = [row for row in compare_experiments(results) if row.differs or not different]
    names = [result.name for result in results]
    if output is Output.JSON:
        print_json({"experiments": names, "rows": [_describe(row) for row in rows]})
        return
    console.print(_render(rows, names) if rows else "Nothing differs.")


def _describe(row: ComparedRow) -> dict[str, object]:
    return {
        "section": row.section,
        "name": row.name,
        "values": list(row.values),
        "differs": row.differs,
    }


def _render(rows: list[ComparedRow], names: list[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("", "", *names):
        table.add_column(column, overflow="fold")
    section = ""
    for row in rows:
        if row.section != section:
            section = row.section
            table.add_row("", Text(section, "bold"))
        values = map(render_number, row.values)
        table.add_row(Text("≠" if row.differs else "", "yellow"), f"  {row.name}", *values)
    return table
