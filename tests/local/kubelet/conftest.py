from __future__ import annotations

from collections.abc import Iterator

import pytest

from kubeloop.local.kubelet.warm_parent import WarmConfig
from kubeloop.testing.processes import Machine, start_machine

STANDARD_LIBRARY = (
    "multiprocessing.pool",
    "tempfile",
    "logging.handlers",
    "concurrent.futures.thread",
)


@pytest.fixture(scope="session")
def shared_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    config = WarmConfig(layers=(STANDARD_LIBRARY,))
    with start_machine(tmp_path_factory.mktemp("machine"), config) as machine:
        yield machine


@pytest.fixture
def machine(shared_machine: Machine) -> Iterator[Machine]:
    """A warm parent with a few modules of the standard library."""
    yield shared_machine
    shared_machine.clear()
