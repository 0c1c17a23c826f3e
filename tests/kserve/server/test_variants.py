from pathlib import Path

import pytest

from kubeloop.errors import InputError
from kubeloop.kserve.runtime import VARIANT_VARIABLE
from kubeloop.kserve.server.__main__ import parse_config
from kubeloop.testing.model_packages import add_variants_to, write_color_package
from kubeloop.testing.model_server import BLUE, INFER, PREDICT, RED, get, post, tensor


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_variants_to(write_color_package(tmp_path_factory.mktemp("models") / "colors"))


@pytest.mark.parametrize("variant", ["onnx", "int8"])
def test_a_variant_answers_both_protocols_as_the_original_does(package: Path, variant: str) -> None:
    images = {"instances": [RED, BLUE]}
    original = post(package, PREDICT, images).json()["predictions"]

    predictions = post(package, PREDICT, images, variant=variant).json()["predictions"]
    probabilities, label = post(package, INFER, tensor(), variant=variant).json()["outputs"]

    assert [answer["label"] for answer in predictions] == ["red", "blue"]
    for answer, expected in zip(predictions, original, strict=True):
        assert answer["probabilities"] == pytest.approx(expected["probabilities"], abs=0.05)
    assert (probabilities["datatype"], probabilities["shape"]) == ("FP32", [1, 3])
    assert label["data"] == ["red"]


def test_metadata_say_what_runs_the_model(package: Path) -> None:
    platforms = [
        get(package, "/v2/models/colors", variant=variant).json()["platform"]
        for variant in ("", "int8")
    ]

    assert platforms == ["kubeloop_torch_export", "onnxruntime_onnx"]


def test_a_variant_that_the_package_lacks_keeps_the_server_from_starting(
    color_package: Path,
) -> None:
    with pytest.raises(InputError, match="no variant 'int8', only: none"):
        get(color_package, "/v2", variant="int8")


def test_the_environment_chooses_the_variant_and_a_flag_overrules_it() -> None:
    environment = {VARIANT_VARIABLE: "int8"}

    assert parse_config([], {}).variant == ""
    assert parse_config([], environment).variant == "int8"
    assert parse_config(["--variant=onnx"], environment).variant == "onnx"
