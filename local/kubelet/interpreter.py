"""Runs a Python program in a forked child as a new interpreter would.

`__main__`, `sys.argv`, `sys.path`, the standard streams, tracebacks, exit codes and the order of
things at exit are those of `python …`; what a module fixed when the warm parent imported it
(a temporary folder, a seed, a number of threads) is fixed anew. What cannot be had that way is left
to a real interpreter: `is_faithful` says so before anything runs.

The interpreter's own way out frees every object of thousands of modules, which takes most of a
second in a child that shares them; here only what the program itself made is taken down.
"""

from __future__ import annotations

import atexit
import builtins
import gc
import importlib.machinery
import io
import itertools
import os
import runpy
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NoReturn, TextIO

from kubeloop.local.kubelet import linux, preloaded
from kubeloop.local.kubelet.python_command import (
    ProgramKind,
    PythonProgram,
    needs_new_interpreter,
    split_python_path,
)

_PACKERS = frozenset(
    {("gzip", "GzipFile"), ("bz2", "BZ2File"), ("lzma", "LZMAFile"), ("zipfile", "ZipFile")}
)
"""Files that write an end of their own when they are closed."""
_FLUSH_FAILED = 120  # the interpreter's exit status when it cannot write out stdout


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmth:
    """What a layer had when it was ready to be forked.

    A child reads as little of it as it can: counting a reference to an object is a write to it, and
    the first write to a page that is shared with the parent copies the page.
    """

    path: tuple[str, ...]
    """`sys.path` of an interpreter that runs nothing yet."""
    env: Mapping[str, str]
    env_reads: Mapping[str, str | None]
    """Variables that modules read while they were imported, and what they saw."""
    origins: Mapping[str, str]
    """The folder that each imported top-level module was found in; empty if it was in none."""

    @classmethod
    def take(
        cls, *, path: list[str], env: Mapping[str, str], env_reads: Mapping[str, str | None]
    ) -> Warmth:
        """Describe this process as it is now."""
        return cls(
            path=tuple(path),
            env=env,
            env_reads=env_reads,
            origins=_list_origins(),
        )

    def suits(self, env: Mapping[str, str]) -> bool:
        """Whether a new interpreter with `env` would have come to the same modules."""
        if needs_new_interpreter(env, parent=self.env):
            return False
        if any(name in self.env_reads and self.env_reads[name] != env[name] for name in env):
            return False
        return not any(
            name in self.env_reads and self.env_reads[name] is not None and name not in env
            for name in self.env
        )


def is_faithful(program: PythonProgram, *, env: Mapping[str, str], warmth: Warmth) -> bool:
    """Whether a fork of this process, whose directory is set, would run `program` as `python`."""
    if not warmth.suits(env):
        return False
    if program.kind is ProgramKind.SCRIPT and not os.access(program.target, os.R_OK):
        return False
    cwd = str(Path.cwd())
    folders = [_first_path(program) or cwd, *split_python_path(env, cwd=cwd)]
    return not any(_shadows(folder, warmth.origins) for folder in folders)


def run(
    program: PythonProgram, *, argv: list[str], env: Mapping[str, str], warmth: Warmth
) -> NoReturn:
    """Run `program` to its end and exit; streams, directory and signals are set already."""
    _prepare(program, argv=argv, env=env, warmth=warmth)
    num_modules, num_threads = len(sys.modules), linux.count_threads()
    status, failure = 0, None
    try:
        _execute(program, vars(sys.modules["__main__"]))
    except SystemExit as error:
        status = _exit_status(error)
    except BaseException as error:  # noqa: BLE001  # whatever ends a program is printed
        failure = error
    if failure is not None:  # printed here, where no exception is being handled
        status = _print_error(failure)
    interrupted, failure = isinstance(failure, KeyboardInterrupt), None
    status = _end_threads_and_handlers(status)
    if linux.count_threads() <= num_threads:
        # NB: not beside threads of the program's. One of Python's would stumble over what is gone;
        # one of torch's may need the interpreter's lock to end while a destructor waits for it.
        _take_down(num_modules)
    status = _flush_all(status)
    if interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(status)


def _prepare(
    program: PythonProgram, *, argv: list[str], env: Mapping[str, str], warmth: Warmth
) -> None:
    sys.argv[:] = [
        program.target if program.kind is ProgramKind.SCRIPT else program.kind.value,
        *program.arguments,
    ]
    sys.orig_argv[:] = argv
    path = [_first_path(program), *split_python_path(env, cwd=str(Path.cwd())), *warmth.path]
    sys.path[:] = dict.fromkeys(path)
    sys.dont_write_bytecode = bool(env.get("PYTHONDONTWRITEBYTECODE"))
    if not (program.unbuffered or env.get("PYTHONUNBUFFERED")):
        sys.stdout = sys.__stdout__ = _line_buffered(sys.stdout)  # type: ignore[misc]  # as at start
    preloaded.refresh(env)
    if program.kind is ProgramKind.MODULE:
        _forget_module(program.target)
    main = ModuleType("__main__")
    main.__dict__.update(
        __annotations__={}, __builtins__=builtins, __loader__=importlib.machinery.BuiltinImporter
    )
    sys.modules["__main__"] = main
    gc.enable()


def _execute(program: PythonProgram, namespace: dict[str, Any]) -> None:  # of a module
    if program.kind is ProgramKind.MODULE:
        runpy._run_module_as_main(program.target)  # type: ignore[attr-defined]  # noqa: SLF001  # what `python -m` calls
    elif program.kind is ProgramKind.CODE:
        exec(compile(program.target, "<string>", "exec", dont_inherit=True), namespace)  # noqa: S102
    else:
        path = os.path.abspath(program.target)  # noqa: PTH100
        loader = importlib.machinery.SourceFileLoader("__main__", path)
        namespace.update(__file__=path, __cached__=None, __loader__=loader)
        exec(compile(loader.get_data(path), path, "exec", dont_inherit=True), namespace)  # noqa: S102


