"""The `kubeloop` command as a user types it, on the state folder of a test.

A command starts in a second, most of which imports the SDKs. `call` runs it in the process of the
test, which has them; `run` and `start` are for commands whose process is what is looked at.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from kubeloop.cli import main

_COMMAND = (sys.executable, "-m", "kubeloop.cli.main")
_ANY_PORTS = ("--api-port", "0", "--kfp-port", "0", "--gateway-port", "0")
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # Any: JSON
        """What it printed, with `--output json`."""
        return json.loads(self.out)


class Command:
    """A command that runs, in a process group of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._read: list[str] = []

    def read_until(self, text: str) -> str:
        """Read what it prints up to the line with `text`; returns that line."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._read.append(line)
            if text in line:
                return line
        raise AssertionError(f"the command has not printed {text!r}: {self.wait()}")

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        os.killpg(self._process.pid, signal.SIGINT)

    def kill(self) -> None:
        """End it if it still runs."""
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()

    def wait(self, *, timeout_seconds: float = 120) -> Outcome:
        """Until it has ended; one that does not is killed."""
        try:
            out, err = self._process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            out, err = self._process.communicate()
            raise AssertionError(f"the command has not ended: {out}\n{err}") from None
        return Outcome(code=self._process.returncode, out="".join([*self._read, out]), err=err)


@dataclass(frozen=True, slots=True)
class CommandLine:
    """Commands on one state folder, run in the folder around it."""

    state: Path

    def start(self, *arguments: str) -> Command:
        """Start a command."""
        process = subprocess.Popen(  # noqa: S603  # our own interpreter and arguments
            [*_COMMAND, *arguments, "--state", str(self.state)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=self.state.parent,
        )
        return Command(process)

    def call(self, *arguments: str) -> Outcome:
        """Run a command to its end in this process."""
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.chdir(self.state.parent),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = main.run([*arguments, "--state", str(self.state)])
        return Outcome(code=code, out=out.getvalue(), err=err.getvalue())

    def run(self, *arguments: str, timeout_seconds: float = 120) -> Outcome:
        """Run a command to its end, in a process of its own."""
        return self.start(*arguments).wait(timeout_seconds=timeout_seconds)

    def up(self) -> dict[str, Any]:
        """Start a control plane on free ports; returns what `kubeloop up` says of it."""
        done = self.run("up", *_ANY_PORTS, "-o", "json")
        assert done.code == 0, done.err
        plane: dict[str, Any] = done.json
        return plane

    def down(self) -> None:
        """Stop the control plane, if one runs."""
        done = self.call("down")
        assert done.code == 0, done.err

    def processes(self) -> list[str]:
        """Command lines of processes that name the state folder there or in their environment."""
        found = []
        for process in psutil.process_iter():
            try:
                command, environment = process.cmdline(), process.environ().values()
            except (psutil.Error, OSError):  # it ends
                continue
            if process.pid != os.getpid() and str(self.state) in " ".join([*command, *environment]):
                found.append(f"{process.pid}: {' '.join(command)}")
        return found


def wait_for(condition: Callable[[], bool], *, timeout_seconds: float = 30) -> None:
    """Return as soon as `condition` holds; it may take time itself, and leaves some to others.

    Raises:
        TimeoutError: It did not hold in time.
    """
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{condition!r} did not hold within {timeout_seconds} s")
        time.sleep(_POLL_SECONDS)
