"""A forked child against `python` itself: the same command line, the same result."""

from __future__ import annotations

import gzip
import re
import signal
import sys
import zipfile

import pytest

from kubeloop.testing.processes import Machine

STATE = """
import sys, os, signal, threading, multiprocessing, logging, warnings, tempfile, builtins
print(sys.argv, sys.orig_argv, sys.executable, sys.flags)
print(sys.path)
print(sorted(k for k in vars(sys.modules['__main__']) if k != '__loader__'))
main = sys.modules['__main__']
print(__name__, main.__spec__ and main.__spec__.name, main.__package__, main.__doc__)
print(getattr(main, '__file__', None), getattr(main, '__cached__', None))
print(main.__builtins__ is builtins, getattr(main.__loader__, '__name__', type(main.__loader__)))
print(os.getcwd(), sorted(os.environ.items()))
for stream in (sys.stdin, sys.stdout, sys.stderr, sys.__stdout__):
    print(stream.name, stream.encoding, stream.errors, stream.mode, stream.fileno())
print(sys.stdin.read())
print({s.name: str(signal.getsignal(s)) for s in signal.valid_signals() if hasattr(s, 'name')})
print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
print(threading.active_count(), threading.current_thread().name)
print(threading.main_thread() is threading.current_thread())
print(logging.getLogger().handlers, logging.getLogger().level, warnings.filters[:2])
print(tempfile.gettempdir(), multiprocessing.process.ORIGINAL_DIR)
print(sorted(os.listdir('/proc/self/fd'))[:3], len(os.listdir('/proc/self/fd')))
print(sys.getrecursionlimit(), sys.gettrace(), sys.excepthook is sys.__excepthook__)
print(os.umask(0o22), os.nice(0), os.getsid(0) == os.getpid())
import gc; print(gc.isenabled(), gc.get_threshold())
"""


def test_code_sees_what_a_plain_interpreter_sees(machine: Machine) -> None:
    _assert_same(machine, "-c", STATE, "one", "--two")


def test_script_sees_what_a_plain_interpreter_sees(machine: Machine) -> None:
    machine.write("folder/program.py", STATE)
    _assert_same(machine, "folder/program.py", "one")


def test_unbuffered_script_sees_what_a_plain_interpreter_sees(machine: Machine) -> None:
    machine.write("program.py", STATE)
    _assert_same(machine, "-u", "program.py", PYTHONUNBUFFERED="1")


def test_script_behind_a_link_has_the_path_of_its_own_folder(machine: Machine) -> None:
    path = machine.write("real/program.py", STATE)
    (machine.folder / "link.py").symlink_to(path)
    _assert_same(machine, "link.py")


def test_module_sees_what_a_plain_interpreter_sees(machine: Machine) -> None:
    machine.write("package/__init__.py", "")
    machine.write("package/program.py", STATE)
    _assert_same(machine, "-m", "package.program", "one")


def test_package_runs_its_main_module(machine: Machine) -> None:
    machine.write("package/__init__.py", "print('package')")
    machine.write("package/__main__.py", STATE)
    _assert_same(machine, "-m", "package")


def test_module_imported_by_the_parent_runs_as_main(machine: Machine) -> None:
    _assert_same(machine, "-m", "json.tool", "missing.json")


def test_module_that_the_parent_imported_last_runs_as_main(machine: Machine) -> None:
    _assert_same(machine, "-m", "concurrent.futures.thread")


def test_python_path_is_searched_after_the_program_s_folder(machine: Machine) -> None:
    machine.write("library/first.py", "print('library')")
    program = "import sys, first; print(sys.path)"
    _assert_same(machine, "-c", program, PYTHONPATH="library:/nowhere")


