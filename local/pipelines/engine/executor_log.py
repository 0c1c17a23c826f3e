"""What KFP's own executor prints around a component: its input as JSON, and where it found itself.

Nobody looks for it, and it fills the screen; so people are shown a step's log without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

_MARK = "[KFP Executor"
_LEVEL = " INFO]: "
_INPUT_FOLLOWS = "Got executor_input:"
_END_OF_INPUT = "}"


class ExecutorFilter:
    """Passes on what the component printed; a log may come in pieces of whole lines."""

    def __init__(self) -> None:
        self._in_input = False

    def filter(self, lines: Iterable[str]) -> Iterator[str]:
        """The lines that are neither empty nor the executor's."""
        for line in lines:
            if self._in_input:
                self._in_input = line != _END_OF_INPUT
            elif line.startswith(_MARK) and _LEVEL in line:
                self._in_input = line.endswith(_INPUT_FOLLOWS)
            elif line.strip():
                yield line
