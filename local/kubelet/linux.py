"""The few Linux calls that Python does not wrap. Elsewhere they do nothing.

Without them a process still runs, but what it leaves behind is found only through its session.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_MADV_COLLAPSE = 25
_HUGE_PAGE = 2 << 20
_IS_LINUX = sys.platform.startswith("linux")
_libc = ctypes.CDLL(None, use_errno=True)  # loaded before any fork


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies; exit if it has died already."""
    if _IS_LINUX:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(128 + signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies."""
    if _IS_LINUX:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def set_name(name: str) -> None:
    """Set what `ps -o comm` shows (15 bytes)."""
    if _IS_LINUX:
        _libc.prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]), 0, 0, 0)


def prefer_as_memory_victim() -> None:
    """When the machine runs out of memory, let this process go before the control plane."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def flush_c_streams() -> None:
    """Write out what C code printed; `os._exit` would lose it."""
    _libc.fflush(None)


def collapse_memory() -> Iterator[None]:
    """Put this process's own memory on huge pages, a few at each step.

    A fork copies one entry a page, and an exit drops one: with huge pages both take a tenth of the
    time. Before Linux 6.1 nothing happens.
    """
    try:
        maps = Path("/proc/self/maps").read_text("utf-8").splitlines()
    except OSError:
        return
    for line in maps:
        addresses, access, _, _, _, *path = line.split(maxsplit=5)
        if not access.startswith("rw") or path not in ([], ["[heap]"]):
            continue
        first, last = (int(address, 16) for address in addresses.split("-"))
        start = -(-first // _HUGE_PAGE) * _HUGE_PAGE
        for position in range(start, last - _HUGE_PAGE + 1, _HUGE_PAGE):
            _libc.madvise(ctypes.c_void_p(position), ctypes.c_size_t(_HUGE_PAGE), _MADV_COLLAPSE)
            yield


def list_descendants(pid: int) -> list[int]:
    """Children, adopted orphans included, their children and so on, nearest first."""
    children: dict[int, list[int]] = {}
    for child, parent in _list_parents():
        children.setdefault(parent, []).append(child)
    found: list[int] = []
    level = [pid]
    while level:
        level = [child for parent in level for child in children.get(parent, ())]
        found += level
    return found


def list_session(session_id: int) -> list[int]:
    """Processes of one session."""
    found = []
    for pid, _ in _list_parents():
        with suppress(ProcessLookupError):
            if os.getsid(pid) == session_id:
                found.append(pid)
    return found


def count_threads() -> int:
    """Operating system threads of this process; 1 where it cannot be told."""
    try:
        return len(list(Path("/proc/self/task").iterdir()))
    except FileNotFoundError:
        return 1


def is_thread_busy(name: str) -> bool:
    """Whether a thread of this process with that name is doing anything but sleep."""
    for task in Path("/proc/self/task").iterdir() if _IS_LINUX else ():
        with suppress(OSError):
            command, _, fields = (task / "stat").read_text("utf-8", "replace").rpartition(")")
            if command.partition("(")[2] == name and fields.split()[0] != "S":
                return True
    return False


def count_cpus() -> int:
    """Processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _list_parents() -> list[tuple[int, int]]:
    pairs = []
    for entry in Path("/proc").iterdir() if _IS_LINUX else ():
        if entry.name.isdecimal():
            with suppress(OSError):
                # NB: the command between parentheses may itself hold spaces and parentheses.
                stat = (entry / "stat").read_text("utf-8", "replace")
                fields = stat.rpartition(")")[2].split()
                pairs.append((int(entry.name), int(fields[1])))
    return pairs