@pytest.mark.parametrize(
    "program",
    [
        "import sys; sys.exit()",
        "import sys; sys.exit(3)",
        "import sys; sys.exit(-1)",
        "import sys; sys.exit(True)",
        "import sys; sys.exit('a text')",
        "import sys; print('before'); sys.exit(['a', 'list'])",
        "raise SystemExit(300)",
        "import os; print('lost'); os._exit(7)",
        "import os; os.abort()",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
        "raise KeyboardInterrupt",
        "def f():\n    1 / 0\nf()",
        "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('x') from e",
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    {}['x']",
        "raise ExceptionGroup('many', [ValueError(1), TypeError(2)])",
        "this is not python",
        "import nothing_of_that_name",
        "import sys; sys.excepthook = lambda *e: print('hook', e[0], e[2].tb_frame)\n1/0",
        "import sys\ndef hook(*e):\n    raise ValueError('in hook')\nsys.excepthook = hook\n1/0",
        "import sys\ndef hook(*e):\n    sys.exit(9)\nsys.excepthook = hook\n1/0",
        "def f(): f()\nf()",
    ],
)
def test_end_of_a_program_is_that_of_a_plain_interpreter(machine: Machine, program: str) -> None:
    machine.write("program.py", program)

    forked, plain = machine.python("program.py"), machine.plain_python("program.py")

    assert forked.code == plain.code
    if "os._exit" not in program:  # what a program leaves in its buffer is kept longer here
        assert _without_repeats(forked.output) == _without_repeats(plain.output)


def test_traceback_of_a_module_is_that_of_a_plain_interpreter(machine: Machine) -> None:
    machine.write("package/__init__.py", "")
    machine.write("package/program.py", "def f():\n    raise ValueError('x')\nf()")
    _assert_same(machine, "-m", "package.program")


def test_missing_module_and_missing_script_are_reported_as_usual(
    machine: Machine,
) -> None:
    _assert_same(machine, "-m", "no_such_module")
    _assert_same(machine, "no_such_script.py")


AT_EXIT = """
import atexit, threading, sys, time
class Noisy:
    def __init__(self, name): self.name = name
    def __del__(self): print('deleted', self.name)
held = Noisy('held')
cycle = Noisy('cycle'); cycle.me = cycle
_private = Noisy('private')
file = open('unclosed.txt', 'w'); file.write('kept')
atexit.register(print, 'first registered, last run')
@atexit.register
def fails(): 1 / 0
atexit.register(print, 'last registered, first run')
release = threading.Event()
def late():
    release.wait(); print('thread ends')
threading.Thread(target=late).start()
sys.stdout.write('no newline at the end of main')
sys.stdout.write(chr(10))
release.set()
"""


def test_exit_joins_threads_runs_handlers_and_finalises_objects(machine: Machine) -> None:
    machine.write("program.py", AT_EXIT)

    forked = machine.python("program.py")
    kept = machine.read("unclosed.txt")
    plain = machine.plain_python("program.py", PYTHONUNBUFFERED="1")

    assert re.sub("at 0x.*>", ">", forked.output) == re.sub("at 0x.*>", ">", plain.output)
    assert kept == "kept"


def test_daemon_thread_does_not_disturb_the_exit(machine: Machine) -> None:
    program = """
import threading, time
def forever():
    while True: time.sleep(0.0001); dict(a=some)
some = 1
threading.Thread(target=forever, daemon=True).start()
file = open('unclosed.txt', 'w'); file.write('kept')
"""
    outcome = machine.python("-c", program)

    assert (outcome.code, outcome.output) == (0, "")
    assert machine.read("unclosed.txt") == "kept"


def test_packed_files_left_open_are_whole(machine: Machine) -> None:
    program = """
import gzip, threading, time, zipfile
text = gzip.open('text.gz', 'wt'); text.write('kept')
archive = zipfile.ZipFile('archive.zip', 'w'); archive.writestr('name', 'kept')
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
"""
    assert machine.python("-c", program).code == 0

    assert gzip.decompress((machine.folder / "text.gz").read_bytes()) == b"kept"
    with zipfile.ZipFile(machine.folder / "archive.zip") as archive:
        assert archive.read("name") == b"kept"


def test_interrupt_ends_a_program_as_in_a_plain_interpreter(machine: Machine) -> None:
    program = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
finally:
    print('tidied')
"""
    _assert_same(machine, "-c", program, PYTHONUNBUFFERED="1")


def test_functions_of_main_can_be_pickled(machine: Machine) -> None:
    program = """
