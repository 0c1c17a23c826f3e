"""Runs that are killed, stopped, starved and joined: each ends as an unbroken one would."""

import os
import random
import re
import signal
import time
from pathlib import Path

import pytest
import torch

from kubeloop.datasets import Commit
from kubeloop.datasets.stores import FileStore
from kubeloop.errors import TransientError
from kubeloop.testing.processes import Machine
from kubeloop.testing.tiny_image_program import main
from kubeloop.testing.training_processes import TrainingProcess, read_losses
from kubeloop.training.checkpoints import load_checkpoint

pytestmark = pytest.mark.pinned  # nothing here depends on the Kubeflow SDKs

ARGUMENTS = (
    *("--epochs", "4", "--batch_size", "7", "--learning_rate", "0.01"),
    *("--checkpoint_seconds", "0", "--num_checkpoints", "3"),
)


def newest_step(checkpoints: Path) -> int:
    """Return the number of steps after which the newest checkpoint was written."""
    return max((int(path.stem) for path in checkpoints.glob("*.json")), default=0)


def test_a_run_killed_at_random_moments_ends_as_an_unbroken_one(
    commit: Commit,
    tmp_path: Path,
    torch_machine: Machine,
    capsys: pytest.CaptureFixture[str],
) -> None:
    chance = random.Random(5)
    whole, broken = str(tmp_path / "whole"), str(tmp_path / "broken")
    arguments = ["--dataset", commit.uri, *ARGUMENTS, "--epochs", "20"]
    assert main([*arguments, "--model", whole]) == 0
    expected = read_losses(capsys.readouterr().out)
    checkpoints = tmp_path / "checkpoints"
    arguments += ["--model", broken, "--checkpoint", str(checkpoints)]

    output, least = "", 0
    for _ in range(3):
        least += chance.randrange(12)
        process = TrainingProcess(torch_machine, *arguments)
        torch_machine.wait_until(lambda: newest_step(checkpoints) > least)  # noqa: B023  # at once
        time.sleep(chance.random() * 0.02)  # NB: the moment itself is what is drawn.
        assert process.end(signal.SIGKILL) == 137
        output += process.output
        least = newest_step(checkpoints)
    assert main(arguments) == 0
    output += capsys.readouterr().out

    assert output.count("Resuming from the checkpoint") == 3
    assert read_losses(output) == expected
    assert Path(broken, "model.pt2").read_bytes() == Path(whole, "model.pt2").read_bytes()


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    commit: Commit, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole, broken = str(tmp_path / "whole"), str(tmp_path / "broken")
    checkpoints = tmp_path / "checkpoints"
    arguments = ["--dataset", commit.uri, *ARGUMENTS, "--checkpoint", str(checkpoints)]
    assert main([*arguments, "--model", whole]) == 0
    newest = max(checkpoints.glob("*.pt"))
    newest.write_bytes(newest.read_bytes()[:-100])
    capfd.readouterr()

    assert main([*arguments, "--model", broken]) == 0

    assert "Resuming from the checkpoint after 23 steps" in capfd.readouterr().out
    assert Path(broken, "model.pt2").read_bytes() == Path(whole, "model.pt2").read_bytes()


def test_metrics_reach_the_log_at_once_and_sigterm_leaves_a_checkpoint_of_its_step(
    commit: Commit, tmp_path: Path, torch_machine: Machine
) -> None:
    checkpoints = tmp_path / "checkpoints"
    arguments = ["--dataset", commit.uri, "--epochs", "5000", "--batch_size", "7"]
    process = TrainingProcess(torch_machine, *arguments, "--checkpoint", str(checkpoints))
    process.wait_for("epoch=2 ")

    started = time.monotonic()
    code = process.end(signal.SIGTERM)

    assert (code, time.monotonic() - started < 30) == (143, True)  # Kubernetes' grace period
    stopped = re.search(r"Stopped after (\d+) steps, as asked by SIGTERM", process.output)
    assert stopped is not None, process.output
    assert newest_step(checkpoints) == int(stopped[1])


def test_only_some_checkpoints_are_kept(commit: Commit, tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    assert main(["--dataset", commit.uri, *ARGUMENTS, "--checkpoint", str(checkpoints)]) == 0

    assert len(list(checkpoints.glob("*.pt"))) == len(list(checkpoints.glob("*.json"))) == 3


class Failing(FileStore):
    """A store that is down for a while."""

    num_failures = 0

    def write(self, key: str, data: bytes) -> None:
        if Failing.num_failures > 0:
            Failing.num_failures -= 1
            raise TransientError(f"Failed to write object {key}: the store is down")
        super().write(key, data)


def test_a_store_that_is_down_in_the_middle_costs_checkpoints_and_not_the_run(
    commit: Commit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = Failing(tmp_path / "checkpoints")
    monkeypatch.setattr("kubeloop.training.programs.image.open_store", lambda _uri: store)
    monkeypatch.setattr(Failing, "num_failures", 5)

    assert main(["--dataset", commit.uri, *ARGUMENTS, "--checkpoint", "/unused"]) == 0

    assert "Training goes on without the checkpoint that is due" in capsys.readouterr().out
    assert len(list(store.list())) == 6


def test_a_store_that_is_down_for_the_model_asks_for_another_try(
    commit: Commit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = Failing(tmp_path / "model")
    monkeypatch.setattr("kubeloop.training.package.open_store", lambda _uri: store)
    monkeypatch.setattr(Failing, "num_failures", 1)
    arguments = ["--dataset", commit.uri, *ARGUMENTS, "--model", "/unused"]
    arguments += ["--checkpoint", str(tmp_path / "checkpoints")]

    assert main(arguments) == 138
    assert "the store is down" in capsys.readouterr().err
    assert not (tmp_path / "model" / "model.json").exists()
    assert main(arguments) == 0
    assert "Resuming from the checkpoint after 24 steps" in capsys.readouterr().out
    assert (tmp_path / "model" / "model.json").exists()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 byte"),
        MemoryError(),
    ],
)
def test_want_of_memory_says_what_to_do(
    commit: Commit,
    model_uri: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("kubeloop.training.loop.functional.cross_entropy", fail)

    assert main(["--dataset", commit.uri, *ARGUMENTS, "--model", model_uri]) == 1

    assert "error: Out of memory: " in (said := capsys.readouterr().err)
    assert "lower batch_size" in said
    assert not Path(model_uri).exists()


def test_a_dataset_deleted_under_a_running_job_is_named_when_it_starts_again(
    tmp_path: Path, commit: Commit, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = commit.uri.replace(commit.version_hash, "0" * 64)

    assert main(["--dataset", missing, *ARGUMENTS, "--model", str(tmp_path / "model")]) == 1
    assert "there is none; check the URI" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_checkpoints_are_data_and_not_code(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    torch.save({"num_steps": 1, "state": {"model": os.system}}, tmp_path / "1.pt")
    store.write("1.json", b'{"sha256": "0", "settings": {}}')

    assert load_checkpoint(store, {}) is None
