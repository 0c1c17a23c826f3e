from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from kubeloop.errors import TransientError
from kubeloop.pipelines.metadata import NativeMetadata
from kubeloop.testing.metadata_contract import MetadataContract, ReadRecord
from kubeloop.testing.native_record import TOKEN, serving_native
from kubeloop.testing.recorded_runs import GivenRun


class TestNativeMetadata(MetadataContract):
    @pytest.fixture
    def read(self, tmp_path: Path) -> Iterator[ReadRecord]:
        with ExitStack() as stack:

            def read(runs: Sequence[GivenRun]) -> NativeMetadata:
                url = stack.enter_context(serving_native(tmp_path, runs))
                return stack.enter_context(NativeMetadata(url, token=TOKEN))

            yield read

    def test_embedded_plane_serves_its_record(self, read: ReadRecord) -> None:
        source = read([])

        assert isinstance(source, NativeMetadata)
        assert source.is_served()


def test_api_that_does_not_answer_may_answer_later() -> None:
    with (
        NativeMetadata("http://127.0.0.1:9") as source,
        pytest.raises(TransientError, match="Failed to read runs/x from the KFP API"),
    ):
        source.get_run("x")