def _forget_module(name: str) -> None:
    """Have `-m name` find the module not yet imported, as runpy expects."""
    if not hasattr(sys.modules.get(name), "__path__"):
        sys.modules.pop(name, None)
    sys.modules.pop(f"{name}.__main__", None)


def _first_path(program: PythonProgram) -> str:
    if program.kind is ProgramKind.CODE:
        return ""
    if program.kind is ProgramKind.MODULE:
        return str(Path.cwd())
    return os.path.dirname(os.path.realpath(program.target))  # noqa: PTH120


def _list_origins() -> dict[str, str]:
    names = {name.partition(".")[0] for name in sys.modules} - set(sys.builtin_module_names)
    origins = {}
    for name in names:
        path = getattr(sys.modules.get(name), "__file__", None) or ""
        folder = os.path.dirname(path)  # noqa: PTH120
        is_package = hasattr(sys.modules.get(name), "__path__")
        origins[name] = os.path.dirname(folder) if is_package else folder  # noqa: PTH120
    return origins


def _shadows(folder: str, origins: Mapping[str, str]) -> bool:
    """Whether imports from `folder` would find other modules than those imported already."""
    try:
        with os.scandir(folder) as entries:
            return any(
                _is_importable(entry)
                for entry in entries
                if origins.get(entry.name.partition(".")[0], folder) != folder
            )
    except OSError:
        return False


def _is_importable(entry: os.DirEntry[str]) -> bool:
    if entry.name.endswith((".py", ".pyc", ".so")):
        return True
    return os.path.exists(os.path.join(entry.path, "__init__.py"))  # noqa: PTH110, PTH118


def _line_buffered(stream: TextIO) -> io.TextIOWrapper:
    raw = io.FileIO(1, "w", closefd=False)
    raw.name = "<stdout>"
    renewed = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        newline="\n",
        line_buffering=True,
    )
    renewed.mode = "w"  # type: ignore[misc]  # as the interpreter does
    return renewed


def _exit_status(error: SystemExit) -> int:
    code = error.code
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    _flush(sys.stdout)
    print(code, file=sys.stderr)  # noqa: T201
    return 1


def _print_error(error: BaseException) -> int:
    trace = _without_our_frames(error.__traceback__)
    error.__traceback__ = trace
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, trace
    _flush(sys.stdout)
    try:
        sys.excepthook(type(error), error, trace)
    except SystemExit as request:
        return _exit_status(request)
    except BaseException as hook_error:  # noqa: BLE001  # the program's own hook
        hook_error.__traceback__ = _without_our_frames(hook_error.__traceback__)
        print("Error in sys.excepthook:", file=sys.stderr)  # noqa: T201
        sys.__excepthook__(type(hook_error), hook_error, hook_error.__traceback__)
        print("\nOriginal exception was:", file=sys.stderr)  # noqa: T201
        sys.__excepthook__(type(error), error, trace)
    return 1


def _without_our_frames(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace


def _end_threads_and_handlers(status: int) -> int:
    _call(threading._shutdown)  # type: ignore[attr-defined]  # noqa: SLF001  # joins threads
    _call(atexit._run_exitfuncs)  # noqa: SLF001
    # Before objects go: of a stream and its file, the collector may finalise the file first.
    return _flush_all(status)


def _call(function: Callable[[], object]) -> None:
    try:
        function()
    except BaseException:  # noqa: BLE001  # as the interpreter: told, and ignored
        print(f"Exception ignored in: {sys.modules.get(function.__module__)!r}", file=sys.stderr)  # noqa: T201
        traceback.print_exc()


def _take_down(num_modules: int) -> None:
    """Let go of all modules but the oldest, so that what the program made is finalised."""
    num_added = max(0, len(sys.modules) - num_modules)
    for name in list(itertools.islice(reversed(sys.modules), num_added)):
        del sys.modules[name]
    sys.last_type = sys.last_value = sys.last_traceback = None
    main = sys.modules.pop("__main__", None)
    survives = weakref.ref(main) if main is not None else lambda: None
    del main
    gc.collect()
    if (survivor := survives()) is not None:
        names = vars(survivor)
        names.update(dict.fromkeys(names.keys() - {"__builtins__"}))
        gc.collect()


def _flush_all(status: int) -> int:
    """Write out what the program left in buffers; the status, changed if that fails."""
    _flush_files()
    if not _flush(sys.stdout):
        status = _FLUSH_FAILED
    _flush(sys.stderr)
    linux.flush_c_streams()
    return status


def _flush_files() -> None:
    """Do what the finalisers of open files would do: texts first, then packers, then bytes."""
    texts, packers, buffers = [], [], []
    for item in gc.get_objects():
        kind = type(item)
        if kind is io.TextIOWrapper:
            texts.append(item)
        elif kind is io.BufferedWriter or kind is io.BufferedRandom:
            buffers.append(item)
        elif (kind.__module__, kind.__name__) in _PACKERS:
            packers.append(item)
    for text in texts:
        _flush(text)
    for packer in packers:
        with suppress(Exception):
            packer.close()
    for buffer in buffers:
        _flush(buffer)


def _flush(stream: Any) -> bool:  # any object with `flush`, or None
    if stream is None or getattr(stream, "closed", False):
        return True
    try:
        stream.flush()
    except Exception:  # noqa: BLE001  # a full disk, a closed pipe, a program's own object
        return False
    return True
