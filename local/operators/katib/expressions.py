"""Compiles the regular expressions that find metrics in a log.

They are a user's, and are run in the control plane: an expression that backtracks for hours would
stop everything. RE2 matches in linear time, and is what Go's `regexp` understands, so that an
expression means here what it means in Katib.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import re2

from kubeloop.errors import InputError

DEFAULT_FILTER = r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)"
_NAME_AND_VALUE = 2


class Match(Protocol):
    """What an expression found."""

    def __getitem__(self, group: int) -> str | None: ...


class Expression(Protocol):
    """A compiled expression."""

    groups: int

    def finditer(self, text: str) -> Iterator[Match]: ...


def compile_filter(expression: str) -> Expression:
    """Compile an expression with two groups, name and value.

    Raises:
        InputError: It is none, or has fewer groups.
    """
    options = re2.Options()
    options.log_errors = False
    try:
        compiled: Expression = re2.compile(expression, options)
    except re2.error as error:
        cause = error.args[0] if error.args else error
        text = cause.decode() if isinstance(cause, bytes) else str(cause)
        raise InputError(f"invalid filter: error parsing regexp: {text}") from error
    if compiled.groups < _NAME_AND_VALUE:
        raise InputError("two top subexpressions are required")
    return compiled
