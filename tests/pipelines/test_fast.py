import pytest

from kubeloop.errors import InputError
from kubeloop.pipelines.fast import read_fast_values
from kubeloop.pipelines.packages import COMPILED, read_package


def spec(**parameters: object) -> dict[str, object]:
    declared = {
        name: {"parameterType": "STRUCT", "defaultValue": value}
        for name, value in parameters.items()
    }
    return {
        "pipelineInfo": {"name": "p"},
        "root": {"inputDefinitions": {"parameters": declared}},
    }


def test_the_declared_values_are_read() -> None:
    assert read_fast_values(spec(epochs=5, fast={"epochs": 1})) == {"epochs": 1}


@pytest.mark.parametrize(
    ("pipeline", "dataset", "endpoint"),
    [
        ("image_classification", "images-fast", "image-classifier-fast"),
        ("text_classification", "texts-fast", "text-classifier-fast"),
        ("retrain", "texts-fast", "text-classifier-fast"),
    ],
)
def test_our_pipelines_leave_the_real_data_and_endpoint_alone(
    pipeline: str, dataset: str, endpoint: str
) -> None:
    package = read_package(COMPILED / f"{pipeline}.yaml")
    values = read_fast_values(package.spec)
    assert values["epochs"] == values.get("trial_epochs", 1) == 1
    assert values["endpoint_name"] == endpoint
    assert values["dataset_name"] == dataset
    assert values["max_examples_per_class"] > 0


@pytest.mark.parametrize("given", [spec(epochs=5), spec(fast={}), spec(fast=True), {"root": {}}])
def test_a_pipeline_without_a_fast_run_says_how_to_declare_one(given: dict[str, object]) -> None:
    with pytest.raises(InputError, match="declares no fast run: give it a parameter `fast`"):
        read_fast_values(given)


def test_values_for_parameters_that_do_not_exist_are_refused() -> None:
    with pytest.raises(InputError, match="holds 'epoch', which the pipeline does not have"):
        read_fast_values(spec(epochs=5, fast={"epoch": 1}))
