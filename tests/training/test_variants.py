import argparse
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from kubeloop.datasets import Commit, open_dataset
from kubeloop.errors import InputError, PermanentError
from kubeloop.training.archive import read_program, save_program
from kubeloop.training.completion import complete_package
from kubeloop.training.evaluation import EvaluationConfig, evaluate
from kubeloop.training.images import ImageClassifier, export_classifier
from kubeloop.training.onnx_export import export_onnx, quantize
from kubeloop.training.onnx_programs import OnnxProgram
from kubeloop.training.package import PROGRAM_FILE, ModelPackage, open_package
from kubeloop.training.preprocessing import ImagePreprocessing
from kubeloop.training.variants import (
    Variant,
    VariantsConfig,
    add_variant_arguments,
    read_variants,
)

pytestmark = pytest.mark.pinned  # nothing here depends on the Kubeflow SDKs

BOTH = VariantsConfig(variants=(Variant.ONNX, Variant.INT8))


class Rows(nn.Module):
    """Tells stripes at the top, in the middle and at the bottom by the brightest third."""

    def __init__(self) -> None:
        super().__init__()
        self.spread = nn.Conv2d(3, 64, 3, padding=1)
        self.gather = nn.Conv2d(64, 64, 3, padding=1)
        self.labels = nn.Linear(3, 3)
        with torch.no_grad():
            for convolution in (self.spread, self.gather):
                nn.init.dirac_(convolution.weight)
                assert convolution.bias is not None
                convolution.bias.zero_()
            # The dataset's labels in order: bottom, middle, top.
            self.labels.weight.copy_(torch.eye(3).flip(0))
            self.labels.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        planes = self.gather(self.spread(images))[:, 0]
        scores: Tensor = self.labels(planes.unflatten(1, (3, 8)).mean((2, 3)))
        return scores


