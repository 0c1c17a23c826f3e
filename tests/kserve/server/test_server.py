from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from kubeloop.kserve.server.dataplane import DataPlane
from kubeloop.testing.model_server import (
    INFER,
    PREDICT,
    RED,
    ask,
    get,
    post,
    run,
)


@pytest.mark.parametrize(
    ("path", "reply"),
    [
        ("/", {"status": "alive"}),
        ("/v1/models", {"models": ["colors"]}),
        ("/v1/models/colors", {"name": "colors", "ready": True}),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models", {"models": ["colors"]}),
        ("/v2/models/colors/ready", {"name": "colors", "ready": True}),
    ],
)
def test_health_and_lists_answer_as_kserve_does(
    color_package: Path, path: str, reply: dict[str, Any]
) -> None:
    response = get(color_package, path)

    assert response.status_code == 200
    assert response.json() == reply


def test_server_metadata_names_its_extensions(color_package: Path) -> None:
    reply = get(color_package, "/v2").json()

    assert reply["name"] == "kubeloop"
    assert "model_repository_extension" in reply["extensions"]


def test_model_metadata_is_the_packages_signature(color_package: Path) -> None:
    reply = get(color_package, "/v2/models/colors").json()

    assert reply["name"] == "colors"
    assert reply["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}]
    assert [output["name"] for output in reply["outputs"]] == ["probabilities", "label"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models/other"),
        ("POST", "/v1/models/other:predict"),
        ("GET", "/v2/models/other"),
        ("GET", "/v2/models/other/ready"),
        ("POST", "/v2/models/other/infer"),
        ("POST", "/v2/repository/models/other/unload"),
    ],
)
def test_unknown_model_is_404(color_package: Path, method: str, path: str) -> None:
    response = ask(color_package, method, path, content=b"{}")

    assert response.status_code == 404
    assert response.json() == {"error": "Model with name other does not exist."}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models/colors"),
        ("POST", PREDICT),
        ("GET", "/v2/models/colors/ready"),
        ("POST", INFER),
    ],
)
def test_model_that_is_not_loaded_is_503(color_package: Path, method: str, path: str) -> None:
    response = ask(color_package, method, path, content=b"{}", load=False)

    assert response.status_code == 503
    assert response.json() == {"error": "Model with name colors is not ready."}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/models/colors/versions/1"),
        ("GET", "/v2/models/colors/versions/1/ready"),
        ("POST", "/v2/models/colors/versions/1/infer"),
        ("POST", "/v1/models/colors:explain"),
    ],
)
def test_what_is_not_there_is_501(color_package: Path, method: str, path: str) -> None:
    assert ask(color_package, method, path, content=b"{}").status_code == 501


def test_path_that_nobody_serves_is_404(color_package: Path) -> None:
    response = get(color_package, "/nope")

    assert response.status_code == 404
    assert response.json() == {"detail": "Not Found"}


def test_body_above_the_limit_is_413(color_package: Path) -> None:
    response = post(color_package, PREDICT, {"instances": [RED] * 50}, max_body_bytes=100)

    assert response.status_code == 413
    assert "longer than 100 bytes" in response.json()["error"]


def test_model_is_unloaded_and_loaded_again(color_package: Path) -> None:
    async def check(client: httpx.AsyncClient, _: DataPlane) -> None:
        unloaded = await client.post("/v2/repository/models/colors/unload")
        assert unloaded.json() == {"name": "colors", "unload": True}
        assert (await client.post(PREDICT, json={"instances": [RED]})).status_code == 503
        assert (await client.get("/v2/health/ready")).status_code == 503

        loaded = await client.post("/v2/repository/models/colors/load")
        assert loaded.json() == {"name": "colors", "load": True}
        assert (await client.post(PREDICT, json={"instances": [RED]})).status_code == 200

    run(color_package, check)


def test_package_that_broke_meanwhile_is_not_loaded_again(copy_package: Callable[[], Path]) -> None:
    folder = copy_package()

    async def check(client: httpx.AsyncClient, _: DataPlane) -> None:
        (folder / "model.pt2").write_bytes(b"other")
        reply = await client.post("/v2/repository/models/colors/load")

        assert reply.status_code == 503
        assert reply.json() == {
            "error": "Model with name colors is not ready. Error type: IntegrityError"
        }
        assert (await client.post(PREDICT, json={"instances": [RED]})).status_code == 200

    run(folder, check)


def test_loading_an_unknown_model_is_503(color_package: Path) -> None:
    response = post(color_package, "/v2/repository/models/other/load", b"")

    assert response.status_code == 503
    assert response.json() == {"error": "Model with name other is not ready."}


def test_draining_server_says_not_ready_and_still_predicts(color_package: Path) -> None:
    async def check(client: httpx.AsyncClient, plane: DataPlane) -> None:
        plane.begin_draining()

        assert (await client.get("/v2/health/ready")).status_code == 503
        assert (await client.post(PREDICT, json={"instances": [RED]})).status_code == 200

    run(color_package, check)


def test_metrics_count_requests_and_seconds(color_package: Path) -> None:
    async def check(client: httpx.AsyncClient, _: DataPlane) -> None:
        await client.post(PREDICT, json={"instances": [RED]})
        await client.post(PREDICT, content=b"{bad")

        text = (await client.get("/metrics")).text
        assert 'request_predict_seconds_count{model_name="colors"} 1.0' in text
        assert 'request_preprocess_seconds_count{model_name="colors"} 1.0' in text
        assert 'kubeloop_requests_total{code="200",path="v1/predict"} 1.0' in text
        assert 'kubeloop_requests_total{code="400",path="failed"} 1.0' in text
        assert 'kubeloop_model_ready{model_name="colors"} 1.0' in text

    run(color_package, check)


def test_folder_of_packages_serves_each_by_its_name(
    color_package: Path, shade_package: Path, tmp_path: Path
) -> None:
    (tmp_path / "colors").symlink_to(color_package)
    (tmp_path / "shades").symlink_to(shade_package)

    assert get(tmp_path, "/v1/models").json() == {"models": ["colors", "shades"]}
    reply = post(tmp_path, "/v1/models/shades:predict", {"instances": [[[250]]]}).json()
    assert reply["predictions"][0]["label"] == "light"
