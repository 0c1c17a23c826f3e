"""What every `Client` does, whatever its transport. Subclass it and say how to open one.

The server behind the client starts with the namespaces default and kubeflow.
"""

from __future__ import annotations

from kubeloop.testing.client_deleting import DeletingContract
from kubeloop.testing.client_patching import PatchingContract
from kubeloop.testing.client_reading import ReadingContract
from kubeloop.testing.client_watching import WatchingContract
from kubeloop.testing.client_writing import WritingContract


class ClientContract(
    ReadingContract, WritingContract, PatchingContract, DeletingContract, WatchingContract
):
    """All parts of the contract; `open` gives a client of a fresh server."""
