from pathlib import Path

import pytest

from kubeloop.errors import InputError
from kubeloop.kserve.storage_initializer import fetch_model, main


def read_all(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_folder_is_copied_with_its_folders(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "model.json").write_bytes(b"{}")
    (source / "deep" / "weights").write_bytes(b"abc")

    assert main([str(source), str(tmp_path / "target")]) == 0
    assert read_all(tmp_path / "target") == {"model.json": b"{}", "deep/weights": b"abc"}


def test_file_uri_is_a_folder_too(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "model.json").write_bytes(b"{}")

    assert fetch_model(f"file://{tmp_path}/source", tmp_path / "target") == ["model.json"]


def test_single_object_is_fetched_under_its_name(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"abc")

    assert fetch_model(str(tmp_path / "weights"), tmp_path / "target") == ["weights"]
    assert read_all(tmp_path / "target") == {"weights": b"abc"}


def test_what_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "missing"), str(tmp_path / "target")]) == 1

    said = capsys.readouterr().err
    assert f"Failed to fetch model {tmp_path}/missing" in said
    assert "check the model's URI" in said


def test_unknown_scheme_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ftp"):
        fetch_model("ftp://host/model", tmp_path)


def test_missing_argument_prints_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["one"]) == 2
    assert "usage:" in capsys.readouterr().err
