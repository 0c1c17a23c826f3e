"""A component's code runs under the name and the line numbers of the file that its author wrote."""

import traceback
from pathlib import Path

import pytest

from kubeloop.cli.debug_source import DebugFunction, load_function
from kubeloop.errors import InputError

FUNCTION = '''def divide(a: int, b: int) -> float:
    """Divide."""
    return a / b
'''
COMPILED = f"\nimport kfp\nfrom kfp.dsl import *\nfrom typing import *\n\n{FUNCTION}\n"
AUTHORS = f'''"""A pipeline."""
from kfp import dsl

def build():
    @dsl.component
{"".join("    " + line for line in FUNCTION.splitlines(keepends=True))}
    return divide
'''


def load(folder: Path, *, given: Path | None = None, stops: bool = False) -> DebugFunction:
    return load_function(
        COMPILED,
        ["--executor_input", "{}", "--function_to_execute", "divide"],
        folders=[folder],
        given=given,
        fallback=folder / "scratch" / "divide.py",
        stops_at_first_line=stops,
    )


def test_the_authors_lines_are_shown(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("def divide(a, b):\n    return None\n")
    (tmp_path / "pipeline.py").write_text(AUTHORS)
    found = load(tmp_path)
    assert (found.file, found.is_authors) == (tmp_path / "pipeline.py", True)
    with pytest.raises(ZeroDivisionError) as raised:
        found.function(1, 0)
    frame = traceback.extract_tb(raised.tb)[-1]
    assert frame.filename == str(tmp_path / "pipeline.py")
    assert frame.line == "return a / b"
    assert AUTHORS.splitlines()[(frame.lineno or 0) - 1].strip() == "return a / b"


def test_annotations_are_types_as_kfp_needs_them(tmp_path: Path) -> None:
    assert load(tmp_path).function.__annotations__ == {"a": int, "b": int, "return": float}


def test_without_the_file_the_source_is_written_out(tmp_path: Path) -> None:
    (tmp_path / "pipeline.py").write_text(AUTHORS.replace("a / b", "a // b"))
    found = load(tmp_path)
    assert not found.is_authors
    assert found.file.read_text() == COMPILED
    assert found.function(1, 2) == 0.5


def test_a_named_file_with_other_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.py"
    path.write_text(AUTHORS.replace("a / b", "a // b"))
    with pytest.raises(InputError, match="has no function 'divide' with the text that was"):
        load(tmp_path, given=path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.py"):
        load(tmp_path, given=tmp_path / "nowhere.py")


def test_stopping_calls_the_debugger_before_the_first_statement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr("sys.breakpointhook", lambda: calls.append("stopped"))
    assert load(tmp_path, stops=True).function(1, 2) == 0.5
    assert calls == ["stopped"]
