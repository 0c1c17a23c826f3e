import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kubeloop.datasets.stores import open_store
from kubeloop.errors import InputError, IntegrityError
from kubeloop.testing.s3_server import s3_server
from kubeloop.training.archive import save_program
from kubeloop.training.package import (
    PackageManifest,
    TensorSpec,
    open_package,
    opened_package,
    parse_manifest,
    publish,
    write_package,
)

MANIFEST = PackageManifest(
    name="digits",
    inputs=(TensorSpec(name="image", datatype="UINT8", shape=(-1, 8, 8, 1), content="image"),),
    outputs=(TensorSpec(name="probabilities", datatype="FP32", shape=(-1, 2)),),
    labels=("a", "b"),
    preprocessing={"kind": "image", "channels": 1, "image_size": 8},
    metrics={"val_accuracy": 0.5},
    hyperparameters={"learning_rate": 0.1},
    provenance={"dataset_version_hash": "abc"},
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("program") / "program.pt2"
    save_program(torch.export.export(nn.Linear(3, 2), (torch.zeros(1, 3),)), path)
    return path


@pytest.fixture
def folder(program: Path, tmp_path: Path) -> Path:
    write_package(str(tmp_path / "model"), MANIFEST, files={"model.pt2": program})
    return tmp_path / "model"


def test_what_is_written_is_opened(folder: Path, program: Path) -> None:
    package = open_package(folder)

    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    assert package.manifest.files == {"model.pt2": digest}
    assert package.manifest.labels == ("a", "b")
    assert package.manifest.inputs == MANIFEST.inputs
    assert package.digest == hashlib.sha256((folder / "model.json").read_bytes()).hexdigest()
    assert package.load_model()(torch.zeros(1, 3)).shape == (1, 2)


def test_writing_twice_gives_the_same_digest(folder: Path, program: Path, tmp_path: Path) -> None:
    digest = write_package(str(tmp_path / "other"), MANIFEST, files={"model.pt2": program})

    assert digest == open_package(folder).digest
    assert parse_manifest((folder / "model.json").read_bytes()).render() == (
        (tmp_path / "other" / "model.json").read_bytes()
    )


def test_writing_again_replaces(folder: Path, program: Path) -> None:
    before = open_package(folder).digest
    other = PackageManifest(name="other", inputs=MANIFEST.inputs, outputs=MANIFEST.outputs)

    write_package(str(folder), other, files={"model.pt2": program})

    assert open_package(folder).manifest.name == "other"
    assert open_package(folder).digest != before


def test_a_changed_file_is_refused(folder: Path) -> None:
    data = bytearray((folder / "model.pt2").read_bytes())
    data[-1] ^= 1
    (folder / "model.pt2").write_bytes(data)

    with pytest.raises(IntegrityError, match=r"model\.pt2' has sha256 .*, not the recorded"):
        open_package(folder)


def test_a_missing_file_is_refused(folder: Path) -> None:
    (folder / "model.pt2").unlink()

    with pytest.raises(IntegrityError, match="is missing"):
        open_package(folder)


def test_a_folder_without_manifest_is_no_package(folder: Path) -> None:
    (folder / "model.json").unlink()

    with pytest.raises(InputError, match=r"there is no model\.json"):
        open_package(folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"format": "zip"}, "has format 'zip'"),
        ({"version": 99}, "version 99"),
        ({"files": {"../../etc/passwd": "0"}}, "plain names"),
        ({"files": {"/etc/passwd": "0"}}, "plain names"),
        ({"files": {}}, r"lists no model\.pt2"),
        ({"signature": {}}, "not a model package's manifest"),
        ({"labels": 3}, "not a model package's manifest"),
    ],
)
def test_strange_manifests_are_refused(folder: Path, edit: dict[str, Any], message: str) -> None:
    document = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(document | edit))

    with pytest.raises(InputError, match=message):
        open_package(folder)


@pytest.mark.parametrize("text", ["", "[]", "null", "not json", "\udcff"])
def test_a_manifest_that_is_no_object_is_refused(folder: Path, text: str) -> None:
    (folder / "model.json").write_bytes(text.encode(errors="surrogateescape"))

    with pytest.raises(InputError, match="not a model package's manifest"):
        open_package(folder)


def test_a_published_package_is_named_by_its_digest(folder: Path, tmp_path: Path) -> None:
    uri = publish(str(folder), str(tmp_path / "models"))

    digest = open_package(folder).digest
    assert uri == f"{tmp_path}/models/digits/{digest}"
    assert open_package(Path(uri)).digest == digest


def test_publishing_again_changes_nothing(folder: Path, tmp_path: Path) -> None:
    uri = publish(str(folder), str(tmp_path / "models"))
    before = {path: path.stat().st_mtime_ns for path in Path(uri).iterdir()}

    assert publish(str(folder), str(tmp_path / "models")) == uri
    assert {path: path.stat().st_mtime_ns for path in Path(uri).iterdir()} == before


def test_a_publication_that_broke_off_is_completed(folder: Path, tmp_path: Path) -> None:
    uri = publish(str(folder), str(tmp_path / "models"))
    Path(uri, "model.json").unlink()
    Path(uri, "model.pt2").write_bytes(b"half")

    publish(str(folder), str(tmp_path / "models"))

    assert open_package(Path(uri)).digest == open_package(folder).digest


def test_a_published_package_that_was_changed_is_noticed(folder: Path, tmp_path: Path) -> None:
    uri = publish(str(folder), str(tmp_path / "models"))
    Path(uri, "model.pt2").write_bytes(b"other")

    with pytest.raises(IntegrityError, match="was changed or damaged"):
        publish(str(folder), str(tmp_path / "models"))


def test_packages_travel_through_s3(
    program: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server("bucket") as endpoint:
        monkeypatch.setenv("S3_ENDPOINT", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        digest = write_package("s3://bucket/draft", MANIFEST, files={"model.pt2": program})

        uri = publish("s3://bucket/draft", "s3://bucket/models")

        assert uri == f"s3://bucket/models/digits/{digest}"
        assert list(open_store(uri).list()) == ["model.json", "model.pt2"]
        with opened_package(uri) as package:
            assert package.digest == digest
            assert package.load_model()(torch.zeros(1, 3)).shape == (1, 2)
        with (
            pytest.raises(InputError, match="holds no model package"),
            opened_package("s3://bucket/nothing"),
        ):
            pass


def test_opening_a_package_does_not_load_torch() -> None:
    code = "import sys, kubeloop.training.package; print('torch' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
