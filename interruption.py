"""What an interruption does: it unwinds the stack, and what was begun outside is undone on the way.

KFP, Kubernetes and shells end a program with SIGTERM, which by default kills it where it stands. As
`SystemExit` it passes through `finally` and `except`, like Ctrl-C does as `KeyboardInterrupt`.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind the stack; the process ends with 143, as if the signal had killed it.

    Outside the main thread, which alone may handle signals, this changes nothing.
    """

    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def undo_when_interrupted(
    undo: Callable[[], object], *, also_on: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Call `undo` when SIGTERM, Ctrl-C or an error of `also_on` ends the block, and pass it on."""
    errors: tuple[type[BaseException], ...] = (KeyboardInterrupt, SystemExit, *also_on)
    with exit_on_sigterm():
        try:
            yield
        except errors:
            undo()
            raise


@contextmanager
def hold_back_interrupts() -> Iterator[None]:
    """Let a first Ctrl-C wait for the end of the block, so that what it makes is not lost track of.

    A second one does not wait. Outside the main thread this changes nothing.
    """
    held_back: list[int] = []

    def hold_back(number: int, _frame: FrameType | None) -> None:
        if held_back:
            raise KeyboardInterrupt
        held_back.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, hold_back)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if held_back:
        raise KeyboardInterrupt
