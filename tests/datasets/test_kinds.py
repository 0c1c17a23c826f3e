import csv
import io
import json
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from kubeloop.datasets import (
    KINDS,
    Commit,
    DatasetKind,
    IngestConfig,
    ScanOptions,
    ingest,
    open_dataset,
    rewriting,
)
from kubeloop.datasets.kinds import images
from kubeloop.datasets.snapshots import take_snapshot
from kubeloop.errors import InputError
from kubeloop.testing.image_folders import write_image_folder
from kubeloop.testing.kind_contract import FileKindContract, KindContract

TEXTS = "text,label,note\n" + "".join(f"text {n},{'ab'[n % 2]},{n}\n" for n in range(30))


class TestImages(FileKindContract):
    @pytest.fixture
    def kind(self) -> DatasetKind:
        return KINDS["image_classification"]

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        return write_image_folder(tmp_path / "source", {"cat": 15, "dog": 15})


class TestTexts(KindContract):
    @pytest.fixture
    def kind(self) -> DatasetKind:
        return KINDS["text_classification"]

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        (tmp_path / "rows.csv").write_text(TEXTS)
        return tmp_path / "rows.csv"


class TestTables(TestTexts):
    @pytest.fixture
    def kind(self) -> DatasetKind:
        return KINDS["tabular"]


def write_manifest(folder: Path) -> Path:
    images = write_image_folder(folder / "images", {"cat": 10, "dog": 10})
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "camera", "split"])
        for path in sorted(images.rglob("*.png")):
            name = path.relative_to(folder).as_posix()
            split = "val" if path.stem in ("000", "001") else "train"
            writer.writerow([name, f"a {path.parent.name}", "north", split])
    return folder


def test_a_manifest_names_images_labels_and_more(tmp_path: Path) -> None:
    folder = write_manifest(tmp_path / "source")

    made = ingest(IngestConfig(name="m", source=str(folder), store=str(tmp_path / "store")))

    assert made.labels == ("a cat", "a dog")
    assert made.statistics["num_examples"] == {"train": 16, "validation": 4}
    image = open_dataset(made.uri).split("validation")[0]
    assert (image.path, image.label) == ("images/cat/000.png", "a cat")
    assert image.metadata == {"camera": "north"}
    assert image.data == (folder / image.path).read_bytes()
    assert made.manifest.schema["camera"] == "string"


@pytest.mark.parametrize("path", ["gone.png", "../outside.png", "/etc/passwd"])
def test_a_manifest_that_names_no_file_of_the_source_is_refused(tmp_path: Path, path: str) -> None:
    folder = write_manifest(tmp_path / "source")
    (tmp_path / "outside.png").write_bytes((folder / "images/cat/000.png").read_bytes())
    with (folder / "manifest.csv").open("a") as file:
        file.write(f"{path},a cat,north,train\n")

    with pytest.raises(InputError, match=f"manifest.csv, row 21: there is no file '{path}'"):
        ingest(IngestConfig(name="m", source=str(folder), store=str(tmp_path / "store")))


