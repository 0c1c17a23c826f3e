import os
import signal
import threading

import pytest

from kubeloop.errors import PermanentError, TransientError
from kubeloop.interruption import (
    exit_on_sigterm,
    hold_back_interrupts,
    undo_when_interrupted,
)


def test_sigterm_unwinds_the_stack_and_is_handled_as_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)

    with pytest.raises(SystemExit) as caught, exit_on_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)

    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_handlers_nest() -> None:
    with exit_on_sigterm():
        outer = signal.getsignal(signal.SIGTERM)
        with exit_on_sigterm():
            assert signal.getsignal(signal.SIGTERM) is not outer
        assert signal.getsignal(signal.SIGTERM) is outer


def test_a_thread_leaves_signals_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def work() -> None:
        with exit_on_sigterm():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert seen == [before]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), TransientError("gone")])
def test_an_interruption_undoes_what_was_begun(error: BaseException) -> None:
    undone: list[bool] = []

    with (
        pytest.raises(type(error)) as caught,
        undo_when_interrupted(lambda: undone.append(True), also_on=(TransientError,)),
    ):
        raise error

    assert caught.value is error
    assert undone == [True]


def test_sigterm_undoes_what_was_begun() -> None:
    undone: list[bool] = []

    with pytest.raises(SystemExit), undo_when_interrupted(lambda: undone.append(True)):
        os.kill(os.getpid(), signal.SIGTERM)

    assert undone == [True]


def test_other_errors_and_a_good_end_undo_nothing() -> None:
    undone: list[bool] = []

    with undo_when_interrupted(lambda: undone.append(True), also_on=(TransientError,)):
        pass
    with pytest.raises(PermanentError), undo_when_interrupted(lambda: undone.append(True)):
        raise PermanentError("no")

    assert undone == []


def begin(done: list[str], *, num_interrupts: int) -> None:
    with hold_back_interrupts():
        for _ in range(num_interrupts):
            signal.raise_signal(signal.SIGINT)
        done.append("begun")


def test_ctrl_c_waits_for_the_end_of_what_must_not_be_lost() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        begin(done, num_interrupts=1)
    assert done == ["begun"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_second_ctrl_c_does_not_wait() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        begin(done, num_interrupts=2)
    assert done == []
