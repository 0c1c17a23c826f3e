"""What is wrong with a pipeline, all of it at once.

A person who corrects a pipeline wants the whole list, and not the next fault after each try. So
reading goes on after a fault: what is broken is left out, and its name remembered, so that whatever
refers to it is not called a fault too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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

    @contextmanager
    def collecting(self, *, where: str = "") -> Iterator[None]:
        """Note what the body refuses, and go on after it."""
        try:
            yield
        except PipelineError as error:
            self.found += error.faults
        except InputError as error:
            self.found.append(Fault(message=str(error), where=where))

    def raise_any(self) -> None:
        """Raise what was found.

        Raises:
            PipelineError: Something was.
        """
        if self.found:
            raise PipelineError(self.found)
