import shutil
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from kubeloop.datasets import IngestConfig, SplitConfig, ingest, open_dataset, open_store
from kubeloop.datasets.housekeeping import collect_garbage, delete_dataset
from kubeloop.datasets.parts import Part, commit_parts, ingest_part
from kubeloop.errors import InputError
from kubeloop.testing.image_folders import write_image_folder


@pytest.fixture
def config(tmp_path: Path) -> IngestConfig:
    source = write_image_folder(tmp_path / "source", {"cat": 30, "dog": 20, "emu": 10})
    return IngestConfig(name="pets", source=str(source), store=str(tmp_path / "store"))


def test_parts_in_any_order_make_one_commit_of_all(config: IngestConfig, tmp_path: Path) -> None:
    uris = [ingest_part(config, Part(number=number, count=3)) for number in (2, 0, 1)]
    assert not (tmp_path / "store" / "pets" / "commits").exists()

    made = commit_parts(uris, message="all")

    assert made.statistics["labels"] == {"cat": 30, "dog": 20, "emu": 10}
    dataset = open_dataset(made.uri)
    paths = {row.path for split in dataset.splits for row in dataset.split(split)}
    assert len(paths) == 60
    assert not list(open_store(f"{config.store}/pets").list("parts"))


def test_the_commit_does_not_depend_on_who_did_what(config: IngestConfig, tmp_path: Path) -> None:
    first = commit_parts([ingest_part(config, Part(number=n, count=2)) for n in (0, 1)])
    again = commit_parts([ingest_part(config, Part(number=n, count=2)) for n in (1, 0)])

    assert (again.version_hash, again.is_new) == (first.version_hash, False)


def test_examples_are_in_the_splits_of_a_whole_ingestion(config: IngestConfig) -> None:
    apart = commit_parts([ingest_part(config, Part(number=n, count=4)) for n in range(4)])
    whole = ingest(
        IngestConfig(
            name="whole",
            source=config.source,
            store=config.store,
            splits=SplitConfig(exact_below=0),
        )
    )

    for split in ("train", "validation", "test"):
        rows = [open_dataset(commit.uri).split(split) for commit in (apart, whole)]
        assert {row.path for row in rows[0]} == {row.path for row in rows[1]}


