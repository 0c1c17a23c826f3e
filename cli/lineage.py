"""`kubeloop lineage`: where an endpoint comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
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
from rich.text import Text
from rich.tree import Tree

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
    console.print(render_chain(chain), soft_wrap=True)


def trace(session: Session, endpoint: str) -> list[LineageNode]:
    """The chain behind an endpoint."""
    from kubeloop.pipelines.lineage import trace_endpoint

    return trace_endpoint(find_endpoint(session, endpoint), session.connect_metadata())


def render_chain(chain: list[LineageNode]) -> Tree:
    """The chain as a tree, each link below what was made from it."""
    root = branch = Tree(_label(chain[0]))
    for node in chain[1:]:
        branch = branch.add(_label(node))
    return root


def _label(node: LineageNode) -> Text:
    label = Text.assemble((node.kind.replace("_", " "), "bold"), "  ", node.id)
    if node.digest:
        label.append(f"  {node.digest[:19]}", "cyan")
    if node.uri:
        label.append(f"\n{node.uri}", "dim")
    return label
