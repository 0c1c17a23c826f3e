import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from kubeloop import __version__
from kubeloop.datasets import Commit, open_dataset
from kubeloop.training.evaluation import evaluate
from kubeloop.training.metric_lines import parse_metrics
from kubeloop.training.package import open_package
from kubeloop.training.programs.image import main, parse_arguments

pytestmark = pytest.mark.pinned  # nothing here depends on the Kubeflow SDKs

SMALL = ("--epochs", "3", "--batch_size", "14", "--learning_rate", "0.01", "--seed", "1")


def start(
    arguments: Sequence[str], *, rank: int = 0, world_size: int = 1, port: int = 0
) -> subprocess.Popen[str]:
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "KUBELOOP_JOB_NAME": "job-1",
        "KUBELOOP_RUN_ID": "run-1",
    }
    if world_size > 1:
        environment |= {
            "RANK": str(rank),
            "WORLD_SIZE": str(world_size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    return subprocess.Popen(
        [sys.executable, "-m", "kubeloop.training.programs.image", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def losses(output: str) -> list[float]:
    return [
        metrics["train_loss"]
        for line in output.splitlines()
        if "train_loss" in (metrics := parse_metrics(line))
    ]


def wait_for_line(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    output = ""
    for line in process.stdout:
        output += line
        if text in line:
            return output
    raise AssertionError(f"{text!r} never came: {output}{process.communicate()[1]}")


def test_a_package_says_what_it_is_and_where_it_comes_from(
    commit: Commit, model_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBELOOP_JOB_NAME", "job-1")
    monkeypatch.setenv("KUBELOOP_RUN_ID", "run-1")

    assert main(["--dataset", commit.uri, "--model", model_uri, *SMALL]) == 0

    manifest = open_package(Path(model_uri)).manifest
    assert (manifest.name, manifest.labels) == ("stripes", ("bottom", "middle", "top"))
    assert manifest.provenance == {
        "dataset": "stripes",
        "dataset_uri": commit.uri,
        "dataset_version_hash": commit.version_hash,
        "source_digest": commit.source_digest,
        "training_job": "job-1",
        "run_id": "run-1",
        "code_version": __version__,
        "torch_version": torch.__version__,
    }
    assert manifest.hyperparameters["learning_rate"] == 0.01
    assert manifest.hyperparameters["image_size"] == 16
    assert manifest.metrics.keys() == {"val_loss", "val_accuracy"}
    assert manifest.inputs[0].shape == (-1, -1, -1, 1)


def test_a_trained_model_knows_the_classes(commit: Commit, model_uri: str) -> None:
    arguments = ["--dataset", commit.uri, "--model", model_uri, "--epochs", "12"]
    assert main([*arguments, "--batch_size", "7", "--learning_rate", "0.01"]) == 0

    evaluation = evaluate(model_uri, commit.uri)

    assert evaluation.accuracy == 1.0
    example = open_dataset(commit.uri).split("test").image(0, channels=1)
    with torch.inference_mode():
        model = open_package(Path(model_uri)).load_model()
        probabilities = model(torch.tensor(example.image).unsqueeze(0))
    assert int(probabilities.argmax()) == example.class_index


def test_the_same_seed_gives_the_same_package(commit: Commit, tmp_path: Path) -> None:
    digests = set()
    for number in range(2):
        uri = str(tmp_path / str(number))
        assert main(["--dataset", commit.uri, "--model", uri, *SMALL]) == 0
        digests.add(open_package(Path(uri)).digest)

    assert len(digests) == 1


def test_metrics_reach_the_log_at_once_and_sigterm_leaves_a_checkpoint(
    commit: Commit, tmp_path: Path
) -> None:
    arguments = ["--dataset", commit.uri, "--checkpoint", str(tmp_path / "checkpoints")]
    hyperparameters = ["--epochs", "400", "--batch_size", "14"]
    process = start([*arguments, *hyperparameters])
    wait_for_line(process, "epoch=2 ")

    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)

    assert process.returncode == 143, errors
    assert "as asked by SIGTERM" in errors
    assert "epoch=400 " not in output
    assert list((tmp_path / "checkpoints").glob("*.pt"))


def test_a_killed_run_resumes_and_ends_as_an_unbroken_one(commit: Commit, tmp_path: Path) -> None:
    hyperparameters = ["--dataset", commit.uri, "--epochs", "12", "--batch_size", "14"]
    whole = start([*hyperparameters, "--model", str(tmp_path / "whole")])
    arguments = [*hyperparameters, "--model", str(tmp_path / "broken")]
    arguments += ["--checkpoint", str(tmp_path / "checkpoints")]
    killed = start(arguments)
    before = wait_for_line(killed, "epoch=3 ")
    killed.kill()
    before += killed.communicate(timeout=60)[0]
    resumed = start(arguments)
    after, errors = resumed.communicate(timeout=60)
    unbroken, _ = whole.communicate(timeout=60)

    assert resumed.returncode == 0, errors
    assert "Resuming from the checkpoint" in after
    assert losses(after) == losses(unbroken)[-len(losses(after)) :]
    assert losses(before) == losses(unbroken)[: len(losses(before))]
    assert (tmp_path / "broken" / "model.pt2").read_bytes() == (
        tmp_path / "whole" / "model.pt2"
    ).read_bytes()


def test_two_workers_train_one_model(commit: Commit, tmp_path: Path) -> None:
    port, model = free_port(), tmp_path / "model"
    arguments = ["--dataset", commit.uri, "--model", str(model), "--epochs", "20"]
    arguments += ["--batch_size", "7", "--learning_rate", "0.01"]
    workers = [start(arguments, rank=rank, world_size=2, port=port) for rank in range(2)]
    outputs = [worker.communicate(timeout=120) for worker in workers]

    assert [worker.returncode for worker in workers] == [0, 0], outputs
    assert len(losses(outputs[0][0])) == 20
    assert outputs[1][0] == ""
    assert evaluate(str(model), commit.uri).accuracy == 1.0


def test_a_lost_worker_asks_for_a_restart_that_resumes(commit: Commit, tmp_path: Path) -> None:
    arguments = ["--dataset", commit.uri, "--checkpoint", str(tmp_path / "checkpoints")]
    arguments += ["--epochs", "300", "--batch_size", "14", "--learning_rate", "0.01"]
    port = free_port()
    main_worker, other = (start(arguments, rank=rank, world_size=2, port=port) for rank in range(2))
    wait_for_line(main_worker, "epoch=2 ")

    other.kill()
    other.communicate(timeout=60)
    _, errors = main_worker.communicate(timeout=60)

    assert main_worker.returncode == 138, errors
    assert "error: Lost another process of the job" in errors
    port = free_port()
    workers = [start(arguments, rank=rank, world_size=2, port=port) for rank in range(2)]
    assert "Resuming" in wait_for_line(workers[0], "epoch=")
    for worker in workers:
        worker.kill()
        worker.communicate(timeout=60)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learning_rate", "0"], r"error: learning_rate must be above 0.0"),
        (["--learning_rate", "nan"], r"error: learning_rate must be"),
        (["--image_size", "4"], "error: image_size must be 0 or from 8 to 1024"),
        (["--architecture", "resnet19"], "error: Unknown architecture 'resnet19'"),
        (["--dataset", "/nowhere/commits/0.json"], "error: Failed to read object"),
    ],
)
def test_wrong_values_are_clear_errors(
    commit: Commit, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["--dataset", commit.uri, *SMALL, *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learning_rat", "0.1"], "unrecognized arguments: --learning_rat"),
        (["--dropout", "0.1"], "unrecognized arguments: --dropout"),
        (["--epochs", "many"], "invalid int value: 'many'"),
        (["--augment", "perhaps"], "must be true or false, not 'perhaps'"),
    ],
)
def test_unknown_or_malformed_arguments_are_errors(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_arguments(["--dataset", "/d", *arguments])

    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_diverging_run_writes_no_model(
    commit: Commit,
    model_uri: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = torch.nn.functional.cross_entropy
    monkeypatch.setattr(
        torch.nn.functional, "cross_entropy", lambda *a, **k: real(*a, **k) * float("nan")
    )

    assert main(["--dataset", commit.uri, "--model", model_uri, *SMALL]) == 1

    assert "error: Training diverged in epoch 1" in capsys.readouterr().err
    assert not Path(model_uri).exists()


def test_a_damaged_dataset_is_not_trained_on(
    commit: Commit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(Path(commit.uri).read_text())
    folder = tmp_path / "stripes" / "commits"
    folder.mkdir(parents=True)
    (folder / Path(commit.uri).name).write_text(json.dumps(document, indent=2))

    assert main(["--dataset", str(folder / Path(commit.uri).name), *SMALL]) == 1
    assert "differs from the hash that names it" in capsys.readouterr().err
