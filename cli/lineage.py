"""`kubeloop lineage`: where something comes from, and what came of it."""

from __future__ import annotations

import json
import os
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from kubeloop.cli.endpoints import list_endpoints
from kubeloop.cli.options import (
    DEFAULT_STATE,
    ContextOption,
    MetadataAddressOption,
    NamespaceOption,
    Session,
    StateOption,
    console,
    errors,
)
from kubeloop.errors import InputError

if TYPE_CHECKING:
    from kubeloop.kserve.endpoints import Endpoint
    from kubeloop.pipelines.lineage import LineageGraph

_DIGEST_LENGTH = len("sha256:") + 12


class LineageOutput(StrEnum):
    """How lineage is shown."""

    TEXT = "text"
    JSON = "json"
    MERMAID = "mermaid"
    HTML = "html"
    OPENLINEAGE = "openlineage"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(lineage)


def lineage(
    target: Annotated[
        str,
        typer.Argument(
            help="An endpoint, a run id, a task (id or RUN/NAME), a dataset commit (NAME@HASH), a"
            " model (NAME/DIGEST), an artifact's URI or id; or KIND:VALUE.",
            show_default=False,
        ),
    ],
    *,
    forward: Annotated[
        bool, typer.Option("--forward", "-f", help="Show what came of it, not where it comes from.")
    ] = False,
    depth: Annotated[int, typer.Option(help="Links to follow from the target.", min=0)] = 50,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Compute the digests of data, models and artifacts again; exit code 1 where one"
            " no longer matches its record.",
        ),
    ] = False,
    save: Annotated[
        Path | None, typer.Option(help="Write to this file instead of standard output.")
    ] = None,
    send: Annotated[
        str,
        typer.Option(
            help="With --output openlineage: also post the events to this OpenLineage server, with"
            " OPENLINEAGE_API_KEY as the token if it is set."
        ),
    ] = "",
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    namespace: NamespaceOption = "",
    metadata_address: MetadataAddressOption = "",
    output: Annotated[
        LineageOutput,
        typer.Option(
            "--output",
            "-o",
            help="A tree, JSON, a Mermaid flowchart, an interactive HTML page, or"
            " OpenLineage events of a run.",
        ),
    ] = LineageOutput.TEXT,
) -> None:
    """Print what something was made from, or with --forward what was made from it.

    On a cluster (--context) the record is KFP's own API where it has one (after 2.17), else its ML
    Metadata store: reached by a port-forward that kubectl keeps open while the command runs, or at
    --metadata-address.

    Examples:
        kubeloop lineage digits

        kubeloop lineage digits@3f2a91c07b44 --forward

        kubeloop lineage digits --verify

        kubeloop lineage s3://bucket/table.csv --output html --save lineage.html
    """
    if send and output is not LineageOutput.OPENLINEAGE:
        msg = "--send goes with --output openlineage."
        raise InputError(msg)
    session = Session.open(
        state, context=context, namespace=namespace, metadata_address=metadata_address
    )
    if output is LineageOutput.OPENLINEAGE:
        export(session, target, save=save, url=send)
        return
    graph = trace(session, target, forward=forward, depth=depth)
    if output is LineageOutput.TEXT and save is None:
        print_tree(graph)
    else:
        write(render(graph, output), save)
    if verify and not print_checks(graph):
        raise typer.Exit(1)


def export(session: Session, target: str, *, save: Path | None, url: str) -> None:
    """Write the OpenLineage events of a run, and send them where the user asks for it."""
    from kubeloop.pipelines.lineage import find_target
    from kubeloop.pipelines.lineage.openlineage import build_events, render_lines, send

    with session.connect_metadata() as source:
        found = find_target(target, source, endpoints=find_endpoints(session))
        if found.run is None:
            msg = f"OpenLineage events are of a run, and {target!r} is none; give a run id."
            raise InputError(msg)
        events = build_events(source, found.run.run_id, namespace=session.namespace)
    write(render_lines(events), save)
    if url:
        send(events, url, token=os.environ.get("OPENLINEAGE_API_KEY", ""))
        errors.print(f"Sent {len(events)} events to {url}.", soft_wrap=True)


def write(text: str, file: Path | None) -> None:
    """Write to the file, or print."""
    if file is None:
        print(text)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n")
    errors.print(f"Written: {file}", soft_wrap=True)


def render(graph: LineageGraph, output: LineageOutput) -> str:
    """The graph in a form for files."""
    from kubeloop.pipelines.lineage.text import render_mermaid, render_tree

    if output is LineageOutput.MERMAID:
        return render_mermaid(graph)
    if output is LineageOutput.HTML:
        from kubeloop.pipelines.lineage.html import render_html

        return render_html(graph)
    if output is LineageOutput.JSON:
        return json.dumps(graph.to_json(), indent=2, default=str)
    return render_tree(graph)


def print_checks(graph: LineageGraph) -> bool:
    """Verify everything, and say on standard error what came of it; True where all is as it was."""
    from kubeloop.pipelines.lineage.text import name_of
    from kubeloop.pipelines.lineage.verification import Check, Outcome, verify

    styles = {Outcome.INTACT: "green", Outcome.CHANGED: "red", Outcome.UNCHECKED: "yellow"}

    def show(check: Check) -> None:
        what = f"  {check.node.kind.replace('_', ' ')} {name_of(check.node)}"
        reason = f": {check.reason}" if check.reason else ""
        errors.print(
            Text.assemble((check.outcome, styles[check.outcome]), what, reason), soft_wrap=True
        )

    checks = verify(graph, on_check=show)
    counts = Counter(check.outcome for check in checks)
    errors.print(", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome))
    return not counts[Outcome.CHANGED]


def print_tree(graph: LineageGraph) -> None:
    """Print what led to the target, or what it led to, each node below the one it is linked to."""
    from kubeloop.pipelines.lineage.text import build_tree, label_of, summarize

    for line in build_tree(graph):
        node, repeated = line.node, "  (see above)" if line.is_repeated else ""
        digest = f"  {node.digest[:_DIGEST_LENGTH]}" if node.digest else ""
        kind = (node.kind.replace("_", " "), "bold")
        console.print(
            Text.assemble(line.branch, kind, f"  {label_of(node)}", (digest, "cyan"), repeated),
            soft_wrap=True,
        )
        for text, style in ((node.uri, "dim"), (node.note, "yellow")):
            if text and not line.is_repeated:
                console.print(Text.assemble(line.indent, (text, style)), soft_wrap=True)
    console.print(Text(summarize(graph), "dim"))
    if graph.cut:
        console.print(Text(f"Not all: {graph.cut}.", "yellow"))


def trace(session: Session, target: str, *, forward: bool = False, depth: int = 50) -> LineageGraph:
    """The lineage of what the user named."""
    from kubeloop.pipelines.lineage import Direction, TraceLimits, find_target
    from kubeloop.pipelines.lineage import trace as trace_target

    endpoints = find_endpoints(session)
    with session.connect_metadata() as source:
        return trace_target(
            find_target(target, source, endpoints=endpoints),
            source,
            direction=Direction.FORWARD if forward else Direction.BACKWARD,
            endpoints=endpoints,
            limits=TraceLimits(max_depth=depth),
        )


def find_endpoints(session: Session) -> list[Endpoint]:
    """The endpoints that there are; none, said aloud, where KServe is missing or not to be read."""
    from kubernetes.client import ApiException

    try:
        return list_endpoints(session)
    except ApiException as error:
        if error.status not in (403, 404):
            raise
        errors.print(f"Endpoints are left out: {error.reason}.")
        return []