import pickle
def double(x): return 2 * x
class Thing: pass
assert pickle.loads(pickle.dumps(double)) is double
assert type(pickle.loads(pickle.dumps(Thing()))) is Thing
if __name__ == '__main__':
    print('is main')
"""
    machine.write("program.py", program)
    _assert_same(machine, "program.py")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_works(machine: Machine, method: str) -> None:
    program = f"""
import multiprocessing, os
def square(x): return x * x
if __name__ == '__main__':
    context = multiprocessing.get_context({method!r})
    with context.Pool(2) as pool:
        print(pool.map(square, range(5)))
    queue = context.Queue()
    child = context.Process(target=queue.put, args=(os.getcwd(),), daemon=True)
    child.start(); print(queue.get()); child.join(); print(child.exitcode)
"""
    machine.write("program.py", program)
    _assert_same(machine, "program.py")


def test_child_forked_by_a_program_ends_as_in_a_plain_interpreter(machine: Machine) -> None:
    program = """
import os, sys, atexit
atexit.register(lambda: print('at exit', flush=True))
pid = os.fork()
if pid == 0:
    sys.exit(5)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    _assert_same(machine, "-c", program, PYTHONUNBUFFERED="1")


@pytest.mark.parametrize(
    "env",
    [
        {"PYTHONHASHSEED": "7"},
        {"PYTHONOPTIMIZE": "1"},
        {"PYTHONWARNINGS": "error"},
        {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "latin-1"},
        {"TZ": "Asia/Tokyo"},
        {"PYTHONDONTWRITEBYTECODE": "1"},
    ],
)
def test_variables_of_the_interpreter_are_honoured(machine: Machine, env: dict[str, str]) -> None:
    program = """
import sys, time, warnings
print(hash('kubeloop') if sys.flags.hash_randomization == 0 else 'random')
import os
print(sys.flags.optimize, sys.warnoptions, sys.stdout.encoding)
print(time.tzname, sys.dont_write_bytecode)
if os.environ.get('PYTHONHASHSEED'): print(hash('kubeloop'))
"""
    _assert_same(machine, "-c", program, **env)


@pytest.mark.parametrize("flags", [("-O",), ("-W", "error"), ("-I",), ("-B",), ("-X", "utf8=0")])
def test_flags_of_the_interpreter_are_honoured(machine: Machine, flags: tuple[str, ...]) -> None:
    _assert_same(machine, *flags, "-c", "import sys; print(sys.flags, sys.warnoptions)")


def test_module_that_hides_a_preloaded_one_is_found(machine: Machine) -> None:
    machine.write("tempfile.py", "print('mine')")
    machine.write("program.py", "import tempfile")
    _assert_same(machine, "program.py")


def test_package_on_the_python_path_that_hides_a_preloaded_one_is_found(machine: Machine) -> None:
    machine.write("library/multiprocessing/__init__.py", "print('mine')")
    _assert_same(machine, "-c", "import multiprocessing", PYTHONPATH="library")


def test_output_is_written_line_by_line(machine: Machine) -> None:
    program = "import time\nprint('a line')\nwhile True: time.sleep(0.01)"
    process, log = machine.start(sys.executable, "-c", program, warm=True)

    machine.wait_until(lambda: log.read_text() == "a line\n")

    process.send_signal(signal.SIGKILL)
    machine.wait(process)


def test_unbuffered_output_is_written_at_once(machine: Machine) -> None:
    program = "import time\nprint('no end', end='')\nwhile True: time.sleep(0.01)"
    process, log = machine.start(sys.executable, "-c", program, warm=True, PYTHONUNBUFFERED="1")

    machine.wait_until(lambda: log.read_text() == "no end")

    process.send_signal(signal.SIGKILL)
    machine.wait(process)


def _assert_same(machine: Machine, *arguments: str, **env: str) -> None:
    forked = machine.python(*arguments, **env)
    plain = machine.plain_python(*arguments, **env)
    assert forked.output == plain.output
    assert forked.code == plain.code


def _without_repeats(output: str) -> str:
    return re.sub("(repeated|at) [0-9a-fx]+[ ,>]", "", output)
