"""Runs a user's script beside the process that looks after it, and hands over what it prints.

Where this process has one thread it forks: torch is loaded already, which a new interpreter takes
seconds for, and a trial may be shorter than that. With more threads a fork is not safe, and a new
interpreter is started.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

_THREADS = Path("/proc/self/task")
_STDOUT, _STDERR = 1, 2


class _Process(Protocol):
    def terminate(self) -> None: ...


@dataclass(slots=True, kw_only=True)
class UserProcess:
    """A program of the user's that runs."""

    output: IO[str]
    """What it prints, errors included, in the order in which it does."""
    process: _Process
    exit_code: int = field(default=0, init=False)
    """How it ended, once `user_process` has been left; negative: the signal that killed it."""

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.terminate()


@contextmanager
def user_process(
    script: Path, arguments: Sequence[str], *, launcher: str = ""
) -> Iterator[UserProcess]:
    """Run a Python script; waits for its end.

    Args:
        script: The file; its folder is where its imports are looked for first.
        arguments: Of its command line.
        launcher: Module that starts the script's processes, such as torchrun; empty: none.
    """
    start = _forked if not launcher and _is_single_threaded() else _started
    with start(script, arguments, launcher) as running:
        yield running


def _is_single_threaded() -> bool:
    return _THREADS.is_dir() and len(list(_THREADS.iterdir())) == 1


@contextmanager
def _started(script: Path, arguments: Sequence[str], launcher: str) -> Iterator[UserProcess]:
    command = [sys.executable, "-u", *(["-m", launcher] if launcher else []), str(script)]
    with subprocess.Popen(  # noqa: S603  # running the user's program is what this is for
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        running = UserProcess(output=process.stdout, process=process)
        yield running
        running.exit_code = process.wait()


@contextmanager
def _forked(script: Path, arguments: Sequence[str], _launcher: str) -> Iterator[UserProcess]:
    reading, writing = os.pipe()
    process = multiprocessing.get_context("fork").Process(
        target=_become, args=(script, arguments), kwargs={"output": writing, "unused": reading}
    )
    process.start()
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8", errors="replace") as output:
        running = UserProcess(output=output, process=process)
        yield running
        process.join()
        running.exit_code = process.exitcode or 0


def _become(script: Path, arguments: Sequence[str], *, output: int, unused: int) -> None:
    """Do in this forked process what the interpreter would do with a script."""
    os.close(unused)
    for place in (_STDOUT, _STDERR):
        os.dup2(output, place)
    os.close(output)
    sys.stdout = io.TextIOWrapper(os.fdopen(_STDOUT, "wb", 0), write_through=True)
    sys.stderr = io.TextIOWrapper(os.fdopen(_STDERR, "wb", 0), write_through=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    sys.argv = [str(script), *arguments]
    sys.path[0] = str(script.parent)
    try:
        runpy.run_path(str(script), run_name="__main__")
    except Exception as error:  # noqa: BLE001  # the user's, shown as the interpreter shows it
        frames = traceback.extract_tb(error.__traceback__)
        first = next((n for n, f in enumerate(frames) if f.filename == str(script)), 0)
        shown = traceback.TracebackException.from_exception(error)
        shown.stack = traceback.StackSummary.from_list(frames[first:])
        sys.stderr.write("".join(shown.format()))
        sys.exit(1)
