"""What KFP's compiler writes for a component, recognised or left alone."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
from kfp import dsl

from kubeloop.local.kubelet.lightweight import (
    LightweightComponent,
    PipInstall,
    are_satisfied,
    parse_lightweight_command,
)

SCRIPT = """
program_path=$(mktemp -d)
printf "%s" "$0" > "$program_path/ephemeral_component.py"
_KFP_RUNTIME=true python3 -m kfp.dsl.executor_main \\
    --component_module_path "$program_path/ephemeral_component.py" "$@"
"""


def add(a: int, b: int) -> int:
    return a + b


def compile_command(function: Callable[..., Any] = add, **options: Any) -> list[str]:  # any kfp has
    component = dsl.component(base_image="python:3.11", **options)(function)
    container = component.component_spec.implementation.container
    return [*container.command, *(str(argument) for argument in container.args)]


def requirements_of(component: LightweightComponent | None) -> list[str]:
    assert component is not None
    return [text for install in component.installs for text in install.requirements]


def parse(**options: Any) -> LightweightComponent | None:  # as above
    return parse_lightweight_command(compile_command(**options))


def test_component_without_packages_needs_kfp_alone() -> None:
    component = parse()

    assert component is not None
    assert re.fullmatch(r"kfp==[\d.]+", requirements_of(component)[0])
    assert "def add(a: int, b: int)" in component.source
    assert component.arguments[0] == "--executor_input"
    assert component.arguments[2:] == ("--function_to_execute", "add")
    assert are_satisfied(requirements_of(component))


def test_component_that_installs_nothing_has_no_requirements() -> None:
    component = parse(install_kfp_package=False)

    assert component is not None
    assert component.installs == ()


def test_packages_to_install_are_requirements() -> None:
    component = parse(
        packages_to_install=["numpy>=1.20", "no-such-package==1"],
        pip_index_urls=["https://index.example/simple"],
        pip_trusted_hosts=["index.example"],
    )

    assert component is not None
    (wanted,) = [item for item in component.installs if "numpy>=1.20" in item.requirements]
    assert "no-such-package==1" in wanted.requirements
    index = ("--index-url", "https://index.example/simple")
    assert {*index, "--trusted-host", "index.example"} <= set(wanted.options)
    assert not are_satisfied(wanted.requirements)


def test_component_in_an_environment_of_its_own_is_recognised() -> None:
    if "use_venv" not in inspect.signature(dsl.component).parameters:
        pytest.skip("this version of kfp has no use_venv")
    component = parse(use_venv=True, packages_to_install=["numpy"])

    assert "numpy" in requirements_of(component)


def test_environment_script_of_later_versions_is_recognised() -> None:
    install = """
if ! [ -x "$(command -v pip)" ]; then
    python3 -m ensurepip || python3 -m ensurepip --user || apt-get install python3-pip
fi

PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install --quiet 'numpy' &&
export PIP_DISABLE_PIP_VERSION_CHECK=1
tmp=$(mktemp -d)
python3 -m venv "$tmp/venv" --system-site-packages
. "$tmp/venv/bin/activate"
 python3 -m pip install --quiet 'kfp==2.13.0' '--no-deps' && "$0" "$@"
"""
    component = parse_lightweight_command(
        ["sh", "-c", install, "sh", "-ec", SCRIPT, "source", "--x"]
    )

    assert component == LightweightComponent(
        source="source",
        arguments=("--x",),
        installs=(
            PipInstall(requirements=("numpy",), options=("--quiet",)),
            PipInstall(requirements=("kfp==2.13.0",), options=("--quiet", "--no-deps")),
        ),
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda argv: ["bash", *argv[1:]],
        lambda argv: [*argv[:2], argv[2].replace("pip install", "pip download"), *argv[3:]],
        lambda argv: [*argv[:2], "touch /tmp/x && " + argv[2], *argv[3:]],
        lambda argv: [*argv[:2], argv[2].replace('"$0" "$@"', '"$0" "$@" | tee log'), *argv[3:]],
        lambda argv: [*argv[:2], argv[2].replace("--quiet", "--target /x"), *argv[3:]],
        lambda argv: [*argv[:5], argv[5] + "\nrm -rf $program_path", *argv[6:]],
        lambda argv: [*argv[:5], argv[5].replace("executor_main", "other"), *argv[6:]],
        lambda argv: argv[:6],
        lambda argv: ["sh", "-c", "echo hello"],
        lambda argv: ["python", "-c", "pass"],
        lambda argv: [],
    ],
)
def test_any_other_command_is_left_alone(change: Callable[[list[str]], list[str]]) -> None:
    argv = compile_command()
    assert parse_lightweight_command(argv) is not None

    assert parse_lightweight_command(change(argv)) is None


@pytest.mark.parametrize(
    ("requirement", "satisfied"),
    [
        ("kfp", True),
        ("kfp==2.0.0", True),  # the compiler's pin: a later version runs it
        ("kfp==1.8.22", False),
        ("kfp==2.999.0", False),
        ("kfp<2", False),
        ("KFP>=2", True),
        ("numpy<1", False),
        ('no-such-package; python_version<"3"', True),
        ("no-such-package", False),
        ("uvicorn[standard]>=0.1", None),
        ("numpy @ https://index.example/numpy.whl", False),
        ("./a-folder", False),
        ("git+https://example.com/x", False),
    ],
)
def test_requirement_is_compared_with_what_is_installed(
    requirement: str, satisfied: bool | None
) -> None:
    assert are_satisfied([requirement]) in ((True, False) if satisfied is None else (satisfied,))
