import pytest

from kubeloop.testing.metadata_contract import MetadataContract, ReadRecord
from kubeloop.testing.recorded_runs import MemoryMetadata


class TestMemoryMetadata(MetadataContract):
    @pytest.fixture
    def read(self) -> ReadRecord:
        return MemoryMetadata
