"""Remote files, kept on this machine while they are ingested.

Every file is fetched once, whole, to a temporary folder, in the order in which it was listed and a
few files ahead; both passes of an ingestion read it from there. What is on disk is what is
committed, whatever happens to the original meanwhile; that it changed is noticed by its version.
"""

from __future__ import annotations

import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from kubeloop.datasets.sources.base import Source, SourceFile, SourceLimits, refuse_changed
from kubeloop.errors import InputError

_NUM_AHEAD = 16
_NUM_THREADS = 8


class FetchedFiles(Source):
    """Files that a subclass lists and fetches."""

    def __init__(self, limits: SourceLimits) -> None:
        self.limits = limits
        self._folder: Path | None = None
        self._files: list[SourceFile] | None = None
        self._places: dict[str, int] = {}
        self._fetching: dict[int, Future[Path]] = {}
        self._pool: ThreadPoolExecutor | None = None

    @abstractmethod
    def find_files(self) -> Iterator[SourceFile]:
        """Ask the remote place for its files, in order."""

    @abstractmethod
    def fetch(self, file: SourceFile, target: Path) -> None:
        """Write a file to `target`.

        Raises:
            InputError: It is not there, or has another version than when it was listed.
            TransientError: The remote place does not answer.
        """

    def list_files(self) -> Iterator[SourceFile]:
        """Yield the files as they were when first asked for."""
        return iter(self._list())

    def fingerprint(self) -> str:
        """Return a digest of what the remote place has now; empty where it names no versions."""
        now = list(self.find_files())
        if self._files is not None:
            before = {file.path: file for file in self._files}
            for file in now:
                if before.pop(file.path, file) != file:
                    raise refuse_changed(self.uri, file.path)
            if before:
                raise refuse_changed(self.uri, next(iter(before)))
        if not all(file.version for file in now):
            return ""
        self._take(now)
        return super().fingerprint()

    def _list(self) -> list[SourceFile]:
        if self._files is None:
            self._take(list(self.find_files()))
        assert self._files is not None
        return self._files

    def _take(self, files: list[SourceFile]) -> None:
        num_bytes = sum(file.num_bytes for file in files)
        if num_bytes > self.limits.max_bytes or len(files) > self.limits.max_files:
            raise InputError(
                f"The source {self.uri!r} has {len(files)} files and {num_bytes} bytes; at most"
                f" {self.limits.max_files} and {self.limits.max_bytes} are allowed."
            )
        self._files = files
        self._places = {file.path: place for place, file in enumerate(files)}

    def read(self, path: str, *, version: str = "") -> bytes:  # noqa: ARG002 - it is kept
        """Return the bytes of a listed file."""
        return self.local_path(path).read_bytes()

    def local_path(self, path: str) -> Path:
        """Return where the fetched file lies, fetching it and the next ones if need be."""
        files = self._list()
        place = self._places[path]
        if self._pool is None:
            self._folder = Path(tempfile.mkdtemp(prefix="kubeloop-source-"))
            self._pool = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="fetch")
        for ahead in range(place, min(place + _NUM_AHEAD, len(files))):
            if ahead not in self._fetching:
                self._fetching[ahead] = self._pool.submit(self._fetch, ahead)
        return self._fetching[place].result()

    def _fetch(self, place: int) -> Path:
        assert self._folder is not None
        assert self._files is not None
        file = self._files[place]
        # NB: the name keeps its extension, and nothing else of what somebody else wrote.
        target = self._folder / f"{place}{Path(file.path).suffix.lower()[:16]}"
        self.fetch(file, target)
        return target

    def close(self) -> None:
        """Stop fetching and remove what was fetched."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
