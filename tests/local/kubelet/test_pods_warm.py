"""Python pods on a node with a warm parent: KFP components, private folders, installed packages."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from kubeloop.local.kubelet.kubelet import KubeletConfig
from kubeloop.local.kubelet.warm_parent import WarmConfig
from kubeloop.testing.kubelet import Cluster, phase, play
from kubeloop.testing.waiting import wait_until
from kubeloop.testing.wheels import build_wheel

WARM = KubeletConfig(warm=WarmConfig(layers=(("kfp", "kfp.dsl.executor_main"),)))
COLD = KubeletConfig(warm=WarmConfig(layers=()))


def add(a: int, b: int) -> int:
    import sys

    print("warm" if "kfp.client" in sys.modules else "cold")
    return a + b


def use_package() -> str:
    import sys

    import parcel  # type: ignore[import-not-found]  # made by the test

    print("warm" if "kfp.client" in sys.modules else "cold")
    return str(parcel.CONTENT)


def build_component(function: Any, outputs: Path, **options: Any) -> dict[str, Any]:  # kfp's own
    component = dsl.component(base_image="python:3.11", **options)(function)
    container = component.component_spec.implementation.container
    executor_input = {
        "inputs": {"parameterValues": {"a": 1, "b": 2}},
        "outputs": {"outputFile": str(outputs)},
    }
    return {
        "name": "main",
        "image": container.image,
        "command": [_escape(word) for word in container.command],
        "args": [
            *("--executor_input", _escape(json.dumps(executor_input))),
            *("--function_to_execute", function.__name__),
        ],
    }


def _escape(word: str) -> str:
    return word.replace("$", "$$")


@pytest.mark.parametrize("options", [{}, {"install_kfp_package": False}])
def test_component_runs_warm_and_writes_its_output(tmp_path: Path, options: dict[str, Any]) -> None:
    outputs = tmp_path / "outputs" / "output.json"

    async def scenario(cluster: Cluster) -> None:
        await cluster.kubelet.processes.wait_until_warm()
        container = build_component(add, outputs, **options)

        pod = await cluster.run("add", containers=[container])

        log = await cluster.log("add")
        assert phase(pod) == "Succeeded", log
        assert json.loads(outputs.read_text()) == {"parameterValues": {"Output": 3}}
        assert "warm\n" in log
        assert "Warning" not in log

    play(tmp_path, scenario, config=WARM)


def test_component_s_packages_are_installed_once_and_for_it_alone(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path / "wheels", "parcel", content="delivered")
    outputs = tmp_path / "outputs" / "output.json"

    async def unpack(cluster: Cluster, name: str) -> str:
        container = build_component(
            use_package, outputs, packages_to_install=["parcel"], install_kfp_package=False
        )
        container["env"] = [
            {"name": "PIP_NO_INDEX", "value": "1"},
            {"name": "PIP_FIND_LINKS", "value": str(wheel.parent)},
        ]
        outputs.unlink(missing_ok=True)
        pod = await cluster.run(name, containers=[container])
        log = await cluster.log(name)
        assert phase(pod) == "Succeeded", log
        assert json.loads(outputs.read_text()) == {"parameterValues": {"Output": "delivered"}}
        return log

    async def scenario(cluster: Cluster) -> None:
        await cluster.kubelet.processes.wait_until_warm()
        await unpack(cluster, "first")
        wheel.unlink()

        assert "warm\n" in await unpack(cluster, "second")

    play(tmp_path, scenario, config=WARM)
    with pytest.raises(ImportError):
        __import__("parcel")


def test_pod_works_in_private_folders(tmp_path: Path) -> None:
    program = """
import os, pathlib, tempfile, json
print(json.dumps([os.getcwd(), str(pathlib.Path.home()), tempfile.mkdtemp()]))
"""

    async def scenario(cluster: Cluster) -> None:
        pods = [
            await cluster.run(name, "python", "-c", program, restartPolicy="Never")
            for name in ("one", "two")
        ]
        folders = [json.loads(await cluster.log(name)) for name in ("one", "two")]

        for pod, (work, home, _) in zip(pods, folders, strict=True):
            own = tmp_path / "pods" / pod["metadata"]["uid"] / "work"
            assert (Path(work), Path(home)) == (own, own / "home")
            await wait_until(lambda: not own.exists())  # noqa: B023  # but its log stays
        temporaries = [Path(temporary).parent for *_, temporary in folders]
        assert temporaries[0] != temporaries[1]
        await wait_until(lambda: not any(map(Path.exists, temporaries)))

    play(tmp_path, scenario, config=COLD)


def test_temporary_folder_is_short_enough_for_sockets(tmp_path: Path) -> None:
    program = """
import multiprocessing
if __name__ == '__main__':
    with multiprocessing.Manager() as manager:
        print(manager.list([1, 2]))
"""
    state = tmp_path / ("deep" * 20)

    async def scenario(cluster: Cluster) -> None:
        pod = await cluster.run("manager", "python", "-c", program)

        assert phase(pod) == "Succeeded", await cluster.log("manager")
        assert await cluster.log("manager") == "[1, 2]\n"

    play(state, scenario, config=COLD)


def test_nothing_of_the_daemon_s_environment_is_inherited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    async def scenario(cluster: Cluster) -> None:
        for name, command in (
            ("plain", ["env"]),
            ("warm", ["python", "-c", "import os; print(dict(os.environ), sorted(os.environ))"]),
        ):
            await cluster.run(name, *command)
            assert "KUBECONFIG" in await cluster.log(name)
            assert "secret" not in (await cluster.log(name)).lower()

    play(tmp_path, scenario, config=COLD)


def test_python_of_the_image_is_the_environment_s(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        script = 'python -c "import sys; print(sys.executable)"; python3 -c "import kubeloop"'
        pod = await cluster.run("which", "sh", "-ec", script)

        assert phase(pod) == "Succeeded", await cluster.log("which")
        executable = (await cluster.log("which")).strip()
        assert Path(executable).parent == Path(sys.executable).parent

    play(tmp_path, scenario, config=COLD)
