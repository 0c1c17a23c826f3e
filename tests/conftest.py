from __future__ import annotations

from collections.abc import Iterator

import pytest

from kubeloop.local.kubelet.warm_parent import WarmConfig
from kubeloop.testing.processes import Machine, start_machine


@pytest.fixture(scope="session")
def shared_torch_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with start_machine(tmp_path_factory.mktemp("torch"), WarmConfig()) as machine:
        yield machine


@pytest.fixture
def torch_machine(shared_torch_machine: Machine) -> Iterator[Machine]:
    """A warm parent with torch, NumPy and the Kubeflow SDKs."""
    yield shared_torch_machine
    shared_torch_machine.clear()
