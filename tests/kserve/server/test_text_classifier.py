import asyncio
import struct
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from kubeloop.kserve.server.dataplane import DataPlane
from kubeloop.testing.model_packages import write_mood_package
from kubeloop.testing.model_server import INFER, LENGTH, PREDICT, post, run

TEXTS = ["I am so happy today", "a SAD story, größe 寿司", "happy", "sad " * 2000]
LABELS = ["happy", "sad", "happy", "sad"]


@pytest.fixture(scope="module")
def moods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mood_package(tmp_path_factory.mktemp("models") / "moods")


def tensor(**fields: Any) -> dict[str, Any]:
    text = {"name": "text", "shape": [4], "datatype": "BYTES", "data": TEXTS}
    return {"inputs": [{**text, **fields}]}


def test_v1_classifies_texts_of_any_length_in_order(moods: Path) -> None:
    reply = post(moods, PREDICT, {"instances": [*TEXTS, ""]}).json()

    *answers, nothing = reply["predictions"]
    assert [item["label"] for item in answers] == LABELS
    assert answers[0]["probabilities"] == pytest.approx({"happy": 0.982014, "sad": 0.017986})
    assert nothing["probabilities"] == {"happy": 0.5, "sad": 0.5}


def test_v2_takes_texts_as_bytes_in_json_and_in_the_binary_form(moods: Path) -> None:
    data = b"".join(struct.pack("<I", len(text)) + text for text in map(str.encode, TEXTS))
    binary = tensor(parameters={"binary_data_size": len(data)})
    del binary["inputs"][0]["data"]
    head = orjson.dumps(binary)

    replies = [
        post(moods, INFER, tensor()),
        post(moods, INFER, tensor(shape=[4, 1])),
        post(moods, INFER, head + data, headers={LENGTH: str(len(head))}),
    ]

    for reply in replies:
        probabilities, label = reply.json()["outputs"]
        assert probabilities["shape"] == [4, 2]
        assert label == {"name": "label", "datatype": "BYTES", "shape": [4], "data": LABELS}


def test_requests_that_come_together_get_their_own_answers(moods: Path) -> None:
    async def check(client: httpx.AsyncClient, _: DataPlane) -> None:
        bodies = [{"instances": [text]} for text in TEXTS * 5]
        replies = await asyncio.gather(*(client.post(PREDICT, json=body) for body in bodies))
        labels = [reply.json()["predictions"][0]["label"] for reply in replies]
        assert labels == LABELS * 5

    run(moods, check)


@pytest.mark.parametrize(
    ("instance", "message"),
    [
        (7, "Instance 1 must be a text (a JSON string), not '7'."),
        (None, "Instance 1 must be a text (a JSON string), not 'None'."),
        ({"b64": "aGk="}, "Instance 1 must be a text"),
        (["happy"], "Instance 1 must be a text"),
    ],
)
def test_v1_names_an_instance_that_is_no_text(moods: Path, instance: Any, message: str) -> None:
    reply = post(moods, PREDICT, {"instances": ["happy", instance]})

    assert reply.status_code == 400
    assert message in reply.json()["error"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"datatype": "UINT8", "data": [1, 2, 3, 4]}, "must be BYTES of texts, not uint8"),
        ({"name": "image"}, "Unknown input 'image'; the input is 'text'."),
        ({"shape": [0], "data": []}, "Input 'text' is empty."),
    ],
)
def test_v2_refuses_what_is_no_text(moods: Path, fields: dict[str, Any], message: str) -> None:
    reply = post(moods, INFER, tensor(**fields))

    assert reply.status_code == 400
    assert message in reply.json()["error"]


def test_v2_names_an_element_that_is_not_utf_8(moods: Path) -> None:
    data = struct.pack("<I", 2) + b"ok" + struct.pack("<I", 1) + b"\xff"
    parameters = {"binary_data_size": len(data)}
    given = {"name": "text", "shape": [2], "datatype": "BYTES", "parameters": parameters}
    head = orjson.dumps({"inputs": [given]})

    reply = post(moods, INFER, head + data, headers={LENGTH: str(len(head))})

    assert reply.status_code == 400
    assert "Element 1 is not UTF-8" in reply.json()["error"]


def test_metadata_describes_what_goes_in_and_out(moods: Path) -> None:
    async def check(client: httpx.AsyncClient, _: DataPlane) -> None:
        metadata = (await client.get("/v2/models/colors")).json()
        assert metadata["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
        assert [output["name"] for output in metadata["outputs"]] == ["probabilities", "label"]

    run(moods, check)
