"""A warm parent for tests, and the plain interpreter that its forks are compared with."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from kubeloop.local.kubelet.process import ExitStatus, Process, ProcessRunner, ProcessSpec
from kubeloop.local.kubelet.warm_parent import WarmConfig
from kubeloop.testing.waiting import wait_until

T = TypeVar("T")

BASE_ENV = {
    "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/tmp",  # noqa: S108  # read by no test
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a program wrote, stdout and stderr together, and its exit code."""

    code: int
    output: str


class Machine:
    """Runs programs in one folder, through one warm parent; `machine` makes it."""

    def __init__(self, *, runner: ProcessRunner, loop: asyncio.Runner, folder: Path) -> None:
        self.runner = runner
        self.folder = folder / "work"
        self._loop = loop
        self._logs = folder / "logs"
        self._count = 0

    def do(
        self, work: Coroutine[Any, Any, T], *, timeout_seconds: float = 120
    ) -> T:  # any coroutine
        """Run `work` on the runner's event loop."""

        async def bounded() -> T:
            async with asyncio.timeout(timeout_seconds):
                return await work

        return self._loop.run(bounded())

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Let the runner work until `condition` holds."""
        self.do(wait_until(condition, timeout_seconds=30))

    def build_spec(self, *argv: str, warm: bool = False, **env: str) -> ProcessSpec:
        """A process of `argv` with a log of its own."""
        self._count += 1
        return ProcessSpec(
            name=f"test-{self._count}",
            argv=argv,
            env=BASE_ENV | env,
            cwd=self.folder,
            log=self._logs / f"{self._count}.log",
            warm=warm,
        )

    def start(self, *argv: str, warm: bool = False, **env: str) -> tuple[Process, Path]:
        """Start a process; returns it and its log."""
        spec = self.build_spec(*argv, warm=warm, **env)
        return self.do(self.runner.start(spec)), spec.log

    def wait(self, process: Process) -> ExitStatus:
        """Until it has ended."""
        return self.do(process.wait())

    def run(self, *argv: str, warm: bool = False, **env: str) -> Outcome:
        """Run a process to its end."""
        process, log = self.start(*argv, warm=warm, **env)
        return Outcome(code=self.wait(process).code, output=log.read_text())

    def python(self, *arguments: str, **env: str) -> Outcome:
        """Run the interpreter warm."""
        return self.run(sys.executable, *arguments, warm=True, **env)

    def plain_python(self, *arguments: str, **env: str) -> Outcome:
        """Run the interpreter without us."""
        done = subprocess.run(  # noqa: S603  # a test's own program
            [sys.executable, *arguments],
            env=BASE_ENV | env,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
            check=False,
        )
        code = done.returncode
        return Outcome(code=code if code >= 0 else 128 - code, output=done.stdout)

    def write(self, name: str, text: str) -> Path:
        """Write a file below the folder in which programs run."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def read(self, name: str) -> str:
        """What a file below the folder holds; empty while there is none."""
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    def clear(self) -> None:
        """Empty the folder."""
        shutil.rmtree(self.folder)
        self.folder.mkdir()


@contextmanager
def start_machine(folder: Path, config: WarmConfig) -> Iterator[Machine]:
    """A machine whose warm parent has imported all of `config`."""
    with asyncio.Runner() as loop:
        runner = ProcessRunner(config, env=BASE_ENV)
        loop.run(runner.__aenter__())
        try:
            machine = Machine(runner=runner, loop=loop, folder=folder)
            machine.folder.mkdir(parents=True)
            machine.do(runner.wait_until_warm())
            yield machine
        finally:
            loop.run(runner.__aexit__(None, None, None))


def is_alive(pid: int) -> bool:
    """Whether a process exists and is more than a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
