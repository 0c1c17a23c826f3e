import json
import signal
from pathlib import Path

import pytest
import torch

from kubeloop import __version__
from kubeloop.datasets import Commit, open_dataset
from kubeloop.testing.processes import Machine
from kubeloop.testing.tiny_image_program import main
from kubeloop.testing.training_processes import TrainingProcess, read_losses, start_two_workers
from kubeloop.training.evaluation import evaluate
from kubeloop.training.package import open_package
from kubeloop.training.programs import image
from kubeloop.training.programs.image import parse_arguments

pytestmark = pytest.mark.pinned  # nothing here depends on the Kubeflow SDKs

SMALL = ("--epochs", "3", "--batch_size", "14", "--learning_rate", "0.01", "--seed", "1")


def test_a_package_knows_the_classes_and_where_it_comes_from(
    commit: Commit, model_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBELOOP_JOB_NAME", "job-1")
    monkeypatch.setenv("KUBELOOP_RUN_ID", "run-1")

    arguments = ["--dataset", commit.uri, "--model", model_uri, *SMALL]
    assert image.main([*arguments, "--epochs", "12", "--batch_size", "7"]) == 0

    package = open_package(Path(model_uri))
    manifest = package.manifest
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
    assert evaluate(model_uri, commit.uri).accuracy == 1.0
    example = open_dataset(commit.uri).split("test").image(0, channels=1)
    with torch.inference_mode():
        probabilities = package.load_model()(torch.tensor(example.image).unsqueeze(0))
    assert int(probabilities.argmax()) == example.class_index


def test_the_same_seed_gives_the_same_package(commit: Commit, tmp_path: Path) -> None:
    digests = set()
    for number in range(2):
        uri = str(tmp_path / str(number))
        assert main(["--dataset", commit.uri, "--model", uri, *SMALL]) == 0
        digests.add(open_package(Path(uri)).digest)

    assert len(digests) == 1


def test_two_workers_train_one_model(
    commit: Commit, tmp_path: Path, torch_machine: Machine
) -> None:
    model = tmp_path / "model"
    arguments = ["--dataset", commit.uri, "--model", str(model), "--epochs", "10"]
    arguments += ["--batch_size", "7", "--learning_rate", "0.01"]

    workers = start_two_workers(torch_machine, *arguments)

    assert [worker.end() for worker in workers] == [0, 0], [worker.output for worker in workers]
    assert len(read_losses(workers[0].output)) == 10
    assert workers[1].output == ""
    assert evaluate(str(model), commit.uri).accuracy == 1.0


def test_a_lost_worker_asks_for_a_restart_and_any_number_of_workers_resumes(
    commit: Commit, tmp_path: Path, torch_machine: Machine
) -> None:
    arguments = ["--dataset", commit.uri, "--checkpoint", str(tmp_path / "checkpoints")]
    arguments += ["--epochs", "5000", "--batch_size", "14", "--learning_rate", "0.01"]
    main_worker, other = start_two_workers(torch_machine, *arguments)
    main_worker.wait_for("epoch=2 ")

    assert other.end(signal.SIGKILL) == 137
    assert main_worker.end() == 138, main_worker.output

    assert "error: Lost another process of the job" in main_worker.output
    epochs = [*read_losses(main_worker.output)]
    alone = TrainingProcess(torch_machine, *arguments)
    alone.wait_for(f"epoch={epochs[-1] + 2:.0f} ")
    assert alone.end(signal.SIGKILL) == 137
    epochs += read_losses(alone.output)
    workers = start_two_workers(torch_machine, *arguments)
    workers[0].wait_for(f"epoch={epochs[-1] + 2:.0f} ")
    for worker in workers:
        worker.end(signal.SIGKILL)

    epochs += read_losses(workers[0].output)
    assert sorted(set(epochs)) == [*range(1, len(set(epochs)) + 1)]
    for output in (alone.output, workers[0].output):
        assert "Resuming from the checkpoint" in output


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
    assert image.main(["--dataset", commit.uri, *SMALL, *arguments]) == 1
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
