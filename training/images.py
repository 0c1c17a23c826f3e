"""Image classification in torch: the model around a backbone, its batches and augmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from kubeloop.datasets.reading import ImageSplit
from kubeloop.errors import InputError
from kubeloop.training.preprocessing import ImagePreprocessing

if TYPE_CHECKING:
    from torch.export import ExportedProgram

MAX_LOADED_BYTES = 4 << 30
MAX_BATCH = 4096
MAX_SIDE = 16384


def resize_images(images: Tensor, image_size: int) -> Tensor:
    """Scale images smoothly to a square.

    Args:
        images: Batch x channels x height x width, of 0 to 255.
        image_size: Height and width of the result.

    Returns:
        Whole numbers from 0 to 255, as floats. Images of that size stay as they are.
    """
    scaled = functional.interpolate(
        images.float(), size=(image_size, image_size), mode="bilinear", antialias=True
    )
    return scaled.round().clamp(0, 255)


class ImageClassifier(nn.Module):
    """A backbone with its preprocessing inside, so that the exported program is all there is."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: nn.Module, *, preprocessing: ImagePreprocessing, mean: Tensor, std: Tensor
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.preprocessing = preprocessing
        self.register_buffer("mean", mean.view(1, -1, 1, 1))
        self.register_buffer("std", std.view(1, -1, 1, 1))

    def normalize(self, images: Tensor) -> Tensor:
        """Bring pixels of 0 to 255 to zero mean and unit variance."""
        return (images.float() - self.mean) / self.std

    def expand(self, images: Tensor) -> Tensor:
        """Repeat grey images to the three channels that backbones take."""
        return images.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Classify.

        Args:
            images: Batch x height x width x channels, unsigned bytes.

        Returns:
            Probabilities, batch x classes.
        """
        planes = images.permute(0, 3, 1, 2)
        planes = self.normalize(resize_images(planes, self.preprocessing.image_size))
        logits: Tensor = self.backbone(self.expand(planes))
        return logits.softmax(1)


class ImageBatches:
    """A split in memory, as bytes, and the way from rows to the backbone's input."""

    def __init__(
        self, images: Tensor, labels: Tensor, *, classifier: ImageClassifier, augment: bool
    ) -> None:
        self._images = images
        self._labels = labels
        self._classifier = classifier
        self._augment = augment

    def __len__(self) -> int:
        return len(self._labels)

    def count_classes(self) -> Tensor:
        """Return the number of examples of each class."""
        return torch.bincount(self._labels)

    def fetch(self, rows: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Return inputs and labels of some rows; a generator asks for augmentation."""
        device = self._classifier.mean.device
        images = self._classifier.normalize(self._images[rows].to(device))
        if self._augment and generator is not None:
            images = augment_images(images, generator)
        return self._classifier.expand(images), self._labels[rows].to(device)


def augment_images(images: Tensor, generator: torch.Generator) -> Tensor:
    """Turn, scale and shift each image a little; what leaves the frame repeats its border."""
    count = len(images)
    draws = torch.rand(count, 4, generator=generator) * 2 - 1
    angle = draws[:, 0] * math.radians(8)
    scale = 1 + draws[:, 1] * 0.1
    shift = draws[:, 2:] * 0.12
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    rotation = torch.stack([cosine, -sine, sine, cosine], dim=1).view(count, 2, 2)
    transform = torch.cat([rotation, shift.unsqueeze(2)], dim=2).to(images)
    grid = functional.affine_grid(transform, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def load_split(split: ImageSplit, preprocessing: ImagePreprocessing) -> tuple[Tensor, Tensor]:
    """Decode a whole split, at the model's size.

    Returns:
        Images, batch x channels x height x width of unsigned bytes, and class indices.

    Raises:
        InputError: The split is empty or would not fit in memory.
    """
    size = preprocessing.image_size
    num_bytes = len(split) * preprocessing.channels * size * size
    if not len(split):
        raise InputError("The split has no examples; make one with larger split fractions.")
    if num_bytes > MAX_LOADED_BYTES:
        raise InputError(
            f"{len(split)} images of {size} x {size} pixels take {num_bytes} bytes, more than the"
            f" {MAX_LOADED_BYTES} that fit in memory; use a smaller image_size."
        )
    images = torch.empty((len(split), preprocessing.channels, size, size), dtype=torch.uint8)
    labels = torch.empty(len(split), dtype=torch.int64)
    for index, example in enumerate(split):
        pixels = preprocessing.resize(preprocessing.decode(example.data))
        images[index] = torch.tensor(pixels).permute(2, 0, 1)
        labels[index] = example.class_index
    return images, labels


def measure_normalization(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel."""
    # NB: histograms rather than floats, which would take four times the images' memory.
    weights = torch.stack(
        [torch.bincount(plane.flatten().long(), minlength=256) for plane in images.unbind(1)]
    ).double()
    weights /= weights.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64)
    mean = weights @ values
    variance = (weights * (values - mean.unsqueeze(1)) ** 2).sum(1)
    return mean.float(), variance.sqrt().clamp(min=1.0).float()


def choose_image_size(statistics_sides: Sequence[float]) -> int:
    """Return the working size for images of these mean sides: the next common size up."""
    largest = max(statistics_sides)
    return next((size for size in (16, 32, 64, 128) if size >= largest), 224)


def export_classifier(classifier: ImageClassifier) -> ExportedProgram:
    """Trace the model for batches, heights and widths of any size."""
    channels = classifier.preprocessing.channels
    example = torch.zeros((2, 20, 24, channels), dtype=torch.uint8)
    sizes = {
        0: torch.export.Dim("batch", max=MAX_BATCH),
        1: torch.export.Dim("height", min=2, max=MAX_SIDE),
        2: torch.export.Dim("width", min=2, max=MAX_SIDE),
    }
    return torch.export.export(classifier, (example,), dynamic_shapes=(sizes,))
