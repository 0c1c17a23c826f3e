"""Small model packages for tests: real exported programs that say something sure of an image."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from kubeloop.training.archive import save_program
from kubeloop.training.images import ImageClassifier, export_classifier
from kubeloop.training.package import PROGRAM_FILE, PackageManifest, TensorSpec, write_package
from kubeloop.training.preprocessing import ImagePreprocessing

COLORS = ("red", "green", "blue")
SHADES = ("dark", "light")


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


def write_package_of(folder: Path, classifier: ImageClassifier, labels: tuple[str, ...]) -> Path:
    """Export a classifier and write it as a package."""
    channels = classifier.preprocessing.channels
    program = folder.with_suffix(".pt2")
    save_program(export_classifier(classifier), program)
    manifest = PackageManifest(
        name="test",
        inputs=(
            TensorSpec(
                name="image", datatype="UINT8", shape=(-1, -1, -1, channels), content="image"
            ),
        ),
        outputs=(TensorSpec(name="probabilities", datatype="FP32", shape=(-1, len(labels))),),
        labels=labels,
        preprocessing=classifier.preprocessing.render(),
    )
    write_package(str(folder), manifest, files={PROGRAM_FILE: program})
    return folder


def write_color_package(folder: Path) -> Path:
    """Write a model that names the strongest colour of an RGB image."""
    return write_package_of(folder, _colors(), COLORS)


def write_shade_package(folder: Path) -> Path:
    """Write a model that tells dark from light grey images."""
    return write_package_of(folder, _shades(), SHADES)
