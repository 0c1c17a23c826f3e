from pathlib import Path
from typing import Any

import pytest

from kubeloop.testing.model_server import (
    BLUE,
    PREDICT,
    RED,
    png,
    post,
)


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
