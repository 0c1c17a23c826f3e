import socket
from pathlib import Path

import pytest

from kubeloop.cli.main import run

COMMANDS = [
    "up", "down", "status", "run", "check", "runs", "runs list", "runs show", "runs why",
    "runs logs", "runs compare", "runs terminate", "runs retry", "runs clone", "runs archive",
    "runs unarchive", "runs delete", "endpoints", "predict", "lineage", "demo",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Usage" in shown
    if command != "status":
        assert f"kubeloop {command}" in shown.replace("\n", " ")


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["runs"], ["endpoints"], ["lineage", "digits"], ["predict", "d", "--json", "{}"]],
)
def test_commands_without_a_control_plane_say_how_to_start_one(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run([*arguments, "--state", str(tmp_path / "state")])
    message = capsys.readouterr().err
    if arguments[0] == "predict":
        assert (code, "instances" in message) == (2, True)
        return
    assert code == 1
    assert "kubeloop up" in message


@pytest.mark.parametrize("inputs", [[], ["a.png", "--text", "a"], ["--text", "a", "--json", "{}"]])
def test_predict_takes_inputs_in_one_way(
    inputs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["predict", "d", *inputs, "--state", str(tmp_path / "state")]) == 2
    assert "one of these" in capsys.readouterr().err.replace("\n", " ")


def test_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fly"]) == 2
    assert "fly" in capsys.readouterr().err


def test_missing_pipeline_file_is_wrong_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["run", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml: No such file" in capsys.readouterr().err.replace("\n", "")


def test_taken_port_is_named_with_the_option_that_changes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        arguments = ["up", "--state", str(tmp_path / "state"), "--api-port", "0"]
        code = run([*arguments, "--gateway-port", "0", "--kfp-port", str(port)])
    message = capsys.readouterr().err
    assert code == 1
    assert f"127.0.0.1:{port}" in message
    assert "--kfp-port" in message


def test_down_without_a_control_plane_is_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["down", "--state", str(tmp_path / "state")]) == 0
    assert "No control plane runs" in capsys.readouterr().out
