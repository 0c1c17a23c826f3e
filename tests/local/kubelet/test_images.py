from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kubeloop.errors import InputError
from kubeloop.local.kubelet.images import (
    ImagesConfig,
    choose_command,
    is_own_python,
    resolve_program,
)


def test_every_image_has_our_python_unless_the_table_says_otherwise() -> None:
    config = ImagesConfig(pythons={"registry.example/me/*": Path("/venvs/me/bin/python")})

    assert config.find_python("registry.example/me/train:1") == "/venvs/me/bin/python"
    assert config.find_python("python:3.11") == sys.executable
    assert is_own_python(sys.executable)
    assert not is_own_python("/venvs/me/bin/python")


@pytest.mark.parametrize(
    ("argv", "resolved"),
    [
        (["python", "-c", "x"], ["/env/bin/python3.11", "-c", "x"]),
        (["python3", "a.py"], ["/env/bin/python3.11", "a.py"]),
        (["/usr/bin/python3.9", "a.py"], ["/env/bin/python3.11", "a.py"]),
        (["/usr/local/bin/python"], ["/env/bin/python3.11"]),
        (["/home/me/venv/bin/python", "a.py"], ["/home/me/venv/bin/python", "a.py"]),
        (["./python"], ["./python"]),
        (["python2"], ["python2"]),
        (["sh", "-c", "python x"], ["sh", "-c", "python x"]),
        (["/bin/true"], ["/bin/true"]),
    ],
)
def test_python_of_an_image_is_that_of_its_environment(
    argv: list[str], resolved: list[str]
) -> None:
    assert resolve_program(argv, python="/env/bin/python3.11") == resolved


def test_installed_script_starts_through_python(tmp_path: Path) -> None:
    python = tmp_path / "python"
    (tmp_path / "tool").write_text(f"#!{python}\nprint()\n")
    (tmp_path / "other").write_text("#!/bin/sh\n")

    assert resolve_program(["tool", "x"], python=str(python)) == [
        str(python),
        str(tmp_path / "tool"),
        "x",
    ]
    assert resolve_program(["other"], python=str(python)) == ["other"]


def test_image_without_a_known_entry_point_needs_a_command() -> None:
    config = ImagesConfig()

    assert choose_command({"image": "x", "command": ["run"]}, config) == ["run"]
    assert choose_command({"image": "kserve/storage-initializer:v0.15"}, config) == [
        "python",
        "-m",
        "kubeloop.kserve.storage_initializer",
    ]
    with pytest.raises(InputError, match=r"'nginx:1'.*command"):
        choose_command({"image": "nginx:1", "args": ["-g"]}, config)
