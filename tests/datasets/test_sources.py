import os
import zipfile
from pathlib import Path

import pytest

from kubeloop.datasets.sources import open_source
from kubeloop.errors import InputError


def test_files_are_listed_in_order_without_hidden_ones(tmp_path: Path) -> None:
    for path in ("b/2.png", "b/10.png", "a.txt", ".hidden", "b/.x", ".git/config"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"12")

    files = list(open_source(str(tmp_path)).list_files())

    assert [file.path for file in files] == ["a.txt", "b/10.png", "b/2.png"]
    assert {file.num_bytes for file in files} == {2}


def test_paths_and_file_uris_are_the_same_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)

    uris = {open_source(uri).uri for uri in (str(folder), folder.as_uri(), "a folder")}

    assert uris == {str(folder)}


def test_a_link_out_of_the_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "source" / "cat").mkdir(parents=True)
    (tmp_path / "source" / "cat" / "0.png").symlink_to(tmp_path / "secret")

    source = open_source(str(tmp_path / "source"))

    with pytest.raises(InputError, match=r"is a link to .*secret', outside of it"):
        list(source.list_files())
    with pytest.raises(InputError, match="outside of it"):
        source.read("cat/0.png")


def test_a_linked_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "source" / "cat").mkdir(parents=True)
    source = open_source(str(tmp_path / "source"))

    (tmp_path / "source" / "dog").symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="outside of it"):
        list(source.list_files())

    (tmp_path / "source" / "dog").unlink()
    (tmp_path / "source" / "dog").symlink_to(tmp_path / "source" / "cat")
    with pytest.raises(InputError, match=r"is a link to a folder, which is not followed"):
        list(source.list_files())


def test_a_link_inside_the_source_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"data")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    source = open_source(str(tmp_path))

    assert [source.read(file.path) for file in source.list_files()] == [b"data", b"data"]


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(InputError, match="is not a regular file"):
        list(open_source(str(tmp_path)).list_files())


def test_an_empty_path_is_refused() -> None:
    with pytest.raises(InputError, match="path is empty"):
        open_source("")


def test_a_name_that_is_no_unicode_is_refused(tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")  # noqa: PTH102 - pathlib takes text alone

    with pytest.raises(InputError, match=r"caf\\xe9' in the source is not UTF-8; rename it"):
        list(open_source(str(tmp_path)).list_files())


@pytest.mark.parametrize("path", ["/tmp/" + "a" * 300, "/tmp/a\0b"])
def test_a_path_that_cannot_be_one_is_refused(path: str) -> None:
    with pytest.raises(InputError, match="Failed to open the source"):
        open_source(path)


def test_a_file_that_vanished_is_said(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\n")
    source = open_source(str(tmp_path / "rows.csv"))
    (tmp_path / "rows.csv").unlink()

    with pytest.raises(InputError, match=r"Failed to read source file .*No such file"):
        source.fingerprint()


def test_a_plain_path_may_hold_what_means_something_in_uris(tmp_path: Path) -> None:
    folder = tmp_path / "50% #1?"
    folder.mkdir()
    with zipfile.ZipFile(folder / "rows.zip", "w") as archive:
        archive.writestr("rows.csv", "text,label\n")

    with open_source(str(folder / "rows.zip")) as source:
        assert [file.path for file in source.list_files()] == ["rows.csv"]
