from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from kubeloop.local.kubelet.warm_parent import WarmConfig
from kubeloop.testing.processes import Machine, start_machine

_SAME_ON_BOTH_SETS = (
    "datasets/", "katib/report/", "local/kubelet/", "local/operators/", "reports/"
)  # fmt: skip
"""What these show depends on packages whose versions are the same in both sets of constraints."""
_DIFFERENT = (
    "datasets/test_cache.py",  # urllib3, below the client of S3
    "datasets/test_remote_sources.py",
    "datasets/test_stores.py",
    "local/kubelet/test_lightweight.py",  # the KFP and Kubeflow SDKs
    "local/kubelet/test_pods_warm.py",
    "local/kubelet/test_torch.py",
    "local/operators/katib/test_db_manager.py",  # gRPC and protobuf
    "local/operators/katib/test_endpoints.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Run once what cannot differ between the sets of packages."""
    root = Path(__file__).parent
    for item in items:
        path = item.path.relative_to(root).as_posix()
        if path.startswith(_SAME_ON_BOTH_SETS) and path not in _DIFFERENT:
            item.add_marker(pytest.mark.pinned)


@pytest.fixture(scope="session")
def shared_torch_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with start_machine(tmp_path_factory.mktemp("torch"), WarmConfig()) as machine:
        yield machine


@pytest.fixture
def torch_machine(shared_torch_machine: Machine) -> Iterator[Machine]:
    """A warm parent with torch, NumPy and the Kubeflow SDKs."""
    yield shared_torch_machine
    shared_torch_machine.clear()
