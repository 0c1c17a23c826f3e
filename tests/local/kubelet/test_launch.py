from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from kubeloop.local.kubelet.environment import PodFolders
from kubeloop.local.kubelet.images import ImagesConfig
from kubeloop.local.kubelet.launch import PodContext, build_process_spec
from kubeloop.local.kubelet.network import Translation
from kubeloop.local.kubelet.process import ProcessSpec
from kubeloop.local.kubelet.references import References
from kubeloop.local.kubelet.requirement_sets import INSTALLER_MODULE, RequirementSets

EXECUTE = """
program_path=$(mktemp -d)

printf "%s" "$0" > "$program_path/ephemeral_component.py"
_KFP_RUNTIME=true python3 -m kfp.dsl.executor_main                         \
    --component_module_path                         "$program_path/ephemeral_component.py" "$@"
"""
INSTALL = 'python3 -m pip install --quiet {} && "$0" "$@"'


def build(
    tmp_path: Path,
    container: dict[str, Any],  # JSON
    *,
    volumes: dict[str, Path] | None = None,
    images: ImagesConfig | None = None,
) -> ProcessSpec:
    container = {"name": "main", "image": "python:3.11", **container}
    pod = {
        "metadata": {"name": "pod", "namespace": "default", "uid": "u"},
        "spec": {"containers": [container]},
    }
    folders = PodFolders.below(tmp_path)
    folders.create()
    context = PodContext(
        pod=pod,
        folders=folders,
        shared_env={"LANG": "C.UTF-8"},
        volumes=volumes or {},
        references=References(),
        translation=Translation(own_ports={8080: 20001}, services={}),
        allocatable={},
        devices={},
        requirement_sets=RequirementSets(tmp_path / "sets"),
    )
    return build_process_spec(
        container, context=context, images=images or ImagesConfig(), log=tmp_path / "log"
    )


def test_command_arguments_and_environment_are_expanded_and_translated(tmp_path: Path) -> None:
    spec = build(
        tmp_path,
        {
            "command": ["python", "-m", "server"],
            "args": ["--http_port=8080", "--model_dir=$(MODELS)", "$(UNKNOWN)"],
            "env": [{"name": "MODELS", "value": "/mnt/models"}, {"name": "PORT", "value": "8080"}],
            "volumeMounts": [{"name": "models", "mountPath": "/mnt/models"}],
        },
        volumes={"models": tmp_path / "volumes" / "models"},
    )

    models = str(tmp_path / "volumes" / "models")
    assert spec.argv == (
        *(sys.executable, "-m", "server"),
        *("--http_port=20001", f"--model_dir={models}", "$(UNKNOWN)"),
    )
    assert spec.env["MODELS"] == models
    assert spec.env["PORT"] == "20001"
    assert spec.cwd == tmp_path / "work"
    assert spec.warm


def test_mount_over_a_folder_of_the_host_leaves_the_pod_s_own_folders_alone(tmp_path: Path) -> None:
    mounted = "/" + tmp_path.parts[1]
    spec = build(
        tmp_path,
        {
            "command": ["python", "-c", "pass"],
            "volumeMounts": [{"name": "v", "mountPath": mounted}],
        },
        volumes={"v": tmp_path / "v"},
    )

    assert spec.env["TMPDIR"] == str(tmp_path / "work" / "tmp")
    assert spec.argv[0] == sys.executable


def test_working_directory_in_a_volume_is_used(tmp_path: Path) -> None:
    spec = build(
        tmp_path,
        {
            "command": ["true"],
            "workingDir": "/data/x",
            "volumeMounts": [{"name": "v", "mountPath": "/data"}],
        },
        volumes={"v": tmp_path / "v"},
    )

    assert spec.cwd == tmp_path / "v" / "x"
    assert spec.cwd.is_dir()
    assert not spec.warm


def test_image_of_another_environment_is_not_run_warm(tmp_path: Path) -> None:
    images = ImagesConfig(pythons={"python:*": Path("/other/bin/python")})

    spec = build(tmp_path, {"command": ["python", "-c", "pass"]}, images=images)

    assert spec.argv[0] == "/other/bin/python"
    assert spec.env["PATH"].startswith("/other/bin:")
    assert not spec.warm


@pytest.mark.parametrize("install", [[], ["sh", "-c", INSTALL.format("'kfp' 'pytest>=1'")]])
def test_component_whose_packages_are_there_runs_without_shells(
    tmp_path: Path, install: list[str]
) -> None:
    spec = build(
        tmp_path,
        {
            "command": [*install, "sh", "-ec", EXECUTE, "the source"],
            "args": ["--executor_input", "{}", "--function_to_execute", "add"],
        },
    )

    path = Path(spec.argv[4])
    assert spec.argv == (
        *(sys.executable, "-m", "kfp.dsl.executor_main", "--component_module_path", str(path)),
        *("--executor_input", "{}", "--function_to_execute", "add"),
    )
    assert path.read_text() == "the source"
    assert path.is_relative_to(tmp_path / "work" / "tmp")
    assert spec.env["_KFP_RUNTIME"] == "true"
    assert spec.warm


def test_component_that_needs_a_package_installs_it_before_it_runs(tmp_path: Path) -> None:
    spec = build(tmp_path, {"command": _installing("no-such-package")})

    assert spec.argv[:3] == (sys.executable, "-m", INSTALLER_MODULE)
    assert spec.argv[4:7] == (sys.executable, "-m", "kfp.dsl.executor_main")
    packages, _, usual = spec.env["PYTHONPATH"].partition(":")
    assert Path(packages).is_relative_to(tmp_path / "sets")
    assert usual == str(tmp_path / "work" / "site-packages")


def test_component_of_another_environment_installs_what_it_asks_for_on_top_of_that(
    tmp_path: Path,
) -> None:
    images = ImagesConfig(pythons={"python:*": Path("/other/bin/python")})

    spec = build(tmp_path, {"command": _installing("kfp")}, images=images)

    assert spec.argv[4:6] == ("/other/bin/python", "-m")
    assert json.loads(spec.argv[3])["python"] == "/other/bin/python"


def test_component_that_installs_a_folder_does_it_for_itself(tmp_path: Path) -> None:
    command = _installing(str(tmp_path))

    spec = build(tmp_path, {"command": command})

    assert list(spec.argv) == command
    assert spec.env["PIP_TARGET"] == str(tmp_path / "work" / "site-packages")
    assert spec.env["PYTHONPATH"] == spec.env["PIP_TARGET"]
    assert not spec.warm


def _installing(requirement: str) -> list[str]:
    return ["sh", "-c", INSTALL.format(f"'{requirement}'"), "sh", "-ec", EXECUTE, "source"]
