import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kubeloop.datasets import Commit, IngestConfig, SourceLimits, ingest
from kubeloop.datasets.sources import open_source
from kubeloop.errors import InputError
from kubeloop.testing.image_folders import write_image_folder

Ingest = Callable[..., Commit]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_image_folder(tmp_path / "pets", {"cat": 6, "dog": 6})


def pack_zip(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.write(path, path.relative_to(folder.parent))
        archive.writestr("__MACOSX/pets/cat/._000.png", b"x")
    return target


def pack_tar(folder: Path, target: Path, mode: str) -> Path:
    with tarfile.open(target, mode) as archive:  # type: ignore[call-overload]  # a mode by suffix
        archive.add(folder, folder.name)
    return target


def test_an_archive_is_the_commit_of_its_folder(images: Path, tmp_path: Path) -> None:
    sources = [
        images,
        pack_zip(images, tmp_path / "pets.zip"),
        pack_tar(images, tmp_path / "pets.tar", "w"),
        pack_tar(images, tmp_path / "pets.tar.gz", "w:gz"),
    ]

    commits = [
        ingest(IngestConfig(name="pets", source=str(source), store=str(tmp_path / "store")))
        for source in sources
    ]

    assert {commit.version_hash for commit in commits} == {commits[0].version_hash}
    assert not list(Path("/tmp").glob("kubeloop-archive-*/pets"))


def zip_of(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def tar_with(name: str, kind: bytes, target: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        archive.addfile(member)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.zip", zip_of(("../../evil.csv", b"x")), "leads out of it"),
        ("a.zip", zip_of(("/etc/evil.csv", b"x")), "leads out of it"),
        ("a.zip", zip_of(("a\\..\\evil.csv", b"x")), "leads out of it"),
        ("a.zip", zip_of(("x", b"1"), ("x/y", b"2")), "holds a name twice"),
        ("a.zip", zip_of(("bomb.csv", b"0" * (40 << 20))), "unpacks to more than"),
        ("a.zip", zip_of(("a.csv", b"text"))[:40], "damaged or unreadable"),
        ("a.tar", tar_with("a.csv", tarfile.SYMTYPE, "/etc/passwd"), "is a link"),
        ("a.tar", tar_with("a.csv", tarfile.LNKTYPE, "/etc/passwd"), "is a link"),
        ("a.tar", tar_with("a.csv", tarfile.CHRTYPE, ""), "no regular file"),
        ("a.tar.gz", b"\x1f\x8b\x08 no more", "damaged or unreadable"),
    ],
)
def test_hostile_and_damaged_archives_are_refused(
    tmp_path: Path, ingest_text: Ingest, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(InputError, match=message):
        ingest_text(tmp_path / name)
    assert not (tmp_path.parent / "evil.csv").exists()


def test_an_archive_of_too_many_files_is_refused(images: Path, tmp_path: Path) -> None:
    archive = pack_zip(images, tmp_path / "pets.zip")

    with (
        open_source(str(archive), SourceLimits(max_files=5)) as source,
        pytest.raises(InputError, match="more than 5 files"),
    ):
        list(source.list_files())
