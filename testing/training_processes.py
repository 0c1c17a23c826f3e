"""Training programs in processes of their own, which tests kill, stop and wait for."""

from __future__ import annotations

import signal
import socket
import sys

from kubeloop.testing.processes import Machine
from kubeloop.training.metric_lines import parse_metrics

_PROGRAM = "kubeloop.testing.tiny_image_program"


class TrainingProcess:
    """A training program, by default the image program with a tiny backbone, forked warm."""

    def __init__(
        self, machine: Machine, *arguments: str, program: str = _PROGRAM, **env: str
    ) -> None:
        self._machine = machine
        self._process, self._log = machine.start(
            *(sys.executable, "-u", "-m", program, *arguments),
            warm=True,
            OMP_NUM_THREADS="1",
            **env,
        )

    @property
    def output(self) -> str:
        """What it has written so far, stdout and stderr together."""
        return self._log.read_text()

    def wait_for(self, text: str) -> None:
        """Until it has written `text`.

        Raises:
            AssertionError: It ended before that.
        """
        self._machine.wait_until(
            lambda: text in self.output or self._process.exit_status is not None
        )
        assert text in self.output, f"{text!r} never came: {self.output}"

    def end(self, number: signal.Signals | None = None) -> int:
        """Send a signal, if one is given; returns the exit code once the process has ended."""
        if number is not None:
            self._process.send_signal(number)
        return self._machine.wait(self._process).code


def start_two_workers(
    machine: Machine, *arguments: str, program: str = _PROGRAM
) -> tuple[TrainingProcess, TrainingProcess]:
    """Start the two processes of one job; the first is rank 0."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    return (
        TrainingProcess(machine, *arguments, program=program, RANK="0", **env),
        TrainingProcess(machine, *arguments, program=program, RANK="1", **env),
    )


def read_losses(output: str) -> dict[float, tuple[float, float]]:
    """Epoch to training and validation loss, from a program's output."""
    found = [parse_metrics(line) for line in output.splitlines()]
    return {
        line["epoch"]: (line["train_loss"], line["val_loss"]) for line in found if "epoch" in line
    }
