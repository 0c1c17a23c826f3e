import asyncio
import base64
import io
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from kubeloop.kserve.server.app import AppConfig, build_app
from kubeloop.kserve.server.dataplane import DataPlane
from kubeloop.kserve.server.metrics import ServerMetrics
from kubeloop.kserve.server.repository import ModelRepository, find_packages
from PIL import Image

LENGTH = "inference-header-content-length"
RED = [[[250, 10, 10]] * 4] * 3
BLUE = [[[10, 10, 250]] * 4] * 3
PREDICT = "/v1/models/colors:predict"
INFER = "/v2/models/colors/infer"

Check = Callable[[httpx.AsyncClient, DataPlane], Awaitable[None]]


@asynccontextmanager
async def serving(
    folder: Path, *, name: str = "colors", load: bool = True, max_body_bytes: int = 1 << 20
) -> AsyncIterator[tuple[httpx.AsyncClient, DataPlane]]:
    metrics = ServerMetrics()
    repository = ModelRepository(find_packages(folder, model_name=name), metrics=metrics)
    if load:
        await repository.load_all()
    plane = DataPlane(repository)
    app = build_app(plane, metrics=metrics, config=AppConfig(max_body_bytes=max_body_bytes))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://model") as client:
        yield client, plane
    await repository.close()


def run(folder: Path, check: Check, **options: Any) -> None:
    async def main() -> None:
        async with serving(folder, **options) as (client, plane):
            await check(client, plane)

    asyncio.run(main())


def get(folder: Path, path: str, **options: Any) -> httpx.Response:
    return ask(folder, "GET", path, **options)


def post(folder: Path, path: str, content: Any, **options: Any) -> httpx.Response:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    headers = options.pop("headers", {"content-type": "application/json"})
    return ask(folder, "POST", path, content=body, headers=headers, **options)


def ask(
    folder: Path,
    method: str,
    path: str,
    *,
    content: bytes | None = None,
    headers: dict[str, str] | None = None,
    **options: Any,
) -> httpx.Response:
    replies: list[httpx.Response] = []

    async def check(client: httpx.AsyncClient, _: DataPlane) -> None:
        replies.append(await client.request(method, path, content=content, headers=headers))

    run(folder, check, **options)
    return replies[0]


def png(color: tuple[int, int, int], size: tuple[int, int] = (5, 6)) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def tensor(**fields: Any) -> dict[str, Any]:
    image = {"name": "image", "shape": [1, 1, 1, 3], "datatype": "UINT8", "data": [250, 10, 10]}
    return {"inputs": [{**image, **fields}]}


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


