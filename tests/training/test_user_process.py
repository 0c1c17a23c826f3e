"""How a user's script is run: the same in a fork as in an interpreter of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

RUN = """
import sys, threading
from pathlib import Path
from kubeloop.training.user_process import user_process

if sys.argv[2] == "new":  # a second thread forbids the fork
    threading.Thread(target=threading.Event().wait, daemon=True).start()
with user_process(Path(sys.argv[1]), ["--rate", "3"]) as process:
    sys.stdout.write(process.output.read())
print("exit code", process.exit_code)
"""


def run(folder: Path, code: str, *, how: str) -> list[str]:
    script = folder / "script.py"
    script.write_text(code)
    (folder / "beside.py").write_text("FOUND = 'found'")
    command = [sys.executable, "-c", RUN, str(script), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize("how", ["fork", "new"])
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import sys; print(sys.argv[1:])", ["['--rate', '3']", "exit code 0"]),
        ("import beside; print(beside.FOUND, __name__)", ["found __main__", "exit code 0"]),
        ("print(1); exit(3)", ["1", "exit code 3"]),
        ("import os; print(1, flush=True); os.abort()", ["1", "exit code -6"]),
    ],
)
def test_a_script_runs_as_the_interpreter_runs_it(
    tmp_path: Path, code: str, expected: list[str], how: str
) -> None:
    assert run(tmp_path, code, how=how) == expected


@pytest.mark.parametrize("how", ["fork", "new"])
def test_an_error_is_the_last_that_is_printed_and_shows_the_users_lines_alone(
    tmp_path: Path, how: str
) -> None:
    lines = run(tmp_path, "print('before')\ndef fail():\n  1 / 0\nfail()", how=how)

    assert lines[0] == "before"
    assert lines[-2:] == ["ZeroDivisionError: division by zero", "exit code 1"]
    assert [line.split(", ")[1] for line in lines if "File" in line] == ["line 4", "line 3"]
