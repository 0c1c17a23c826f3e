import io
import json
import os
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import kubeloop
from kubeloop.datasets import Commit, open_dataset
from kubeloop.datasets.stores import open_store
from kubeloop.errors import InputError, IntegrityError
from kubeloop.testing.processes import Machine
from kubeloop.testing.training_processes import TrainingProcess
from kubeloop.training.code import MANIFEST_FILE, fetch_code, pack_code, publish_code, unpack_code
from kubeloop.training.evaluation import evaluate
from kubeloop.training.jobs import PyTorchJobBuilder, TrainingJobConfig
from kubeloop.training.package import open_package
from kubeloop.training.programs import own
from kubeloop.training.programs.own import main

pytestmark = pytest.mark.pinned  # nothing here depends on the Kubeflow SDKs

EXAMPLE = Path(kubeloop.__file__).parent / "docs" / "examples" / "plain_train.py"


def publish(tmp_path: Path, code: str) -> str:
    script = tmp_path / "script.py"
    script.write_text(code)
    return publish_code(script, str(tmp_path / "code"))


def greet(name: str = "you", times: int = 1) -> None:
    for _ in range(times):
        print(f"hello {name}", flush=True)


def test_a_plain_script_leaves_a_package_that_is_scored_and_served(
    commit: Commit, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "kubeloop" not in EXAMPLE.read_text().split('"""')[2]
    uri = publish_code(EXAMPLE, str(tmp_path / "code"))
    model = str(tmp_path / "model")

    arguments = ["--code", uri, "--dataset", commit.uri, "--model", model]
    assert main([*arguments, "--learning_rate", "0.02", "--hidden", "32"]) == 0

    output = capfd.readouterr().out
    assert "epoch=30 train_loss=" in output
    manifest = open_package(Path(model)).manifest
    assert manifest.labels == ("bottom", "middle", "top")
    assert manifest.preprocessing == {
        "kind": "image",
        "channels": 1,
        "image_size": 16,
        "reduction_margin": 0.0,
    }
    assert manifest.inputs[0].shape == (-1, -1, -1, 1)
    assert manifest.hyperparameters == {"learning_rate": "0.02", "hidden": "32"}
    assert manifest.provenance["code_uri"] == uri
    assert manifest.provenance["dataset_version_hash"] == commit.version_hash
    assert manifest.metrics["val_accuracy"] == 1.0
    assert evaluate(model, commit.uri).accuracy == 1.0


def test_a_plain_script_is_a_job_whose_arguments_katib_can_fill_in(tmp_path: Path) -> None:
    uri = publish_code(EXAMPLE, str(tmp_path / "code"))
    config = TrainingJobConfig(
        name="own", code_uri=uri, dataset_uri="/d", hyperparameters={"hidden": 0}
    )

    manifest = PyTorchJobBuilder().render(config)

    specs = manifest["spec"]["pytorchReplicaSpecs"]
    container = specs["Master"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["python", "-u", "-m", "kubeloop.training.programs.own"]
    assert container["args"] == ["--code", uri, "--dataset", "/d", "--hidden", "0"]


def test_the_same_code_is_the_same_archive(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    (folder / "part").mkdir(parents=True)
    (folder / "main.py").write_text("import part.module")
    (folder / "part" / "module.py").write_text("print('here')")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "main.pyc").write_bytes(b"1")
    first = publish_code(folder, str(tmp_path / "code"))
    os.utime(folder / "main.py", (0, 0))
    (folder / "__pycache__" / "main.pyc").write_bytes(b"2")

    assert publish_code(folder, str(tmp_path / "code")) == first
    (folder / "part" / "module.py").write_text("print('there')")
    assert publish_code(folder, str(tmp_path / "code")) != first


def test_a_folder_of_modules_is_run_from_its_entry(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "project"
    (folder / "part").mkdir(parents=True)
    (folder / "main.py").write_text("import part.module")
    (folder / "part" / "module.py").write_text("print('here')")

    assert main(["--code", publish_code(folder, str(tmp_path / "code"))]) == 0
    assert "here" in capfd.readouterr().out


def test_a_function_takes_its_parameters_from_the_command_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    uri = publish_code(greet, str(tmp_path / "code"))

    assert main(["--code", uri, "--name", "world", "--times", "2"]) == 0
    assert capfd.readouterr().out.count("hello world") == 2


@pytest.mark.parametrize(("code", "expected"), [("exit(3)", 3), ("import os; os.abort()", 134)])
def test_the_programs_exit_code_is_passed_on(tmp_path: Path, code: str, expected: int) -> None:
    assert main(["--code", publish(tmp_path, code)]) == expected


def test_a_program_that_leaves_no_model_is_told_how(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = publish(tmp_path, "print('done')")

    assert main(["--code", uri, "--model", str(tmp_path / "model")]) == 1
    assert "write it with torch.export.save to model.pt2" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_sigterm_reaches_the_program_and_its_checkpoints_are_kept(
    tmp_path: Path, torch_machine: Machine
) -> None:
    code = """
import argparse, pathlib, signal, sys
parser = argparse.ArgumentParser()
parser.add_argument("--checkpoint", type=pathlib.Path)
folder = parser.parse_args().checkpoint
print("found", sorted(path.name for path in folder.iterdir()), flush=True)
def leave(*_):
    (folder / "state").write_text("1")
    sys.exit(143)
signal.signal(signal.SIGTERM, leave)
print("ready", flush=True)
signal.pause()
"""
    uri = publish(tmp_path, code)
    arguments = ("--code", uri, "--checkpoint", str(tmp_path / "kept"))
    for expected in ("found []", "found ['state']"):
        process = TrainingProcess(torch_machine, *arguments, program=own.__name__)
        process.wait_for("ready")
        assert process.output == f"{expected}\nready\n"
        assert process.end(signal.SIGTERM) == 143


def pack(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


ENTRY = (MANIFEST_FILE, b'{"entry": "main.py"}')


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pack(ENTRY, ("../main.py", b"")), "must be plain names"),
        (pack(ENTRY, ("/etc/main.py", b"")), "must be plain names"),
        (pack(ENTRY, ("a/../../main.py", b"")), "must be plain names"),
        (pack(ENTRY, (link("main.py"), b"/etc/passwd")), "is no plain file"),
        (pack((MANIFEST_FILE, b'{"entry": "../main.py"}')), "must be plain names"),
        (pack((MANIFEST_FILE, b'{"entry": "main.py"}')), "is not among its files"),
        (pack((MANIFEST_FILE, b"{}")), "names no entry"),
        (pack(("main.py", b"")), "cannot be unpacked"),
        (b"no archive", "cannot be unpacked"),
    ],
)
def test_an_archive_that_would_leave_its_folder_is_refused(
    tmp_path: Path, data: bytes, message: str
) -> None:
    folder = tmp_path / "deep" / "folder"
    folder.mkdir(parents=True)

    with pytest.raises(InputError, match=message):
        unpack_code(data, folder)

    assert not (tmp_path / "main.py").exists()
    assert not (tmp_path / "deep" / "main.py").exists()


def test_an_archive_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubeloop.training.code.MAX_BYTES", 1000)

    with pytest.raises(InputError, match="at most"):
        unpack_code(pack(ENTRY, ("main.py", bytes(2000))), tmp_path)


def test_changed_code_is_not_run(tmp_path: Path) -> None:
    uri = publish(tmp_path, "print(1)")
    name = uri.rsplit("/", 1)[1]
    open_store(str(tmp_path / "code")).write(name, pack(ENTRY, ("main.py", b"print(2)")))

    with pytest.raises(IntegrityError, match="it was changed"):
        fetch_code(uri, tmp_path)


def decorated(function: Callable[[], None]) -> Callable[[], None]:
    return function


@decorated
def not_plain() -> None: ...


def without_default(rate: float) -> None: ...


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Path("/nowhere"), "There is no code at '/nowhere'"),
        (not_plain, "must be a plain function"),
        (without_default, "Parameter 'rate' of the function needs a default"),
        (print, "source of .* cannot be found"),
    ],
)
def test_code_that_cannot_travel_is_refused(
    source: Path | Callable[..., None], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        pack_code(source)


class Double(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


def test_a_description_may_name_what_the_program_cannot(tmp_path: Path) -> None:
    exported = tmp_path / "exported.pt2"
    torch.export.save(torch.export.export(Double(), (torch.ones(2, 4),)), exported)
    code = f"""
import argparse, json, pathlib, shutil
parser = argparse.ArgumentParser()
parser.add_argument("--model", type=pathlib.Path)
folder = parser.parse_args().model
shutil.copy({str(exported)!r}, folder / "model.pt2")
(folder / "model.json").write_text(json.dumps({{"inputs": ["signal"], "metrics": {{"mse": 0.5}}}}))
"""
    model = tmp_path / "model"

    assert main(["--code", publish(tmp_path, code), "--model", str(model)]) == 0

    package = open_package(model)
    assert [(spec.name, spec.datatype, spec.shape) for spec in package.manifest.inputs] == [
        ("signal", "FP32", (2, 4))
    ]
    assert package.manifest.metrics == {"mse": 0.5}
    assert torch.equal(package.load_model()(torch.ones(2, 4)), torch.full((2, 4), 2.0))


def test_images_travel_as_they_were_ingested(
    commit: Commit, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = """
import argparse, json, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--dataset", type=pathlib.Path)
folder = parser.parse_args().dataset
found = {split.name: len(list(split.glob("*/*"))) for split in folder.iterdir() if split.is_dir()}
print(json.dumps(found))
"""
    assert main(["--code", publish(tmp_path, code), "--dataset", commit.uri]) == 0

    found = json.loads(capfd.readouterr().out)
    dataset = open_dataset(commit.uri)
    assert found == {name: len(dataset.split(name)) for name in dataset.splits}
    assert np.sum([len(dataset.split(name)) for name in dataset.splits]) == 60
