"""Shards of a remote store on this machine, verified, within a bounded space.

Shards are content-addressed, so a cached one is never stale; all processes of a machine share the
folder. Those that were not used for longest go first. A shard that is open stays readable although
its file is removed.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kubeloop.datasets.commits import Shard
from kubeloop.datasets.stores import FileStore, ObjectStore, open_store
from kubeloop.errors import InputError, IntegrityError, PermanentError

_FETCHING = ".fetching-"
_FETCHING_SECONDS = 600.0
"""A file that was not written to for so long belonged to a process that is gone."""
_POPULATE: int = getattr(mmap, "MAP_POPULATE", 0)
"""Linux alone has it."""


def _default_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "kubeloop" / "shards"


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig:
    """Where shards are cached."""

    folder: Path = field(default_factory=_default_folder)
    """Folder for this purpose alone."""
    max_bytes: int = 20 << 30
    """Space that it may take; the shard in use may go beyond."""

    def __post_init__(self) -> None:
        """Refuse a cache without space."""
        if self.max_bytes < 1:
            raise InputError(f"max_bytes of the shard cache must be positive: {self.max_bytes!r}.")


class ShardCache:
    """Opens the shards of one dataset; those of a local store where they lie."""

    def __init__(self, dataset: ObjectStore, config: CacheConfig | None = None) -> None:
        self._dataset = dataset
        self._config = config or CacheConfig()
        self._verified: set[str] = set()

    def __reduce__(self) -> tuple[Callable[..., ShardCache], tuple[str, CacheConfig]]:
        return _reopen, (self._dataset.uri, self._config)

    def open(self, shard: Shard) -> memoryview:
        """Return a shard's bytes.

        Raises:
            InputError: It is missing.
            IntegrityError: Its bytes differ from its recorded digest.
        """
        path = self.fetch(shard)
        try:
            with path.open("rb") as file:
                # All of it is read at once where it has to be verified.
                flags = 0 if shard.sha256 in self._verified else _POPULATE
                view = memoryview(
                    mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED | flags, prot=mmap.PROT_READ)
                )
        except FileNotFoundError:
            # It is missing, which reading says, or another process made room just now.
            view = memoryview(self._dataset.read(shard.key))
        except ValueError as error:
            raise self._damaged(shard) from error
        if shard.sha256 not in self._verified:
            if hashlib.sha256(view).hexdigest() != shard.sha256:
                raise self._damaged(shard)
            self._verified.add(shard.sha256)
        return view

    def fetch(self, shard: Shard) -> Path:
        """Return where a shard lies on this machine, after fetching it if need be."""
        if isinstance(self._dataset, FileStore):
            return self._dataset.path_of(shard.key)
        path = self._config.folder / f"{shard.sha256}.{shard.format}"
        try:
            os.utime(path)
            return path
        except FileNotFoundError:
            pass
        try:
            self._config.folder.mkdir(parents=True, exist_ok=True)
            self._make_room(shard.num_bytes)
            handle, name = tempfile.mkstemp(prefix=_FETCHING, dir=self._config.folder)
        except OSError as error:
            raise PermanentError(
                f"Failed to cache shards in {str(self._config.folder)!r}: {error.strerror}."
            ) from error
        os.close(handle)
        try:
            self._dataset.download(shard.key, Path(name))
            with Path(name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
                    raise self._damaged(shard)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        self._verified.add(shard.sha256)
        return path

    def _make_room(self, num_bytes: int) -> None:
        files = []
        for path in self._config.folder.iterdir():
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            files.append((status.st_mtime, status.st_size, path))
        used = sum(size for _, size, _ in files)
        for changed_at, size, path in sorted(files):
            if used + num_bytes <= self._config.max_bytes:
                return
            if path.name.startswith(_FETCHING) and time.time() - changed_at < _FETCHING_SECONDS:
                continue  # another process is writing it
            path.unlink(missing_ok=True)
            used -= size

    def _damaged(self, shard: Shard) -> IntegrityError:
        return IntegrityError(
            f"Dataset shard {self._dataset.uri_of(shard.key)} differs from its recorded sha256: it"
            " was changed or damaged after it was written; ingest the source again with full=True"
            " after removing the shard."
        )


def _reopen(uri: str, config: CacheConfig) -> ShardCache:
    """Open a cache in another process, with a store of its own."""
    return ShardCache(open_store(uri), config)
