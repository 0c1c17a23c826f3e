"""What every kind of dataset must do; subclass `KindContract` and give it the fixtures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from kubeloop.datasets import IngestConfig, ingest
from kubeloop.datasets.commits import dataset_of
from kubeloop.datasets.findings import ScanLog
from kubeloop.datasets.kinds import DatasetKind, ScanOptions
from kubeloop.datasets.rewriting import rescan
from kubeloop.datasets.shards.base import (
    DIGEST,
    LABEL,
    SCAN_COLUMNS,
    SIZE,
    SPLIT,
    ShardFormat,
    list_digests,
)
from kubeloop.datasets.sources import open_source
from kubeloop.datasets.splits import TEST, TRAIN, VALIDATION
from kubeloop.datasets.statistics import Statistics
from kubeloop.errors import InputError


class KindContract:
    """Tests of `DatasetKind`."""

    @pytest.fixture
    def kind(self) -> DatasetKind:
        """Return the kind."""
        raise NotImplementedError

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        """Write a source of 20 examples or more, and return it."""
        raise NotImplementedError

    def test_examples_have_what_ingestion_works_with(self, kind: DatasetKind, source: Path) -> None:
        with open_source(str(source)) as opened:
            batches = list(kind.scan(opened, options=ScanOptions(), log=ScanLog()))

        assert sum(batch.num_rows for batch in batches) >= 20
        assert len({str(batch.schema) for batch in batches}) == 1
        for batch in batches:
            assert set(SCAN_COLUMNS) <= set(batch.schema.names)
            assert {len(digest) for digest in batch.column(DIGEST).to_pylist()} == {32}
            assert min(batch.column(SIZE).to_pylist()) >= 0
            assert set(batch.column(SPLIT).to_pylist()) <= {"", TRAIN, VALIDATION, TEST}
            assert not kind.is_labelled or all(batch.column(LABEL).to_pylist())

    def test_scanning_again_gives_the_same(self, kind: DatasetKind, source: Path) -> None:
        scans = []
        for _ in range(2):
            with open_source(str(source)) as opened:
                scans.append(list(kind.scan(opened, options=ScanOptions(), log=ScanLog())))

        assert scans[0] == scans[1]

    def test_examples_are_the_same_in_their_shards(
        self, kind: DatasetKind, source: Path, tmp_path: Path
    ) -> None:
        with open_source(str(source)) as opened:
            scanned = list(kind.scan(opened, options=ScanOptions(), log=ScanLog()))
        store = str(tmp_path / "store")
        made = ingest(IngestConfig(name="a", source=str(source), store=store, kind=kind.name))

        again = list(rescan(dataset_of(made.uri), made.manifest, made.manifest.shards))

        digests = [
            Counter(digest for batch in batches for digest in list_digests(batch))
            for batches in (scanned, again)
        ]
        assert digests[0] == digests[1]

    def test_statistics_of_parts_add_up(self, kind: DatasetKind, source: Path) -> None:
        with open_source(str(source)) as opened:
            batch = next(kind.scan(opened, options=ScanOptions(), log=ScanLog()))
        whole, first, second = Statistics(), Statistics(), Statistics()

        kind.describe(batch, whole)
        kind.describe(batch.slice(0, 7), first)
        kind.describe(batch.slice(7), second)
        first.merge(second)

        assert first.render_features() == whole.render_features()
        assert Statistics.load(first.dump()) == first

    def test_the_schema_names_what_is_stored(self, kind: DatasetKind, source: Path) -> None:
        with open_source(str(source)) as opened:
            batch = next(kind.scan(opened, options=ScanOptions(), log=ScanLog()))

        schema = kind.describe_schema(batch.schema)

        assert schema
        assert not set(schema) & set(SCAN_COLUMNS)

    def test_an_empty_source_is_the_users_to_put_right(
        self, kind: DatasetKind, tmp_path: Path
    ) -> None:
        (tmp_path / "empty").mkdir()
        with open_source(str(tmp_path / "empty")) as opened, pytest.raises(InputError):
            list(kind.scan(opened, options=ScanOptions(), log=ScanLog()))


class FileKindContract(KindContract):
    """Tests of a `DatasetKind` whose examples are files."""

    def test_files_are_given_as_they_are(self, kind: DatasetKind, source: Path) -> None:
        assert kind.shard_format is ShardFormat.TAR
        with open_source(str(source)) as opened:
            batch = next(kind.scan(opened, options=ScanOptions(), log=ScanLog()))
            row = batch.to_pylist()[0]

            assert len(kind.read_example(opened, row)) == row[SIZE]