def test_folders_of_splits_are_known_to_every_part(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_image_folder(tmp_path / "source" / split, {"cat": 10, "dog": 10})
    config = IngestConfig(
        name="pets", source=str(tmp_path / "source"), store=str(tmp_path / "store")
    )

    made = commit_parts([ingest_part(config, Part(number=n, count=4)) for n in range(4)])

    assert made.statistics["splits"] == {
        "train": {"cat": 10, "dog": 10},
        "validation": {"cat": 10, "dog": 10},
    }


def test_a_missing_part_is_refused(config: IngestConfig) -> None:
    uris = [ingest_part(config, Part(number=number, count=3)) for number in (0, 2)]

    with pytest.raises(InputError, match="must all be there, once: there are 0, 2"):
        commit_parts(uris)


def test_parts_of_different_states_are_refused(config: IngestConfig) -> None:
    first = ingest_part(config, Part(number=0, count=2))
    shutil.rmtree(Path(config.source) / "emu")
    second = ingest_part(config, Part(number=1, count=2))

    with pytest.raises(InputError, match="not of one state of one source"):
        commit_parts([first, second])


def test_shards_of_a_waiting_part_are_no_garbage(config: IngestConfig) -> None:
    uris = [ingest_part(config, Part(number=number, count=2)) for number in range(2)]

    assert collect_garbage(open_store(f"{config.store}/pets")).keys == []
    assert commit_parts(uris).num_examples == 60


def test_a_part_without_files_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "one.csv"
    source.write_text("text,label\na,b\n")
    config = IngestConfig(name="one", source=str(source), store=str(tmp_path / "store"))

    with pytest.raises(InputError, match=r"Part 1 of 2 .* has no files; use fewer parts"):
        ingest_part(config, Part(number=1, count=2))


def test_committing_again_is_the_same_commit(config: IngestConfig) -> None:
    """As a step does that was ended right after its commit."""
    uris = [ingest_part(config, Part(number=number, count=2)) for number in range(2)]
    made = commit_parts(uris)

    again = commit_parts(uris[::-1])

    assert (again.version_hash, again.is_new) == (made.version_hash, False)


def test_no_parts_are_refused() -> None:
    with pytest.raises(InputError, match="no parts to commit"):
        commit_parts([])


def test_parts_that_nobody_committed_are_garbage_after_a_week(config: IngestConfig) -> None:
    ingest_part(config, Part(number=0, count=2))
    dataset = open_store(f"{config.store}/pets")

    freed = collect_garbage(dataset, now=lambda: time.time() + 8 * 86_400)

    assert freed.num_shards > 0
    assert list(dataset.list()) == []


def test_a_dataset_is_deleted_with_its_waiting_parts(config: IngestConfig) -> None:
    ingest(config)
    ingest_part(config, Part(number=0, count=2))
    dataset = open_store(f"{config.store}/pets")

    delete_dataset(dataset)

    assert list(dataset.list()) == []


def test_every_part_finds_its_images_in_the_manifest_of_all(tmp_path: Path) -> None:
    source = write_image_folder(tmp_path / "source", {"cat": 20, "dog": 20})
    images = sorted(source.rglob("*.png"))
    rows = [f"{path.relative_to(source)},a {path.parent.name}" for path in images]
    (source / "a_manifest.csv").write_text("\n".join(["path,label", *rows]))
    config = IngestConfig(name="pets", source=str(source), store=str(tmp_path / "store"))

    made = commit_parts([ingest_part(config, Part(number=n, count=3)) for n in range(3)])

    dataset = open_dataset(made.uri)
    paths = [row.path for split in dataset.splits for row in dataset.split(split)]
    assert sorted(paths) == [row.partition(",")[0] for row in rows]
    assert made.labels == ("a cat", "a dog")


def test_a_manifest_that_names_no_file_is_refused_by_one_part(tmp_path: Path) -> None:
    source = write_image_folder(tmp_path / "source", {"cat": 20, "dog": 20})
    (source / "a_manifest.csv").write_text("path,label\ngone.png,cat\ncat/000.png,cat\n")
    config = IngestConfig(name="pets", source=str(source), store=str(tmp_path / "store"))

    with pytest.raises(InputError, match=r"there is no file 'gone\.png' in the source"):
        ingest_part(config, Part(number=0, count=3))
    ingest_part(config, Part(number=2, count=3))


def write_texts(path: Path, *, count: int) -> None:
    lines = [f"{path.stem} {n},{'ab'[n % 2]}" for n in range(count)]
    path.write_text("\n".join(["text,label", *lines]))


def test_the_name_of_a_table_declares_its_split_also_where_it_is_alone_in_a_part(
    tmp_path: Path,
) -> None:
    (tmp_path / "source").mkdir()
    write_texts(tmp_path / "source" / "test.csv", count=40)
    write_texts(tmp_path / "source" / "train.csv", count=20)
    config = IngestConfig(
        name="texts",
        source=str(tmp_path / "source"),
        store=str(tmp_path / "store"),
        kind="text_classification",
    )

    made = commit_parts([ingest_part(config, Part(number=n, count=2)) for n in range(2)])

    assert made.statistics["num_examples"] == {"train": 20, "test": 40}


def test_a_part_of_files_that_are_no_examples_is_empty(config: IngestConfig) -> None:
    whole = ingest(replace(config, splits=SplitConfig(exact_below=0)))
    notes = Path(config.source) / "a_notes"
    notes.mkdir()
    for number in range(9):
        (notes / f"{number}.txt").write_text("no image" * 4000)
    (Path(config.source) / "README.md").write_text("no image")

    made = commit_parts([ingest_part(config, Part(number=n, count=4)) for n in range(4)])

    assert made.labels == whole.labels
    assert made.statistics == whole.statistics
    assert made.num_rejected == 10


def test_images_that_no_manifest_names_are_an_empty_part(tmp_path: Path) -> None:
    source = write_image_folder(tmp_path / "source", {"cat": 20, "dog": 20})
    (source / "a_manifest.csv").write_text("path,label\ncat/000.png,cat\ncat/001.png,dog\n")
    config = IngestConfig(name="pets", source=str(source), store=str(tmp_path / "store"))

    made = commit_parts([ingest_part(config, Part(number=n, count=3)) for n in range(3)])

    assert made.num_examples == 2


def test_a_cache_of_another_library_is_an_empty_part(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    table = pa.table({"text": [f"cached {n}" for n in range(99)], "label": ["a", "b", "a"] * 33})
    with pa.ipc.new_stream(str(source / "cache.arrow"), table.schema) as stream:
        stream.write_table(table)
    (source / "state.json").write_text('{"_data_files": []}')
    write_texts(source / "train.csv", count=20)
    config = IngestConfig(
        name="texts", source=str(source), store=str(tmp_path / "store"), kind="text_classification"
    )

    made = commit_parts([ingest_part(config, Part(number=n, count=2)) for n in range(2)])

    assert made.num_examples == 20


@pytest.mark.parametrize("kind", ["image_classification", "text_classification", "tabular"])
def test_a_source_of_empty_parts_is_refused(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(4):
        (source / f"{number}.txt").write_text("no image and no table")
    config = IngestConfig(name="none", source=str(source), store=str(tmp_path / "store"), kind=kind)
    uris = [ingest_part(config, Part(number=n, count=2)) for n in range(2)]

    with pytest.raises(InputError, match=r"has no examples \(0\.txt: not "):
        commit_parts(uris)

    assert not list(open_store(f"{config.store}/none").list("commits"))
