"""What a program says when memory does not suffice."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from kubeloop.errors import PermanentError

_CPU_MESSAGES = ("not enough memory", "can't allocate memory", "Cannot allocate memory")


@contextlib.contextmanager
def translated_memory_errors(advice: str) -> Iterator[None]:
    """Turn every form of "out of memory" into a `PermanentError` that says what to do."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise PermanentError(f"Out of memory: {_first_line(error)}; {advice}.") from error
    except RuntimeError as error:
        # NB: torch's allocator for the CPU raises a plain RuntimeError.
        if not any(message in str(error) for message in _CPU_MESSAGES):
            raise
        raise PermanentError(f"Out of memory: {_first_line(error)}; {advice}.") from error


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__