def test_images_in_a_column_are_read(tmp_path: Path) -> None:
    """As Hugging Face's library writes them to Parquet."""
    rows: list[dict[str, Any]] = []
    for number in range(20):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (number * 10, 0, 0)).save(buffer, "PNG")
        image = {"bytes": buffer.getvalue(), "path": f"{number}.png"}
        rows.append({"image": image, "label": number % 2})
    features = {
        "image": {"_type": "Image"},
        "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
    }
    table = pa.Table.from_pylist(rows).replace_schema_metadata(
        {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    )
    pq.write_table(table, tmp_path / "data.parquet")

    made = ingest(
        IngestConfig(name="m", source=str(tmp_path / "data.parquet"), store=str(tmp_path / "store"))
    )

    assert made.statistics["labels"] == {"cat": 10, "dog": 10}
    dataset = open_dataset(made.uri)
    data = {row.path: row.data for split in dataset.splits for row in dataset.split(split)}
    assert data == {row["image"]["path"]: row["image"]["bytes"] for row in rows}


def test_folders_named_after_splits_are_those_splits(tmp_path: Path) -> None:
    for split, count in (("train", 10), ("test", 4)):
        write_image_folder(tmp_path / "source" / split, {"cat": count, "dog": count})

    made = ingest(
        IngestConfig(name="m", source=str(tmp_path / "source"), store=str(tmp_path / "store"))
    )

    assert made.statistics["num_examples"] == {"train": 20, "test": 8}


def test_a_pixel_that_cannot_be_decoded_is_found_where_asked(tmp_path: Path) -> None:
    source = write_image_folder(tmp_path / "source", {"cat": 4, "dog": 4})
    path = source / "cat" / "000.png"
    data = path.read_bytes()
    start = data.index(b"IDAT")
    length = int.from_bytes(data[start - 4 : start])
    chunk = b"IDAT" + bytes(length)  # a right checksum over nonsense
    end = start + 4 + length
    path.write_bytes(data[:start] + chunk + zlib.crc32(chunk).to_bytes(4) + data[end + 4 :])
    config = IngestConfig(name="m", source=str(source), store=str(tmp_path / "store"))

    assert ingest(config).num_examples == 8
    with pytest.raises(InputError, match=r"cat/000\.png: damaged image"):
        ingest(
            IngestConfig(
                name="n",
                source=str(source),
                store=str(tmp_path / "store"),
                scan=ScanOptions(decode_images=True),
            )
        )


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, number // 256, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def ingest_images(tmp_path: Path, source: Path, **settings: Any) -> Commit:
    return ingest(
        IngestConfig(name="m", source=str(source), store=str(tmp_path / "store"), **settings)
    )


def test_what_is_said_of_images_may_begin_late(tmp_path: Path, monkeypatch: Any) -> None:
    """More rows than a batch have no note, and more images than a batch are files."""
    monkeypatch.setattr(images, "_BATCH_ROWS", 4)
    monkeypatch.setattr(rewriting, "_BATCH_BYTES", 1)
    (tmp_path / "source").mkdir()
    rows: list[dict[str, Any]] = []
    for number in range(24):
        image: dict[str, Any] = {"bytes": png(number), "path": f"{number}.png"}
        if number < 6:
            (tmp_path / "source" / image["path"]).write_bytes(image["bytes"])
            image["bytes"] = None
        note = None if number < 12 else f"note {number}"
        rows.append({"file": "elsewhere", "image": image, "label": number % 2, "note": note})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "source" / "rows.parquet")

    made = ingest_images(tmp_path, tmp_path / "source")

    dataset = open_dataset(made.uri)
    examples = [row for split in dataset.splits for row in dataset.split(split)]
    assert {row.path: row.data for row in examples} == {f"{n}.png": png(n) for n in range(24)}
    assert {row.metadata.get("note") for row in examples} == {
        None,
        *(f"note {number}" for number in range(12, 24)),
    }
    assert take_snapshot([made], labels=["0", "1"]) == made
    few = take_snapshot([made], labels=["1"])
    assert few.num_examples == 12


def test_columns_of_an_image_table_do_not_replace_what_is_measured(tmp_path: Path) -> None:
    source = write_image_folder(tmp_path / "source", {"cat": 10, "dog": 10}, grey=False)
    found = source.rglob("*.png")
    rows = [f"{path.relative_to(source)},{path.parent.name},wide,2nd" for path in found]
    (source / "manifest.csv").write_text("\n".join(["path,label,width,version", *rows]))

    made = ingest_images(tmp_path, source)

    assert made.statistics["image_classification"]["width"]["count"] == 20
    example = open_dataset(made.uri).split("train")[0]
    assert example.metadata == {"original_width": "wide", "original_version": "2nd"}


@pytest.mark.parametrize("extension", [".été", ".json", ".x" + "y" * 120])
def test_an_odd_extension_does_not_go_into_shards(tmp_path: Path, extension: str) -> None:
    rows = [
        {"image": {"bytes": png(n), "path": f"{n}{extension}"}, "label": n % 2} for n in range(20)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")

    made = ingest_images(tmp_path, tmp_path / "rows.parquet")

    assert {row.extension for row in open_dataset(made.uri).split("train")} == {".png"}
