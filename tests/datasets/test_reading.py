import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kubeloop import datasets
from kubeloop.datasets import Commit, IngestConfig, ingest, open_dataset
from kubeloop.datasets.shards.tar import TarMember, find_members, read_member, render_member
from kubeloop.errors import InputError, IntegrityError
from kubeloop.testing.image_folders import write_image_folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_image_folder(tmp_path / "source", {"cat": 10, "dog": 20}, grey=False)


@pytest.fixture
def commit(source: Path, tmp_path: Path) -> Commit:
    return ingest(IngestConfig(name="pets", source=str(source), store=str(tmp_path / "store")))


def test_every_file_is_an_example_of_one_split(commit: Commit, source: Path) -> None:
    dataset = open_dataset(commit.uri)

    rows = [row for split in ("train", "validation", "test") for row in dataset.split(split)]

    assert len(rows) == 30
    assert {row.path: row.data for row in rows} == {
        path.relative_to(source).as_posix(): path.read_bytes() for path in source.rglob("*.png")
    }
    assert all(row.path.startswith(f"{row.label}/") for row in rows)
    assert all(dataset.labels[row.class_index] == row.label for row in rows)


def test_images_are_the_files_pixels(commit: Commit, source: Path) -> None:
    example = open_dataset(commit.uri).split("train").image(3)

    expected = np.asarray(Image.open(source / example.path))
    assert example.image.shape == (8, 8, 3)
    assert np.array_equal(example.image, expected)


def test_indices_work_as_in_a_list(commit: Commit) -> None:
    split = open_dataset(commit.uri).split("train")

    assert split[-1] == split[len(split) - 1]
    assert [split[index] for index in (5, 0, 19)] == [list(split)[index] for index in (5, 0, 19)]
    with pytest.raises(IndexError, match="Example 20 of 20"):
        split[20]


def test_the_short_name_opens_the_same_commit(commit: Commit) -> None:
    assert datasets.open(commit.uri).commit == commit


def test_grey_folders_have_one_channel(tmp_path: Path, commit: Commit) -> None:
    folder = write_image_folder(tmp_path / "grey", {"a": 4, "b": 4})
    grey = ingest(IngestConfig(name="grey", source=str(folder), store=str(tmp_path / "store")))

    assert open_dataset(grey.uri).channels == 1
    assert open_dataset(commit.uri).channels == 3


def test_a_damaged_shard_is_noticed_on_reading(commit: Commit, tmp_path: Path) -> None:
    shard = tmp_path / "store" / "pets" / commit.manifest.splits["test"][0].key
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.write_bytes(data)
    dataset = open_dataset(commit.uri)

    with pytest.raises(IntegrityError, match="differs from its recorded sha256"):
        dataset.split("test")[0]
    assert len(list(dataset.split("train"))) == 20


def test_a_missing_shard_is_named(commit: Commit, tmp_path: Path) -> None:
    key = commit.manifest.splits["test"][0].key
    (tmp_path / "store" / "pets" / key).unlink()

    with pytest.raises(InputError, match=key):
        open_dataset(commit.uri).split("test")[0]


def test_an_unknown_split_lists_the_known_ones(commit: Commit) -> None:
    with pytest.raises(InputError, match="No split 'dev'; the commit has"):
        open_dataset(commit.uri).split("dev")


def test_shards_are_plain_tar_files_in_webdataset_form(commit: Commit, tmp_path: Path) -> None:
    shard = commit.manifest.splits["train"][0]
    with tarfile.open(tmp_path / "store" / "pets" / shard.key) as archive:
        names = archive.getnames()
        facts = archive.extractfile("000000000.json")
        assert facts is not None
        first = json.load(facts)

    assert names[:4] == ["000000000.png", "000000000.json", "000000001.png", "000000001.json"]
    assert len(names) == 2 * shard.num_rows
    assert first.keys() == {"label", "path"}


def render(members: list[TarMember]) -> bytes:
    blocks = (block for i, member in enumerate(members) for block in render_member(member, i))
    return b"".join(blocks) + bytes(1024)


def test_packing_and_unpacking_are_inverse() -> None:
    members = [
        TarMember(
            data=b"x" * size,
            extension=".png",
            label="ä",
            path=f"ä/{size}.PNG",
            metadata={"n": size},
        )
        for size in (0, 1, 511, 512, 513, 3000)
    ]

    data = render(members)

    view = memoryview(data)
    assert [read_member(view, place) for place in find_members(view)] == members
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert len(archive.getmembers()) == 2 * len(members)


@pytest.mark.parametrize("cut", [0, 100])
def test_a_shard_that_was_cut_is_noticed(cut: int) -> None:
    member = TarMember(data=b"x", extension=".png", label="a", path="a/b.png", metadata={})
    data = render([member])

    with pytest.raises(IntegrityError, match="ends without"):
        find_members(memoryview(data)[: -1024 - cut])
