"""What is wrong with a pipeline, all of it at once.

A person who corrects a pipeline wants the whole list, and not the next fault after each try. So
reading goes on after a fault: what is broken is left out, and its name remembered, so that whatever
refers to it is not called a fault too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kubeloop.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong: where, and a sentence that says what, and what is accepted."""

    message: str
    where: str = ""


class PipelineError(InputError):
    """A pipeline cannot run; the first line of the message is its first fault."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(fault.message for fault in faults))
        self.faults = tuple(faults)


def refusal(message: str, *, where: str = "") -> PipelineError:
    """The error to raise for one fault."""
    return PipelineError([Fault(message=message, where=where)])


class Faults:
    """Collects faults while a pipeline is read."""

    def __init__(self) -> None:
        self.found: list[Fault] = []

    def collecting(self, *, where: str = "") -> _Collecting:
        """Note what the body refuses, and go on after it."""
        return _Collecting(self, where)

    def raise_any(self) -> None:
        """Raise what was found.

        Raises:
            PipelineError: Something was.
        """
        if self.found:
            raise PipelineError(self.found)


class _Collecting:
    """NB: not a generator, of which type checkers believe that it lets every error through."""

    def __init__(self, faults: Faults, where: str) -> None:
        self._faults = faults
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, PipelineError):
            self._faults.found += error.faults
        elif isinstance(error, InputError):
            self._faults.found.append(Fault(message=str(error), where=self._where))
        return isinstance(error, InputError)