def test_v1_predicts_pixels_and_files_of_different_sizes_in_order(color_package: Path) -> None:
    instances = [BLUE, {"b64": png((255, 0, 0))}, {"b64": png((0, 255, 0), (9, 4))}]

    reply = post(color_package, PREDICT, {"instances": instances}).json()

    assert [item["label"] for item in reply["predictions"]] == ["blue", "red", "green"]
    for item in reply["predictions"]:
        assert set(item["probabilities"]) == {"red", "green", "blue"}
        assert sum(item["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert item["probabilities"][item["label"]] > 0.9


def test_v1_grey_model_takes_flat_rows_and_colours(shade_package: Path) -> None:
    instances = [[[5, 5], [5, 5]], [[[250], [250]]], [[[250, 250, 250]] * 2]]

    reply = post(shade_package, PREDICT, {"instances": instances}).json()

    assert [item["label"] for item in reply["predictions"]] == ["dark", "light", "light"]


def test_v1_takes_inputs_as_another_word_for_instances(color_package: Path) -> None:
    reply = post(color_package, PREDICT, {"inputs": [RED]}).json()

    assert reply["predictions"][0]["label"] == "red"


def test_v1_without_instances_predicts_nothing(color_package: Path) -> None:
    assert post(color_package, PREDICT, {"instances": []}).json() == {"predictions": []}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{bad", "Unrecognized request format: "),
        ({}, 'Expected "instances" to be a list'),
        ([1], 'Expected "instances" to be a list'),
        ({"instances": 3}, 'Expected "instances" to be a list'),
        ({"instances": [RED, "x"]}, "Instance 1 must be height x width"),
        ({"instances": [[[1, 2], [3]]]}, "Instance 0 must be height x width"),
        ({"instances": [[[[1, 2]]]]}, "not 2 channels"),
        ({"instances": [[[256]]]}, "from 0 to 255"),
        ({"instances": [[[-1]]]}, "from 0 to 255"),
        ({"instances": [[[0.5]]]}, "scale fractions"),
        ({"instances": [{"png": "x"}]}, "without 'b64'"),
        ({"instances": [{"b64": "*"}]}, "no base64"),
        ({"instances": [{"b64": "aGk="}]}, "Instance 0 cannot be decoded: not an image"),
    ],
)
def test_v1_bad_body_is_400_with_its_fault(color_package: Path, body: Any, message: str) -> None:
    response = post(color_package, PREDICT, body)

    assert response.status_code == 400
    assert message in response.json()["error"]


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


def test_v2_infers_a_tensor(color_package: Path) -> None:
    reply = post(color_package, INFER, {"id": "7", **tensor()}).json()

    assert reply["id"] == "7"
    assert reply["model_name"] == "colors"
    probabilities, label = reply["outputs"]
    assert probabilities["name"] == "probabilities"
    assert probabilities["datatype"] == "FP32"
    assert probabilities["shape"] == [1, 3]
    assert sum(probabilities["data"]) == pytest.approx(1, abs=1e-5)
    assert label == {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["red"]}


def test_v2_gives_an_id_to_requests_without_one(color_package: Path) -> None:
    assert len(post(color_package, INFER, tensor()).json()["id"]) == 36


def test_v2_takes_nested_data(color_package: Path) -> None:
    reply = post(color_package, INFER, tensor(data=[[[[10, 10, 250]]]])).json()

    assert reply["outputs"][1]["data"] == ["blue"]


def test_v2_answers_only_the_outputs_that_are_asked_for(color_package: Path) -> None:
    reply = post(color_package, INFER, {**tensor(), "outputs": [{"name": "label"}]}).json()

    assert [output["name"] for output in reply["outputs"]] == ["label"]


def test_v2_binary_form_goes_both_ways(color_package: Path) -> None:
    pixels = np.array([250, 10, 10, 10, 250, 10], dtype=np.uint8).tobytes()
    image = {
        "name": "image",
        "shape": [2, 1, 1, 3],
        "datatype": "UINT8",
        "parameters": {"binary_data_size": len(pixels)},
    }
    head = json.dumps({"inputs": [image], "parameters": {"binary_data_output": True}}).encode()

    response = post(color_package, INFER, head + pixels, headers={LENGTH: str(len(head))})

    length = int(response.headers[LENGTH])
    reply, tail = json.loads(response.content[:length]), response.content[length:]
    probabilities, label = reply["outputs"]
    assert response.headers["content-type"] == "application/octet-stream"
    assert probabilities["parameters"] == {"binary_data_size": 24}
    scores = np.frombuffer(tail[:24], dtype="<f4").reshape(2, 3)
    assert scores.argmax(axis=1).tolist() == [0, 1]
    assert label["shape"] == [2]
    assert tail[24:] == struct.pack("<I", 3) + b"red" + struct.pack("<I", 5) + b"green"


def test_v2_takes_image_files_as_bytes(color_package: Path) -> None:
    files = [base64.b64decode(png(color)) for color in ((0, 0, 255), (0, 255, 0))]
    data = b"".join(struct.pack("<I", len(file)) + file for file in files)
    image = {
        "name": "image",
        "shape": [2],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(data)},
    }
    head = json.dumps({"inputs": [image]}).encode()

    reply = post(color_package, INFER, head + data, headers={LENGTH: str(len(head))}).json()

    assert reply["outputs"][1]["data"] == ["blue", "green"]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, ["body", "InferenceRequest", "inputs"]),
        ({"inputs": 3}, ["body", "InferenceRequest", "inputs"]),
        ({"inputs": [3]}, ["body", "InferenceRequest", "inputs", 0]),
        ({"inputs": [{"name": "image"}]}, ["body", "InferenceRequest", "inputs", 0, "shape"]),
        (tensor(shape="x"), ["body", "InferenceRequest", "inputs", 0, "shape"]),
        (tensor(data=3), ["body", "InferenceRequest", "inputs", 0, "data"]),
        ({**tensor(), "id": 3}, ["body", "InferenceRequest", "id"]),
        ({**tensor(), "outputs": [{}]}, ["body", "InferenceRequest", "outputs", 0, "name"]),
        (b"{bad", ["body", 1]),
    ],
)
def test_v2_body_of_another_schema_is_422_with_its_place(
    color_package: Path, body: Any, place: list[Any]
) -> None:
    response = post(color_package, INFER, body)

    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == place


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (tensor(name="x"), "Unknown input 'x'"),
        ({"inputs": []}, "Input 'image' is missing"),
        ({"inputs": tensor()["inputs"] * 2}, "given twice"),
        (tensor(datatype="UINT9"), "Unknown datatype 'UINT9'"),
        (tensor(datatype="FP32"), "must be UINT8"),
        (tensor(data=[1, 2]), "has 2 elements, not the 3"),
        (tensor(data=["a", "b", "c"]), "no UINT8"),
        (tensor(data=[1.5, 2, 3]), "no UINT8"),
        (tensor(data=[1, 2, 300]), "outside 0 to 255"),
        (tensor(data=[[1], [2, 3]]), "cannot be read as UINT8"),
        (tensor(shape=[1, -1, 1, 3]), "sizes are 0 or more"),
        (tensor(shape=[0, 1, 1, 3], data=[]), "is empty"),
        (tensor(datatype="BYTES", shape=[1], data=["hi"]), "element 0 cannot be decoded"),
        ({**tensor(), "outputs": [{"name": "x"}]}, "has no output 'x'"),
    ],
)
def test_v2_tensor_that_does_not_fit_is_400(color_package: Path, body: Any, message: str) -> None:
    response = post(color_package, INFER, body)

    assert response.status_code == 400
    assert message in response.json()["error"]


@pytest.mark.parametrize(
    ("headers", "body", "message"),
    [
        ({"content-type": "application/octet-stream"}, b"abc", "header is missing"),
        ({LENGTH: "x"}, b"{}", "must be a length"),
        ({LENGTH: "99"}, b"{}", "but the body has 2 bytes"),
        ({LENGTH: "4"}, b"{bad", "Unrecognized request format"),
    ],
)
def test_v2_broken_binary_form_is_400(
    color_package: Path, headers: dict[str, str], body: bytes, message: str
) -> None:
    response = post(color_package, INFER, body, headers=headers)

    assert response.status_code == 400
    assert message in response.json()["error"]


@pytest.mark.parametrize(("size", "tail"), [(4, b"abc"), (2, b"abc"), (-1, b"")])
def test_v2_binary_data_of_a_wrong_size_is_400(color_package: Path, size: int, tail: bytes) -> None:
    image = {**tensor()["inputs"][0], "parameters": {"binary_data_size": size}}
    del image["data"]
    head = json.dumps({"inputs": [image]}).encode()

    response = post(color_package, INFER, head + tail, headers={LENGTH: str(len(head))})

    assert response.status_code == 400


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
