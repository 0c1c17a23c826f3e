import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from kubeloop.errors import InputError, PermanentError, TransientError
from kubeloop.kserve.client import Prediction, PredictionClient, Tensor, encode_image

Handler = Callable[[httpx.Request], httpx.Response]


def open_client(handler: Handler) -> PredictionClient:
    return PredictionClient(
        "http://gateway/serving/default/digits/",
        "digits",
        transport=httpx.MockTransport(handler),
    )


def answer(status: int, **options: Any) -> Handler:
    return lambda _: httpx.Response(status, **options)


def test_v1_sends_instances_below_the_endpoints_url() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert str(request.url) == (
            "http://gateway/serving/default/digits/v1/models/digits:predict"
        )
        return httpx.Response(200, json={"predictions": json.loads(request.content)["instances"]})

    with open_client(handler) as client:
        assert client.predict([1, 2]) == [1, 2]


def test_classify_reads_label_and_probabilities() -> None:
    reply = {"predictions": [{"label": "7", "probabilities": {"7": 0.75, "1": 0.25}}]}

    with open_client(answer(200, json=reply)) as client:
        (prediction,) = client.classify([[[0]]])

    assert prediction == Prediction(label="7", probabilities={"7": 0.75, "1": 0.25})
    assert prediction.probability == 0.75


def test_v2_sends_and_reads_tensors() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.url.path.endswith("/v2/models/digits/infer")
        (tensor,) = json.loads(request.content)["inputs"]
        assert tensor == {"name": "image", "shape": [1, 2], "datatype": "UINT8", "data": [1, 2]}
        output = {"name": "label", "shape": [1], "datatype": "BYTES", "data": ["7"]}
        return httpx.Response(200, json={"outputs": [output]})

    with open_client(handler) as client:
        outputs = client.infer([Tensor(name="image", shape=(1, 2), datatype="UINT8", data=[1, 2])])

    assert outputs["label"].data == ["7"]
    assert outputs["label"].shape == (1,)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, InputError),
        (404, InputError),
        (422, InputError),
        (500, PermanentError),
        (501, PermanentError),
        (503, TransientError),
        (504, TransientError),
    ],
)
def test_error_says_who_is_to_act(status: int, error: type[Exception]) -> None:
    reply = answer(status, json={"error": "because"})

    with (
        open_client(reply) as client,
        pytest.raises(error, match=rf"answered {status}: because"),
    ):
        client.predict([1])


def test_endpoint_that_nobody_serves_is_transient() -> None:
    with (
        PredictionClient("http://127.0.0.1:9", "digits") as client,
        pytest.raises(TransientError, match="cannot be reached"),
    ):
        client.predict([1])


def test_endpoint_that_is_slow_is_transient() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow", request=request)

    with open_client(handler) as client, pytest.raises(TransientError, match="in time"):
        client.predict([1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": "<html>"}, "answered no JSON"),
        ({"json": [1]}, "no JSON object"),
        ({"json": {"predictions": []}}, "instead of as many predictions"),
    ],
)
def test_reply_of_another_service_is_named(options: dict[str, Any], message: str) -> None:
    with (
        open_client(answer(200, **options)) as client,
        pytest.raises(PermanentError, match=message),
    ):
        client.predict([1])


def test_classify_refuses_other_predictions() -> None:
    with (
        open_client(answer(200, json={"predictions": [3]})) as client,
        pytest.raises(PermanentError, match="no classifier of kubeloop's"),
    ):
        client.classify([1])


def test_readiness_is_false_when_nobody_answers() -> None:
    with open_client(answer(200, json={})) as client:
        assert client.is_ready()
    with open_client(answer(503, json={})) as client:
        assert not client.is_ready()
    with PredictionClient("http://127.0.0.1:9", "digits") as client:
        assert not client.is_ready()


def test_url_without_a_scheme_is_refused() -> None:
    with pytest.raises(InputError, match="must start with http://"):
        PredictionClient("gateway/serving", "digits")


def test_image_is_encoded_from_a_file_or_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"png")

    assert encode_image(path) == encode_image(b"png") == {"b64": base64.b64encode(b"png").decode()}
