"""When the lines of a container's log were written, to about a second.

Containers write straight into their log, which costs the control plane nothing. So the pod runner
notes every second how long the log has become, in `<log>.times`: a line for each note, with the
time and the length by then.
"""

from __future__ import annotations

import bisect
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


class LogNotes:
    """Writes down how a log grows."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._length = 0

    def note(self, *, now: float) -> None:
        """Write down how long the log has become, where it has grown; `now` is since the epoch."""
        with suppress(OSError):  # A disk that is full, a folder that is gone: the log tells itself.
            length = self._log.stat().st_size
            if length > self._length:
                with _file_of(self._log).open("a") as file:
                    file.write(f"{now:.3f} {length}\n")
                self._length = length


@dataclass(frozen=True, slots=True, kw_only=True)
class LogTimes:
    """What was noted of a log."""

    times: tuple[float, ...]
    lengths: tuple[int, ...]

    def find_offset(self, since: float) -> int:
        """Return where that begins which was written at or after a time."""
        index = bisect.bisect_left(self.times, since)
        return self.lengths[index - 1] if index else 0

    def find_time(self, offset: int, *, now: float) -> float:
        """Return when the byte at an offset was written; what nobody noted yet is of now."""
        index = bisect.bisect_right(self.lengths, offset)
        return self.times[index] if index < len(self.times) else now


def read_times(log: Path) -> LogTimes:
    """Read what was noted of a log."""
    try:
        notes = [line.split() for line in _file_of(log).read_text().splitlines()]
    except FileNotFoundError:
        notes = []
    return LogTimes(
        times=tuple(float(time) for time, _ in notes),
        lengths=tuple(int(length) for _, length in notes),
    )


class LineStamper:
    """Puts before each line when it was written, as Kubernetes does."""

    def __init__(self, times: LogTimes, *, offset: int) -> None:
        self._times = times
        self._offset = offset
        self._is_new = True

    def stamp(self, chunk: bytes, *, now: float) -> bytes:
        """Stamp the lines that begin in the next piece of a log."""
        stamped = []
        for line in chunk.splitlines(keepends=True):
            if self._is_new:
                stamped.append(_render(self._times.find_time(self._offset, now=now)))
            stamped.append(line)
            self._offset += len(line)
            self._is_new = line.endswith(b"\n")
        return b"".join(stamped)


def forget(log: Path) -> None:
    """Delete a log, and what was noted of it."""
    for path in (log, _file_of(log)):
        path.unlink(missing_ok=True)


def _file_of(log: Path) -> Path:
    return log.with_name(f"{log.name}.times")


def _render(time: float) -> bytes:
    moment = datetime.fromtimestamp(time, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}000Z ".encode()
