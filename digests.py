"""Digests of files and folders: what the record of a run holds of an artifact's content.

The embedded plane computes one when an artifact is recorded, lineage again when asked to verify it.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

_HASHED_BYTES = 256 * 1024 * 1024  # of one artifact; beyond, sizes and times stand for content
_MAX_FILES = 20_000
_CHUNK_BYTES = 1024 * 1024


def digest_path(path: Path) -> str:
    """`sha256:…` of a file or folder; empty where nothing is there.

    Content beyond a limit is told by its size and time of change instead of its bytes; a folder of
    very many files has no digest.
    """
    digest = hashlib.sha256()
    budget, num_files = _HASHED_BYTES, 0
    try:
        if path.is_file():
            _digest_file(path, digest, budget=budget)
            return f"sha256:{digest.hexdigest()}"
        if not path.is_dir():
            return ""
        for folder, folders, files in os.walk(path):
            folders.sort()
            num_files += len(files)
            if num_files > _MAX_FILES:
                return ""
            for name in sorted(files):
                file = Path(folder, name)
                digest.update(f"\0{file.relative_to(path)}\0".encode())
                budget -= _digest_file(file, digest, budget=budget)
    except OSError:
        return ""
    return f"sha256:{digest.hexdigest()}"


def _digest_file(path: Path, digest: Any, *, budget: int) -> int:
    state = path.stat()
    if state.st_size > budget:
        digest.update(f"{state.st_size}:{state.st_mtime_ns}".encode())
        return 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return state.st_size
