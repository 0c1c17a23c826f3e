"""Turns the source that a lightweight component carries into a function to debug.

What runs is the compiled pipeline's own text, so that it fails here as it fails in a Pod. What a
debugger shows is the file that the author wrote, where it still has that text: the code is compiled
under the file's name with the file's line numbers, and breakpoints set there hold.
"""

from __future__ import annotations

import ast
import linecache
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubeloop.errors import InputError

_FUNCTION_OPTION = "--function_to_execute"
_MAX_FILE_BYTES = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DebugFunction:
    """A function, and the file in which a debugger shows it."""

    function: Callable[..., Any]
    file: Path
    is_authors: bool
    """Whether it is the file that the author wrote."""


def load_function(
    source: str,
    arguments: Sequence[str],
    *,
    folders: Iterable[Path],
    given: Path | None,
    fallback: Path,
    stops_at_first_line: bool,
) -> DebugFunction:
    """Load the function of a lightweight component.

    Args:
        source: The module that the component carries.
        arguments: Of KFP's executor; they name the function.
        folders: Where the author's file may be.
        given: The author's file, where the user names it.
        fallback: Where to write the source when the author's file is not found.
        stops_at_first_line: Whether the debugger starts in the function's first line.

    Raises:
        InputError: `given` does not have the function as it was compiled.
    """
    name = _function_name(arguments)
    module = ast.parse(source)
    definition = _find_definition(module, name)
    assert definition is not None
    text = _text_of(definition, source)
    candidates = [given] if given is not None else list(_python_files(folders))
    for path in candidates:
        line = _find_line(path, name, text)
        if line is not None:
            ast.increment_lineno(definition, line - definition.lineno)
            return _compile(module, definition, path, stops=stops_at_first_line, is_authors=True)
    if given is not None:
        msg = (
            f"{given} has no function {name!r} with the text that was compiled; compile the"
            " pipeline again, or leave out --source."
        )
        raise InputError(msg)
    fallback.parent.mkdir(parents=True, exist_ok=True)
    fallback.write_text(source)
    return _compile(module, definition, fallback, stops=stops_at_first_line, is_authors=False)


def _function_name(arguments: Sequence[str]) -> str:
    return arguments[list(arguments).index(_FUNCTION_OPTION) + 1]


def _compile(
    module: ast.Module, definition: ast.FunctionDef, path: Path, *, stops: bool, is_authors: bool
) -> DebugFunction:
    if stops:
        _insert_breakpoint(definition)
    linecache.checkcache(str(path))
    names: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    # NB: with our own `from __future__` the annotations would be text, and KFP reads types.
    code = compile(module, str(path), "exec", dont_inherit=True)
    exec(code, names)  # noqa: S102  # what the user asks to run
    return DebugFunction(function=names[definition.name], file=path, is_authors=is_authors)


def _insert_breakpoint(definition: ast.FunctionDef) -> None:
    """Call `breakpoint()` before the first statement.

    NB: on the line of the `def`; on that of the statement, a debugger would not stop at it.
    """
    call = ast.parse("breakpoint()").body[0]
    ast.increment_lineno(call, definition.lineno - 1)
    has_docstring = ast.get_docstring(definition, clean=False) is not None
    definition.body.insert(int(has_docstring), call)


def _python_files(folders: Iterable[Path]) -> Iterable[Path]:
    seen: set[Path] = set()
    for folder in folders:
        for path in sorted(folder.glob("*.py")):
            if path not in seen and path.stat().st_size <= _MAX_FILE_BYTES:
                seen.add(path)
                yield path.resolve()


def _find_line(path: Path, name: str, text: str) -> int | None:
    """The line of a file where the function begins, if it has this text there.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        source = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Failed to read {path}: {error}") from error
    if f"def {name}(" not in source:
        return None
    try:
        module = ast.parse(source)
    except SyntaxError:
        return None
    definition = _find_definition(module, name)
    if definition is None or _text_of(definition, source) != text:
        return None
    return definition.lineno


def _find_definition(module: ast.Module, name: str) -> ast.FunctionDef | None:
    found = (
        node for node in ast.walk(module) if isinstance(node, ast.FunctionDef) and node.name == name
    )
    return next(found, None)


def _text_of(definition: ast.FunctionDef, source: str) -> str:
    """The function without its decorators, and as if at the left margin."""
    lines = source.splitlines()[definition.lineno - 1 : definition.end_lineno]
    return "\n".join(line.rstrip() for line in textwrap.dedent("\n".join(lines)).splitlines())
