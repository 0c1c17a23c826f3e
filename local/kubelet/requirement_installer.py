"""Installs a set of requirements in the pod that needs it first, and becomes the pod's program.

Being the pod's own process, it ends with the pod, and what pip says is in the pod's log. Pods that
want the same set meanwhile wait for its lock, which ends with the process that holds it. The
packages come into an environment that sees the one around it, so that pip installs only what is
missing and touches nothing outside; of that environment the packages and scripts are kept, in a
folder that gets its name when all is there.

Run as `python -m kubeloop.local.kubelet.requirement_installer TASK COMMAND…`.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn, TypedDict

from kubeloop.local.kubelet.requirement_sets import NOTE_NAME, PARTIAL_SUFFIX

_BASE_FILE = "_environment_around.pth"
_FIND_PACKAGES = "import site, sysconfig; print(sysconfig.get_path('purelib'))"


class InstallTask(TypedDict):
    """What the pod runner passes on the command line, as JSON."""

    folder: str
    python: str
    installs: list[tuple[list[str], list[str]]]
    """Options and requirements of each call of pip."""


def main() -> NoReturn:
    """Install unless it is done, then run the command."""
    task: InstallTask = json.loads(sys.argv[1])
    command = sys.argv[2:]
    folder = Path(task["folder"])
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            _install(task, folder)
    sys.stdout.flush()
    os.execve(command[0], command, os.environ)  # noqa: S606  # no shell is wanted


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _install(task: InstallTask, folder: Path) -> None:
    partial = folder.with_suffix(PARTIAL_SUFFIX)
    shutil.rmtree(partial, ignore_errors=True)  # of a pod that ended meanwhile
    environment = partial / "environment"
    try:
        interpreter = _make_environment(environment, python=task["python"])
        for options, requirements in task["installs"]:
            _run_pip(interpreter, [*options, *requirements])
        _keep(environment, partial, python=task["python"])
        _write_note(task, partial)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _make_environment(folder: Path, *, python: str) -> Path:
    """An environment on top of the one of `python`; answers its interpreter."""
    pip = ["--without-pip"] if find_spec("pip") else []
    _run([python, "-m", "venv", "--system-site-packages", *pip, str(folder)])
    around = subprocess.run(  # noqa: S603  # the image's own interpreter
        [python, "-c", _FIND_PACKAGES], check=True, capture_output=True, text=True
    ).stdout.strip()
    # NB: packages of an environment are none of the environments made from it.
    line = f"import site; site.addsitedir({around!r})\n"
    (_find_site_packages(folder) / _BASE_FILE).write_text(line, "utf-8")
    return folder / "bin" / "python"


def _find_site_packages(environment: Path) -> Path:
    return next(environment.glob("lib/python3*/site-packages"))


def _run_pip(interpreter: Path, arguments: list[str]) -> None:
    quiet = ["--no-input", "--disable-pip-version-check"]
    if find_spec("pip"):
        start = [sys.executable, "-m", "pip", "--python", str(interpreter)]
    else:
        start = [str(interpreter), "-m", "pip"]
    _run([*start, "install", *quiet, *arguments])


def _run(command: list[str]) -> None:
    """Run a part of the installation; its failure is the end of the pod."""
    env = {
        key: value for key, value in os.environ.items() if key not in ("PIP_TARGET", "PYTHONPATH")
    }
    done = subprocess.run(command, env=env, check=False)  # noqa: S603  # pip and venv
    if done.returncode != 0:
        print(  # noqa: T201  # the pod's log
            "Failed to install the component's packages: see pip's message above.", file=sys.stderr
        )
        sys.exit(done.returncode if done.returncode > 0 else 1)


def _keep(environment: Path, partial: Path, *, python: str) -> None:
    """Take packages and scripts out of the environment, which pods do not use themselves."""
    packages = partial / "site-packages"
    _find_site_packages(environment).rename(packages)
    (packages / _BASE_FILE).unlink()
    (partial / "bin").mkdir()
    interpreter = str(environment / "bin" / "python").encode()
    for script in (environment / "bin").iterdir():
        data = b"" if script.is_symlink() else script.read_bytes()
        if data.startswith(b"#!") and interpreter in data:
            kept = partial / "bin" / script.name
            kept.write_bytes(data.replace(interpreter, python.encode()))
            kept.chmod(0o755)
    shutil.rmtree(environment)


def _write_note(task: InstallTask, partial: Path) -> None:
    size = sum(path.lstat().st_size for path in partial.rglob("*"))
    note = {
        "requirements": [text for _, requirements in task["installs"] for text in requirements],
        "python": task["python"],
        "bytes": size,
    }
    (partial / NOTE_NAME).write_text(json.dumps(note, indent=2), "utf-8")


if __name__ == "__main__":
    main()
