"""Runs that are killed, stopped, starved and joined: each ends as an unbroken one would."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from kubeloop.datasets import Commit
from kubeloop.datasets.stores import FileStore
from kubeloop.errors import TransientError
from kubeloop.testing.waiting import wait_until
from kubeloop.training.checkpoints import load_checkpoint
from kubeloop.training.metric_lines import parse_metrics
from kubeloop.training.programs.image import main

pytestmark = pytest.mark.pinned  # nothing here depends on the Kubeflow SDKs

ARGUMENTS = (
    *("--epochs", "12", "--batch_size", "7", "--learning_rate", "0.01"),
    *("--checkpoint_seconds", "0", "--num_checkpoints", "3"),
)


def start(arguments: Sequence[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "kubeloop.training.programs.image", *arguments],
        env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def curve(output: str) -> dict[float, tuple[float, float]]:
    found = [parse_metrics(line) for line in output.splitlines()]
    return {
        line["epoch"]: (line["train_loss"], line["val_loss"]) for line in found if "epoch" in line
    }


def wait_for_checkpoint(folder: Path, *, after: int) -> int:
    """Return the number of steps of the newest checkpoint once it is beyond another."""
    newest = after

    async def is_newer() -> bool:
        nonlocal newest
        newest = max([after, *(int(path.stem) for path in folder.glob("*.json"))])
        return newest > after

    asyncio.run(wait_until(is_newer, timeout_seconds=120))
    return newest


def test_a_run_killed_at_random_moments_ends_as_an_unbroken_one(
    commit: Commit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(5)
    whole, broken = str(tmp_path / "whole"), str(tmp_path / "broken")
    assert main(["--dataset", commit.uri, *ARGUMENTS, "--model", whole]) == 0
    expected = curve(capsys.readouterr().out)
    checkpoints = tmp_path / "checkpoints"
    arguments = ["--dataset", commit.uri, *ARGUMENTS, "--model", broken]
    arguments += ["--checkpoint", str(checkpoints)]

    seen: dict[float, tuple[float, float]] = {}
    steps = 0
    for _ in range(3):
        process = start(arguments)
        steps = wait_for_checkpoint(checkpoints, after=steps + chance.randrange(12))
        time.sleep(chance.random() * 0.02)  # NB: the moment itself is what is drawn.
        process.kill()
        seen |= curve(process.communicate(timeout=60)[0])
    assert main(arguments) == 0
    seen |= curve(capsys.readouterr().out)

    assert seen.items() <= expected.items()
    assert 12.0 in seen
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

    assert "Resuming from the checkpoint after 71 steps" in capfd.readouterr().out
    assert Path(broken, "model.pt2").read_bytes() == Path(whole, "model.pt2").read_bytes()


def test_sigterm_leaves_a_checkpoint_of_the_step_it_came_in(commit: Commit, tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    arguments = ["--dataset", commit.uri, "--epochs", "500", "--batch_size", "7"]
    process = start([*arguments, "--checkpoint", str(checkpoints)])
    wait_for_checkpoint(checkpoints, after=0)

    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 143
    assert time.monotonic() - started < 30  # Kubernetes' grace period
    num_steps = int(errors.split("Stopped after ")[1].split()[0])
    assert (checkpoints / f"{num_steps:012d}.json").exists()


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
    assert "Resuming from the checkpoint after 72 steps" in capsys.readouterr().out
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
