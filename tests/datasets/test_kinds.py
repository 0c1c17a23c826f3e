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

from kubeloop.datasets import KINDS, DatasetKind, IngestConfig, ScanOptions, ingest, open_dataset
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
