"""Packages that components ask for: installed once, on top of the environment and beside it."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from kubeloop.local.kubelet.lightweight import PipInstall
from kubeloop.local.kubelet.requirement_sets import (
    NOTE_NAME,
    RequirementSet,
    RequirementSets,
    RequirementSetsConfig,
)
from kubeloop.testing.wheels import build_wheel

ENV = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PIP_NO_INDEX": "1"}
SHOW = (
    "import importlib.metadata as m, parcel, sys; "
    "print(parcel.CONTENT, m.version('packaging') != '', parcel.__file__)"
)


def find(
    sets: RequirementSets, *requirements: str, options: Sequence[str] = (), **env: str
) -> RequirementSet:
    install = PipInstall(requirements=requirements, options=tuple(options))
    found = sets.find([install], python=sys.executable, env={**ENV, **env})
    assert found is not None
    return found


def start(wanted: RequirementSet, *command: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(  # a test's own program
        wanted.build_installing_command([*command]),
        env=wanted.extend_env({**ENV, **env}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def install(wanted: RequirementSet, **env: str) -> tuple[int, str]:
    process = start(wanted, sys.executable, "-c", SHOW, **env)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


def test_a_set_has_what_is_missing_and_sees_the_environment(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path, "parcel", content="delivered", requires=["packaging"])
    wanted = find(RequirementSets(tmp_path / "sets"), str(wheel))
    assert not wanted.folder.exists()

    code, output = install(wanted)

    assert (code, output.split()[-3:-1]) == (0, ["delivered", "True"]), output
    assert wanted.is_ready
    packages = wanted.folder / "site-packages"
    assert output.split()[-1] == str(packages / "parcel.py")
    assert not list(packages.glob("packaging*"))  # the environment has it
    script = wanted.folder / "bin" / "parcel"
    done = subprocess.run(  # a test's own program
        [script], env=wanted.extend_env(ENV), capture_output=True, text=True, check=True
    )
    assert done.stdout == "delivered\n"
    assert sorted(path.name for path in wanted.folder.iterdir()) == [
        "bin",
        NOTE_NAME,
        "site-packages",
    ]
    with pytest.raises(ImportError):
        __import__("parcel")


def test_a_set_is_installed_once_by_processes_that_want_it_at_the_same_time(
    tmp_path: Path,
) -> None:
    wheel = build_wheel(tmp_path, "parcel", content="delivered")
    wanted = find(RequirementSets(tmp_path / "sets"), str(wheel))
    log = tmp_path / "pip.log"

    started = [
        start(wanted, sys.executable, "-c", SHOW, PIP_LOG=str(log), PIP_VERBOSE="1")
        for _ in range(3)
    ]
    outputs = [process.communicate(timeout=60)[0] for process in started]

    assert [process.returncode for process in started] == [0, 0, 0], outputs
    assert log.read_text().count("Successfully installed parcel") == 1


def test_a_broken_installation_is_not_kept_and_ends_the_program(tmp_path: Path) -> None:
    sets = RequirementSets(tmp_path / "sets")
    wanted = find(sets, "parcel", PIP_FIND_LINKS=str(tmp_path / "wheels"))

    code, output = install(wanted, PIP_FIND_LINKS=str(tmp_path / "wheels"))

    assert code == 1
    assert "No matching distribution found for parcel" in output
    assert "Failed to install the component's packages" in output
    assert "delivered" not in output
    assert not wanted.folder.exists()
    build_wheel(tmp_path / "wheels", "parcel", content="delivered")
    code, output = install(wanted, PIP_FIND_LINKS=str(tmp_path / "wheels"))
    assert code == 0, output
    assert wanted.is_ready


def test_the_order_of_requirements_does_not_matter_and_all_else_does(tmp_path: Path) -> None:
    sets = RequirementSets(tmp_path / "sets")
    wheel = build_wheel(tmp_path, "parcel", content="one")

    def folder(*requirements: str, options: Sequence[str] = (), **env: str) -> Path:
        return find(sets, *requirements, options=options, **env).folder

    one = folder("a", "b")
    assert folder("b", "a", HOME="/elsewhere") == one
    different = {
        folder("a"),
        folder("a", "b==1"),
        folder("a", "b", options=["--index-url", "https://index.example/simple"]),
        folder("a", "b", PIP_FIND_LINKS="/wheels"),
        folder(str(wheel)),
    }
    build_wheel(tmp_path, "parcel", content="another")
    different.add(folder(str(wheel)))
    assert len(different | {one}) == 7


def test_folders_and_other_interpreters_are_not_mixed_up(tmp_path: Path) -> None:
    sets = RequirementSets(tmp_path / "sets")
    wanted = [PipInstall(requirements=("a",))]
    own = sets.find(wanted, python=sys.executable, env={})
    other = sets.find(wanted, python="/other/bin/python", env={})
    assert own is not None
    assert other is not None
    assert own.folder != other.folder
    for requirement in (str(tmp_path), "./folder", "name @ file:///no/such/file.whl"):
        folder = [PipInstall(requirements=(requirement,))]
        assert sets.find(folder, python=sys.executable, env={}) is None


def test_pruning_keeps_what_was_used_last(tmp_path: Path) -> None:
    root = tmp_path / "sets"
    for name, used_at in (("old", 1), ("middle", 2), ("new", 3)):
        (root / name).mkdir(parents=True)
        (root / name / NOTE_NAME).write_text(json.dumps({"bytes": 10}))
        os.utime(root / name / NOTE_NAME, (used_at, used_at))
    (root / "half.partial").mkdir()
    (root / "half.lock").touch()

    RequirementSets(root, config=RequirementSetsConfig(max_bytes=20)).prune()

    assert sorted(path.name for path in root.iterdir()) == ["middle", "new"]