class Blinded(nn.Module):
    """As good on images of 8 pixels, by numbers that stand beside one so great that 8 bits lose
    them."""

    def __init__(self) -> None:
        super().__init__()
        self.thirds, self.labels = nn.Linear(8, 4), nn.Linear(4, 3)
        with torch.no_grad():
            for third, rows in enumerate(([0, 1], [2, 3], [5, 6])):
                self.thirds.weight[third] = torch.zeros(8).index_fill(0, torch.tensor(rows), 0.01)
            self.thirds.weight[3] = 0.0
            self.thirds.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 1e4]))
            self.labels.weight.copy_(torch.eye(3, 4).flip(0))

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.labels(self.thirds(images.float().mean((2, 3))))
        return scores.softmax(1)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a program without kubeloop leaves: `model.pt2`."""
    classifier = ImageClassifier(
        Rows(),
        preprocessing=ImagePreprocessing(channels=1, image_size=24),
        mean=torch.tensor([60.0]),
        std=torch.tensor([60.0]),
    )
    folder = tmp_path_factory.mktemp("program")
    save_program(export_classifier(classifier.eval()), folder / PROGRAM_FILE)
    return folder


def complete(
    folder: Path, uri: str, commit: Commit, variants: VariantsConfig = BOTH
) -> tuple[ModelPackage, list[str]]:
    lines: list[str] = []
    complete_package(
        folder,
        uri,
        dataset=open_dataset(commit.uri),
        metrics={},
        hyperparameters={},
        provenance={},
        variants=variants,
        report=lines.append,
    )
    return open_package(Path(uri)), lines


@pytest.fixture(scope="module")
def completed(
    program: Path, commit: Commit, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ModelPackage, list[str]]:
    return complete(program, str(tmp_path_factory.mktemp("rows") / "model"), commit)


def test_a_package_holds_its_variants_and_how_they_agree(
    completed: tuple[ModelPackage, list[str]],
) -> None:
    package, lines = completed

    assert package.manifest.variants.keys() == {"onnx", "int8"}
    assert package.manifest.files.keys() == {"model.pt2", "model.onnx", "model.int8.onnx"}
    for variant, spec in package.manifest.variants.items():
        assert spec.metrics["num_examples"] == 9
        assert spec.metrics["equal_predictions"] == 1.0
        assert spec.metrics["original_accuracy"] == spec.metrics["accuracy"] == 1.0
        assert spec.metrics["num_bytes"] == (package.folder / spec.file).stat().st_size
        assert any(line.startswith(f"Variant {variant}: accuracy 1.0000") for line in lines)
        assert any("ms for one example" in line and variant in line for line in lines)
    exact, small = (package.manifest.variants[name].metrics for name in ("onnx", "int8"))
    assert exact["max_difference"] < 1e-5 < small["max_difference"]
    assert small["num_bytes"] < 0.4 * exact["num_bytes"]


def test_a_variant_takes_images_of_any_size(completed: tuple[ModelPackage, list[str]]) -> None:
    package, _ = completed
    images = torch.randint(0, 256, (2, 31, 17, 1), dtype=torch.uint8)
    quick = open_package(package.folder, variant="onnx").load_model()

    with torch.inference_mode():
        torch.testing.assert_close(quick(images), package.load_model()(images), atol=1e-4, rtol=0.0)


def test_the_same_program_has_the_same_variants(
    completed: tuple[ModelPackage, list[str]], program: Path, commit: Commit, tmp_path: Path
) -> None:
    again, _ = complete(program, str(tmp_path / "again"), commit)

    assert again.digest == completed[0].digest


def test_a_variant_is_evaluated_in_place_of_the_original(
    completed: tuple[ModelPackage, list[str]], commit: Commit
) -> None:
    uri = str(completed[0].folder)

    exact = evaluate(uri, commit.uri)
    small = evaluate(uri, commit.uri, EvaluationConfig(variant="int8"))

    assert exact.accuracy == small.accuracy == 1.0
    assert exact.loss != small.loss


def test_a_variant_that_loses_too_much_is_refused_and_nothing_is_written(
    commit: Commit, tmp_path: Path
) -> None:
    images = torch.zeros(2, 8, 8, 1, dtype=torch.uint8)
    sizes = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(Blinded().eval(), (images,), dynamic_shapes=sizes)
    save_program(exported, tmp_path / PROGRAM_FILE)
    config = VariantsConfig(variants=(Variant.INT8,), tolerance=0.05)

    with pytest.raises(PermanentError, match=r"loses more than 0\.05 .* original's 1\.0000"):
        complete(tmp_path, str(tmp_path / "model"), commit, config)

    assert not (tmp_path / "model").exists()


def test_a_variant_that_cannot_be_checked_is_refused(program: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="checked on the dataset's validation split"):
        complete_package(
            program,
            str(tmp_path / "model"),
            dataset=None,
            metrics={},
            hyperparameters={},
            provenance={},
            variants=BOTH,
            report=print,
        )


def test_a_variant_that_a_package_lacks_is_an_error_that_lists_the_others(
    completed: tuple[ModelPackage, list[str]],
) -> None:
    with pytest.raises(InputError, match=r"no variant 'int4', only: int8, onnx\."):
        open_package(completed[0].folder, variant="int4")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variants", "onnx,int4"], "Unknown variant 'int4'; there are onnx, int8"),
        (["--variant_tolerance", "1.5"], "variant_tolerance must be from 0 to 1"),
    ],
)
def test_wrong_requests_for_variants_are_refused(arguments: list[str], message: str) -> None:
    parser = argparse.ArgumentParser()
    add_variant_arguments(parser)

    with pytest.raises(InputError, match=message):
        read_variants(parser.parse_args(arguments))


class Bags(nn.Module):
    """Sums and means of embeddings, by features of 32 bits as the text program has them."""

    rows: Tensor
    factors: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.randint(0, 50, (80,), dtype=torch.int32))
        self.register_buffer("factors", torch.rand(50))
        self.sums = nn.EmbeddingBag(50, 8, mode="sum", padding_idx=0)
        self.means = nn.EmbeddingBag(50, 8, mode="mean", padding_idx=0)
        self.head = nn.Linear(16, 3)

    def forward(self, numbers: Tensor) -> Tensor:
        rows = self.rows[numbers]
        sums = self.sums(rows, per_sample_weights=self.factors[rows])
        scores: Tensor = self.head(torch.cat([sums, self.means(rows)], 1))
        return scores.softmax(1)


def test_bags_of_embeddings_are_exported_and_quantized(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Bags().eval()
    module.rows[:8] = 0  # features that have no row
    sizes = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("features", min=2)},)
    exported = torch.export.export(module, (torch.zeros(3, 4).long(),), dynamic_shapes=sizes)
    save_program(exported, tmp_path / PROGRAM_FILE)

    export_onnx(read_program(tmp_path / PROGRAM_FILE), tmp_path / "exact.onnx")
    quantize(tmp_path / "exact.onnx", tmp_path / "small.onnx")

    numbers = torch.cat([torch.randint(0, 80, (5, 9)), torch.arange(9).unsqueeze(0) % 8])
    expected = module(numbers).detach()
    exact, small = (OnnxProgram(tmp_path / f"{name}.onnx") for name in ("exact", "small"))
    torch.testing.assert_close(exact(numbers), expected)
    torch.testing.assert_close(small(numbers), expected, atol=0.02, rtol=0.0)
    kinds = {tensor.data_type for tensor in onnx.load(tmp_path / "small.onnx").graph.initializer}
    assert onnx.TensorProto.INT8 in kinds


def test_an_onnx_file_that_reaches_for_another_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(8))
    value = onnx.numpy_helper.from_array(np.zeros(2, dtype=np.float32), "value")
    onnx.external_data_helper.set_external_data(value, location="secret")
    value.ClearField("raw_data")
    output = onnx.helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, [2])
    node = onnx.helper.make_node("Identity", ["value"], ["output"])
    graph = onnx.helper.make_graph([node], "graph", [], [output], [value])
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())

    with pytest.raises(InputError, match="takes 'value' from another file"):
        OnnxProgram(path)


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a model")

    with pytest.raises(InputError, match=r"model\.onnx is not an ONNX file"):
        OnnxProgram(path)
