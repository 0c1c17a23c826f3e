"""`kubeloop lineage`: where an endpoint comes from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from kubeloop.cli.endpoints import find_endpoint
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

if TYPE_CHECKING:
    from kubeloop.pipelines.lineage import LineageNode


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(lineage)


def lineage(
    endpoint: Annotated[str, typer.Argument(help="Endpoint to trace.", show_default=False)],
    *,
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    namespace: NamespaceOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Print the chain endpoint, model, training job, best trial, dataset commit, source.

    Example:
        kubeloop lineage digits
    """
    chain = trace(Session.open(state, context=context, namespace=namespace), endpoint)
    if output is Output.JSON:
        print_json([node.to_json() for node in chain])
        return
    print_chain(chain)


def trace(session: Session, endpoint: str) -> list[LineageNode]:
    """The chain behind an endpoint."""
    from kubeloop.pipelines.lineage import trace_endpoint

    return trace_endpoint(find_endpoint(session, endpoint), session.connect_metadata())


def print_chain(chain: list[LineageNode]) -> None:
    """Print the chain as a tree, each link below what was made from it."""
    for depth, node in enumerate(chain):
        indent = "    " * depth
        branch = f"{indent[4:]}└── " if depth else ""
        digest = f"  {node.digest[:19]}" if node.digest else ""
        label = Text.assemble(
            branch, (node.kind.replace("_", " "), "bold"), f"  {_short(node.id)}", (digest, "cyan")
        )
        console.print(label, soft_wrap=True)
        if node.uri:
            console.print(Text(f"{indent}{node.uri}", "dim"), soft_wrap=True)


def _short(identifier: str) -> str:
    """Cut hashes to twelve digits."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", identifier)
