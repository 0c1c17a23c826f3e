"""Endpoints on the embedded plane: real operators, real pods, real requests."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from kubeloop.errors import PermanentError
from kubeloop.kserve import deployments
from kubeloop.kserve.client import PredictionClient
from kubeloop.kserve.deployments import WaitConfig, connect
from kubeloop.kserve.endpoints import Endpoint
from kubeloop.kserve.inference_services import InferenceServiceConfig
from kubeloop.kserve.runtime import build_serving_runtime
from kubeloop.local.control_plane import ControlPlaneConfig, control_plane
from kubeloop.local.state import StateFolder
from kubeloop.testing.official_clients import close_connections

RED = [[[250, 10, 10]] * 4] * 3

Deploy = Callable[[InferenceServiceConfig], Endpoint]


async def run_plane(state: StateFolder, started: threading.Event, stops: list[Any]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    stops.append(lambda: loop.call_soon_threadsafe(stop.set))
    runtime = build_serving_runtime()
    async with control_plane(ControlPlaneConfig(state=state, bootstrap_manifests=(runtime,))):
        started.set()
        await stop.wait()


@pytest.fixture(scope="module")
def kserve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """KServe's client of a plane that runs as long as this module's tests."""
    state = StateFolder(tmp_path_factory.mktemp("plane"))
    started, stops = threading.Event(), list[Any]()
    with ThreadPoolExecutor(max_workers=1) as pool:
        running = pool.submit(lambda: asyncio.run(run_plane(state, started, stops)))
        assert started.wait(30), running.exception()
        client = connect(config_file=str(state.kubeconfig))
        yield client
        close_connections(client.core_api, client.app_api, client.api_instance)
        stops[0]()
        running.result(30)


@pytest.fixture
def deploy(kserve: Any) -> Deploy:
    wait = WaitConfig(timeout_seconds=60)
    return lambda config: deployments.deploy(config, client=kserve, wait=wait)


def ask_until(done: threading.Event, endpoint: Endpoint) -> list[str]:
    """Predict without a pause; returns what came back other than the right answer."""
    wrong = []
    url = f"{endpoint.url}/v1/models/{endpoint.name}:predict"
    with httpx.Client(timeout=30) as http:
        while not done.is_set():
            response = http.post(url, json={"instances": [RED]})
            if response.status_code != 200 or '"label":"red"' not in response.text:
                wrong.append(f"{response.status_code}: {response.text}")
    return wrong


def test_deployed_model_answers_in_both_protocols(deploy: Deploy, shade_package: Path) -> None:
    endpoint = deploy(InferenceServiceConfig(name="shades", model_uri=str(shade_package)))

    with PredictionClient(endpoint.url, endpoint.name) as client:
        assert client.is_ready()
        assert [item.label for item in client.classify([[[250]], [[5]]])] == ["light", "dark"]
        assert client.read_metadata()["inputs"][0]["name"] == "image"


def test_updates_good_and_bad_leave_no_gap(
    deploy: Deploy, color_package: Path, tmp_path: Path
) -> None:
    config = InferenceServiceConfig(name="colors", model_uri=str(color_package))
    endpoint = deploy(config)
    done = threading.Event()
    with ThreadPoolExecutor(max_workers=2) as pool:
        asking = [pool.submit(ask_until, done, endpoint) for _ in range(2)]
        try:
            updated = deploy(replace(config, env={"A": "1"}))
            with pytest.raises(PermanentError, match="there is no such folder"):
                deploy(replace(config, model_uri=str(tmp_path / "nothing")))
        finally:
            done.set()

    assert [wrong for each in asking for wrong in each.result()] == []
    assert updated.url == endpoint.url


def test_damaged_package_is_refused_by_its_digest(
    deploy: Deploy, copy_package: Callable[[], Path]
) -> None:
    folder = copy_package()
    (folder / "model.pt2").write_bytes(b"damaged")

    with pytest.raises(PermanentError, match="was changed or damaged"):
        deploy(InferenceServiceConfig(name="damaged", model_uri=str(folder)))
