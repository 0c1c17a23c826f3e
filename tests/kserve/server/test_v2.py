import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kubeloop.testing.model_server import (
    INFER,
    LENGTH,
    png,
    post,
    tensor,
)


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
