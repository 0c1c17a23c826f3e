"""Where pods put temporary files: in their own folder, or somewhere with a shorter path.

Programs put sockets into TMPDIR. The path of a socket has at most 107 bytes, and multiprocessing
and torch use some thirty of them: below a deep state folder there is no room for that.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

_LONGEST_PATH = 72


class TemporaryFolders:
    """Owns the short folder, if there has to be one, while it is entered."""

    def __init__(self, state: Path) -> None:
        self._note = state / "temporary"
        self._root: Path | None = None

    def __enter__(self) -> Self:
        if self._note.exists():  # left by a control plane that was killed
            shutil.rmtree(self._note.read_text("utf-8"), ignore_errors=True)
            self._note.unlink()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)
            self._note.unlink(missing_ok=True)

    def find(self, usual: Path, *, uid: str) -> Path:
        """The folder of a pod: `usual`, unless its path is too long."""
        if len(str(usual)) <= _LONGEST_PATH:
            return usual
        if self._root is None:
            self._root = Path(tempfile.mkdtemp(prefix="kubeloop-", dir="/tmp"))  # short
            self._note.write_text(str(self._root), "utf-8")
        return self._root / uid.partition("-")[0]
