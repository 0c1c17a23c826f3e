"""Small model packages for tests: real exported programs that say something sure of their input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from kubeloop.training.archive import read_program, save_program
from kubeloop.training.images import ImageClassifier, export_classifier
from kubeloop.training.onnx_export import export_onnx, quantize
from kubeloop.training.package import (
    PROGRAM_FILE,
    PackageManifest,
    TensorSpec,
    VariantSpec,
    open_package,
    write_package,
)
from kubeloop.training.preprocessing import ImagePreprocessing, Preprocessing
from kubeloop.training.text_preprocessing import TextPreprocessing
from kubeloop.training.texts import export_text_classifier

COLORS = ("red", "green", "blue")
SHADES = ("dark", "light")
MOODS = ("happy", "sad")


def _colors() -> ImageClassifier:
    """Names the strongest colour of an image."""
    linear = nn.Linear(3, 3)
    with torch.no_grad():
        linear.weight.copy_(torch.eye(3) * 4)
        linear.bias.zero_()
    return _classifier(linear, ImagePreprocessing(channels=3, image_size=8))


def _shades() -> ImageClassifier:
    """Tells dark from light grey."""
    linear = nn.Linear(3, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[-1.0] * 3, [1.0] * 3]))
        linear.bias.zero_()
    return _classifier(linear, ImagePreprocessing(channels=1, image_size=8))


def _classifier(linear: nn.Linear, preprocessing: ImagePreprocessing) -> ImageClassifier:
    channels = preprocessing.channels
    return ImageClassifier(
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear),
        preprocessing=preprocessing,
        mean=torch.full((channels,), 128.0),
        std=torch.full((channels,), 64.0),
    ).eval()


class _Moods(nn.Module):
    """Looks for the word that names a mood."""

    words: Tensor

    def __init__(self, preprocessing: TextPreprocessing) -> None:
        super().__init__()
        numbers = [preprocessing.extract(mood).pieces[0][0] for mood in MOODS]
        self.register_buffer("words", torch.tensor(numbers))

    def forward(self, pieces: Tensor, pairs: Tensor) -> Tensor:
        """Return probabilities, batch x moods."""
        del pairs
        found = (pieces.flatten(1).unsqueeze(2) == self.words).sum(1)
        return (4.0 * found).softmax(1)


def write_package_of(folder: Path, classifier: ImageClassifier, labels: tuple[str, ...]) -> Path:
    """Export a classifier of images and write it as a package."""
    channels = classifier.preprocessing.channels
    return _write(
        folder,
        export_classifier(classifier),
        takes=TensorSpec(
            name="image", datatype="UINT8", shape=(-1, -1, -1, channels), content="image"
        ),
        labels=labels,
        preprocessing=classifier.preprocessing,
    )


def _write(
    folder: Path,
    program: ExportedProgram,
    *,
    takes: TensorSpec,
    labels: tuple[str, ...],
    preprocessing: Preprocessing,
) -> Path:
    file = folder.with_suffix(".pt2")
    save_program(program, file)
    manifest = PackageManifest(
        name="test",
        inputs=(takes,),
        outputs=(TensorSpec(name="probabilities", datatype="FP32", shape=(-1, len(labels))),),
        labels=labels,
        preprocessing=preprocessing.render(),
    )
    write_package(str(folder), manifest, files={PROGRAM_FILE: file})
    return folder


def add_variants_to(folder: Path) -> Path:
    """Give a package of images the variants `onnx` and `int8`, calibrated on plain colours."""
    package = open_package(folder)
    manifest, size = package.manifest, package.manifest.preprocessing["image_size"]
    exact, small = folder.with_suffix(".onnx"), folder.with_suffix(".int8.onnx")
    export_onnx(read_program(folder / PROGRAM_FILE), exact)
    shape = (64, 1, 1, manifest.inputs[0].shape[3])
    colors = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    quantize(exact, small, calibration=[(colors.repeat(size, 1).repeat(size, 2),)])
    program = folder.with_suffix(".pt2")
    files = {PROGRAM_FILE: program, "model.onnx": exact, "model.int8.onnx": small}
    variants = {"onnx": VariantSpec(file="model.onnx"), "int8": VariantSpec(file="model.int8.onnx")}
    write_package(str(folder), replace(manifest, variants=variants), files=files)
    return folder


def write_color_package(folder: Path) -> Path:
    """Write a model that names the strongest colour of an RGB image."""
    return write_package_of(folder, _colors(), COLORS)


def write_shade_package(folder: Path) -> Path:
    """Write a model that tells dark from light grey images."""
    return write_package_of(folder, _shades(), SHADES)


def write_mood_package(folder: Path) -> Path:
    """Write a model that finds the word `happy` or `sad` in a text."""
    preprocessing = TextPreprocessing(hash_bits=12)
    return _write(
        folder,
        export_text_classifier(_Moods(preprocessing).eval(), preprocessing),
        takes=TensorSpec(name="text", datatype="BYTES", shape=(-1,), content="text"),
        labels=MOODS,
        preprocessing=preprocessing,
    )
