"""Archives, unpacked to a temporary folder with distrust.

Names that leave the folder, links and devices are refused, and so is an archive that unpacks to
more than its limits, counted by what comes out and not by what it says of itself.
"""

from __future__ import annotations

import lzma
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from kubeloop.datasets.sources.base import Source, SourceFile, SourceLimits
from kubeloop.datasets.sources.local import LocalFiles
from kubeloop.errors import InputError, PermanentError

_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_BLOCK = 1 << 20
_FREE_BYTES = 16 << 20
_UNWANTED = "__MACOSX"

Member = tuple[str, IO[bytes]]


def is_archive(path: str) -> bool:
    """Tell by its name whether a file is an archive that can be unpacked."""
    return path.lower().endswith(_SUFFIXES)


class ArchiveFiles(Source):
    """The files in an archive that is the only file of another source."""

    def __init__(self, inner: Source, path: str, limits: SourceLimits) -> None:
        self.uri = inner.uri
        self._inner = inner
        self._path = path
        self._limits = limits
        self._folder: Path | None = None
        self._files: LocalFiles | None = None

    def fingerprint(self) -> str:
        """Return the archive's."""
        return self._inner.fingerprint()

    def list_files(self) -> Iterator[SourceFile]:
        """Yield the files."""
        return self._unpacked().list_files()

    def read(self, path: str, *, version: str = "") -> bytes:
        """Return the bytes of a listed file."""
        return self._unpacked().read(path, version=version)

    def local_path(self, path: str) -> Path:
        """Return where a listed file lies."""
        return self._unpacked().local_path(path)

    def _unpacked(self) -> LocalFiles:
        if self._files is None:
            self._folder = Path(tempfile.mkdtemp(prefix="kubeloop-archive-"))
            archive = self._inner.local_path(self._path)
            unpack(archive, self._folder, name=self._path, limits=self._limits)
            self._files = LocalFiles(_skip_wrapper(self._folder), uri=self.uri)
        return self._files

    def close(self) -> None:
        """Remove the unpacked files."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._inner.close()


def unpack(archive: Path, folder: Path, *, name: str, limits: SourceLimits) -> None:
    """Unpack an archive.

    Raises:
        InputError: It is damaged, hostile, or beyond the limits.
        PermanentError: The files do not fit on this machine.
    """
    allowed = min(limits.max_bytes, _FREE_BYTES + limits.max_ratio * archive.stat().st_size)
    members = _read_zip if name.lower().endswith(".zip") else _read_tar
    num_bytes = num_files = 0
    try:
        for path, content in members(archive):
            num_files += 1
            if num_files > limits.max_files:
                raise InputError(f"it holds more than {limits.max_files} files")
            target = folder / _check_path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as output:
                while block := content.read(_BLOCK):
                    num_bytes += len(block)
                    if num_bytes > allowed:
                        raise InputError(
                            f"it unpacks to more than the {allowed} bytes allowed for its size"
                        )
                    output.write(block)
    except InputError as error:
        raise InputError(f"The archive {name!r} is refused: {error}.") from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise InputError(f"The archive {name!r} is refused: it holds a name twice.") from error
    except (
        *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError),
        *(NotImplementedError, RuntimeError, UnicodeError, ValueError),
    ) as error:
        raise InputError(f"The archive {name!r} is damaged or unreadable: {error}.") from error
    except OSError as error:
        if error.errno is None:  # what gzip and bz2 raise for damaged data
            raise InputError(f"The archive {name!r} is damaged: {error}.") from error
        raise PermanentError(f"Failed to unpack {name!r}: {error.strerror}.") from error


def _read_zip(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            if info.is_dir() or _is_hidden(info.filename):
                continue
            if (info.external_attr >> 16) & 0o170000 == 0o120000:
                raise InputError(f"{info.filename!r} is a link")
            if info.flag_bits & 1:
                raise InputError(f"{info.filename!r} is encrypted")
            with file.open(info) as content:
                yield info.filename, content


def _read_tar(archive: Path) -> Iterator[Member]:
    with tarfile.open(archive, "r|*") as file:
        for info in file:
            if info.isdir() or _is_hidden(info.name):
                continue
            if not info.isreg():
                raise InputError(f"{info.name!r} is a link or no regular file")
            content = file.extractfile(info)
            assert content is not None
            yield info.name, content


def _is_hidden(path: str) -> bool:
    parts = [part for part in path.split("/") if part not in (".", "..")]
    return path.startswith(_UNWANTED) or any(part.startswith(".") for part in parts)


def _check_path(path: str) -> PurePosixPath:
    relative = PurePosixPath(path)
    if (
        relative.is_absolute()
        or ".." in relative.parts
        or not relative.parts
        or any(character in path for character in "\\\0")
        or ":" in relative.parts[0]
    ):
        raise InputError(f"{path!r} leads out of it")
    return relative


def _skip_wrapper(folder: Path) -> Path:
    """Return the folder that holds more than one other folder."""
    entries = list(folder.iterdir())
    while len(entries) == 1 and entries[0].is_dir():
        inside = list(entries[0].iterdir())
        if not any(entry.is_dir() for entry in inside) and any(map(_is_image, inside)):
            break
        folder, entries = entries[0], inside
    return folder


def _is_image(path: Path) -> bool:
    from kubeloop.datasets.images import IMAGE_EXTENSIONS

    return path.suffix.lower() in IMAGE_EXTENSIONS
