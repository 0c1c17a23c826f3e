"""How the commands of `kubeloop experiments` reach Katib, and how a user names an experiment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kubeloop.cli.options import Session
from kubeloop.errors import KubeloopError
from kubeloop.local.state import CONTEXT

if TYPE_CHECKING:
    from kubeloop.katib.report import Curves
    from kubeloop.katib.results import ExperimentResult


def complete_experiment(ctx: Any, incomplete: str) -> list[str]:  # Any: click's Context
    """Names of experiments."""
    from kubeloop.katib.summaries import summarize_experiments

    try:
        session = Session.open(
            Path(ctx.params.get("state") or "~/.kubeloop"), context=ctx.params.get("context") or ""
        )
        with open_experiments(session) as access:
            found = summarize_experiments(access.client, namespace=session.namespace)
    except KubeloopError:
        return []  # a shell's completion has nowhere to say why
    return [summary.name for summary in found if incomplete in summary.name]


ExperimentArgument = Annotated[
    str,
    typer.Argument(
        help="Name of an experiment, or a part of it.",
        show_default=False,
        autocompletion=complete_experiment,
    ),
]
ExperimentsArgument = Annotated[
    list[str],
    typer.Argument(
        help="Names of experiments, or parts of them.",
        show_default=False,
        autocompletion=complete_experiment,
    ),
]
DbManagerOption = Annotated[
    str,
    typer.Option(
        "--db-manager",
        help="HOST:PORT of a cluster's Katib DB manager, such as a port-forward to"
        " katib-db-manager; it has the curves.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Katib, for one command."""

    client: Any  # kubeflow.katib.KatibClient, which has no types
    session: Session

    def find(self, name: str) -> str:
        """The full name of an experiment."""
        from kubeloop.katib.summaries import find_name

        return find_name(self.client, name, namespace=self.session.namespace)

    def read(self, name: str) -> ExperimentResult:
        """An experiment and its trials.

        Raises:
            InputError: There is none of that name, or several.
        """
        from kubeloop.errors import InputError
        from kubeloop.katib.results import read_results

        full_name = self.find(name)
        result = read_results(full_name, namespace=self.session.namespace, client=self.client)
        if result is None:
            raise InputError(f"Experiment {full_name} has just been deleted.")
        return result

    def read_curves(self, result: ExperimentResult, *, address: str) -> Curves:
        """What its trials reported on their way."""
        from kubeloop.katib.report import read_curves

        if not address and not self.session.context:
            address = self.session.endpoints.db_manager_address
        return read_curves(result, client=self.client, address=address)


@contextmanager
def open_experiments(session: Session) -> Iterator[Access]:
    """Katib's client of the embedded control plane or the named context."""
    from kubeloop.katib.clients import connect

    if session.context:
        client = connect(context=session.context, namespace=session.namespace)
    else:
        _ = session.endpoints
        client = connect(
            config_file=str(session.state.kubeconfig), context=CONTEXT, namespace=session.namespace
        )
    yield Access(client=client, session=session)
