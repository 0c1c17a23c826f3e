"""Options that several commands share, and the session they describe."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from kubeloop.errors import InputError, MissingDependencyError, PermanentError
from kubeloop.local.state import CONTEXT, Endpoints, StateFolder

if TYPE_CHECKING:
    from kubeloop.pipelines.metadata import MetadataSource
    from kubeloop.pipelines.runs import KfpClient


class Output(StrEnum):
    """How a command prints its result."""

    TEXT = "text"
    JSON = "json"


StateOption = Annotated[
    Path,
    typer.Option(
        "--state",
        envvar="KUBELOOP_HOME",
        help="Folder of the embedded control plane.",
        show_default="~/.kubeloop",
    ),
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="Print a table or JSON.")]
ContextOption = Annotated[
    str,
    typer.Option(
        "--context",
        help="Use the cluster of this kubeconfig context instead of the embedded control plane.",
    ),
]
NamespaceOption = Annotated[
    str, typer.Option("--namespace", "-n", help="Kubernetes namespace; empty: the context's.")
]
MetadataAddressOption = Annotated[
    str,
    typer.Option(
        "--metadata-address",
        help="HOST:PORT of the cluster's ML Metadata store (metadata-grpc-service), where KFP still"
        " keeps its record there; empty: a port-forward by kubectl.",
    ),
]

DEFAULT_STATE = Path("~/.kubeloop")
_WIDE = None if sys.stdout.isatty() else 240
"""Files and pipes take whole lines."""

console = Console(highlight=False, width=_WIDE)
errors = Console(stderr=True, highlight=False)


def require(modules: Iterable[str], *, what: str, extra: str) -> None:
    """Check that the packages of an extra are installed, without importing them.

    Raises:
        MissingDependencyError: One is missing; the message says what to install.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        msg = f"{what} needs {', '.join(missing)}: pip install 'kubeloop[{extra}]'."
        raise MissingDependencyError(msg)


def print_json(value: object) -> None:
    """Print `value` as JSON on standard output."""
    print(json.dumps(value, indent=2, default=str))


@dataclass(frozen=True)
class Session:
    """What a command talks to: the embedded control plane, or a cluster when `context` is given."""

    state: StateFolder
    context: str = ""
    namespace_override: str = ""
    metadata_address: str = ""

    @classmethod
    def open(
        cls, state: Path, *, context: str = "", namespace: str = "", metadata_address: str = ""
    ) -> Session:
        folder = StateFolder(state.expanduser().resolve())
        return cls(folder, context, namespace, metadata_address)

    @cached_property
    def endpoints(self) -> Endpoints:
        """Where the embedded control plane answers.

        Raises:
            PermanentError: None runs on the state folder.
        """
        endpoints = self.state.read_endpoints() if self.state.is_running() else None
        if endpoints is None:
            msg = (
                f"No control plane runs on {self.state.root}: start one with `kubeloop up`, or name"
                " a cluster with --context."
            )
            raise PermanentError(msg)
        return endpoints

    def connect_pipelines(self) -> KfpClient:
        """A KFP client."""
        from kubeloop.pipelines.runs import connect

        if self.context:
            return connect(context=self.context)
        return connect(host=self.endpoints.kfp_url, token=self.endpoints.token)

    def connect_metadata(self) -> MetadataSource:
        """A reader of KFP's record of runs, the one that fits what the cluster has."""
        from kubeloop.pipelines.metadata import NativeMetadata, connect_cluster

        if not self.context:
            return NativeMetadata(self.endpoints.kfp_url, token=self.endpoints.token)
        return connect_cluster(
            self.kubernetes,
            context=self.context,
            namespace=self.namespace_override,
            metadata_address=self.metadata_address,
        )

    @cached_property
    def kubernetes(self) -> Any:  # Any: kubernetes.client.ApiClient has no types
        """The Kubernetes API client of the control plane or the named context.

        Raises:
            InputError: The kubeconfig has no such context.
        """
        from kubernetes import config

        try:
            if self.context:
                return config.new_client_from_config(context=self.context)
            _ = self.endpoints
            return config.new_client_from_config(
                config_file=str(self.state.kubeconfig), context=CONTEXT
            )
        except config.ConfigException as error:
            msg = f"Failed to use kubeconfig context {self.context!r}: {error}"
            raise InputError(msg) from error

    @cached_property
    def namespace(self) -> str:
        """The namespace asked for, else that of the context."""
        if self.namespace_override:
            return self.namespace_override
        if not self.context:
            return self.endpoints.namespace
        from kubernetes import config

        contexts, active = config.list_kube_config_contexts()
        named = next((c for c in contexts if c["name"] == self.context), active)
        return str(named["context"].get("namespace", "default"))
