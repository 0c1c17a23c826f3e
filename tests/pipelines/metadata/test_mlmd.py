from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pytest

from kubeloop.errors import TransientError
from kubeloop.pipelines.metadata.mlmd import MlmdMetadata
from kubeloop.testing.metadata_contract import RUN, MetadataContract, ReadRecord, small_run
from kubeloop.testing.mlmd_server import KfpWriter, MlmdStore, serving_mlmd
from kubeloop.testing.recorded_runs import GivenRun, digits_run


class TestMlmdMetadata(MetadataContract):
    @pytest.fixture
    def store(self) -> MlmdStore:
        return MlmdStore()

    @pytest.fixture
    def read(self, store: MlmdStore) -> Iterator[ReadRecord]:
        with ExitStack() as stack:

            def read(runs: Sequence[GivenRun]) -> MlmdMetadata:
                KfpWriter(store).write(runs)
                address = stack.enter_context(serving_mlmd(store))
                return stack.enter_context(MlmdMetadata(address))

            yield read

    def test_run_of_an_execution_is_found_without_a_call_for_each(
        self, read: ReadRecord, store: MlmdStore
    ) -> None:
        source = read([digits_run(number) for number in range(1, 101)])
        artifacts = source.search_artifacts("datasets")
        store.num_calls = 0

        uses = source.list_uses([artifact.artifact_id for artifact in artifacts])

        assert len({use.run_id for use in uses}) == 100
        assert store.num_calls < 10

    def test_run_of_an_execution_whose_root_is_gone_is_read_from_its_context(
        self, read: ReadRecord, store: MlmdStore
    ) -> None:
        source = read([small_run()])
        step = next(e for e in store.executions.values() if e.type != "system.DAGExecution")
        for number in [n for n, e in store.executions.items() if e.type == "system.DAGExecution"]:
            del store.executions[number]

        assert source.get_task(str(step.id)).run_id == RUN

    def test_run_that_goes_on_has_no_end(self, read: ReadRecord, store: MlmdStore) -> None:
        source = read([small_run()])
        step = next(e for e in store.executions.values() if e.type != "system.DAGExecution")
        step.last_known_state = 2

        run = source.get_run(RUN)

        assert (run.state, run.finished_at, run.namespace) == ("RUNNING", None, "kubeflow")

    def test_what_kfp_adds_to_artifacts_is_left_out(self, read: ReadRecord) -> None:
        (found,) = read([small_run()]).find_artifacts(["s3://b/r"])

        assert found.metadata == {}
        assert found.name == "report"


def test_store_that_does_not_answer_may_answer_later() -> None:
    with (
        MlmdMetadata("127.0.0.1:9") as source,
        pytest.raises(TransientError, match=r"Failed to ask ML Metadata at 127\.0\.0\.1:9"),
    ):
        source.get_run("x")
