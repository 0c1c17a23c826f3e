"""The image program with a backbone that trains and exports in a fraction of a second.

Small as it is, the backbone has what makes a run hard to repeat: batch statistics and dropout.
Call `main`, or run it as `python -m kubeloop.testing.tiny_image_program`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from torch import nn

from kubeloop.training.programs import image  # NB: makes torchvision importable.

from torchvision.models._api import register_model  # isort: skip  # torchvision's own door

ARCHITECTURE = "tiny"


def build_tiny(*, weights: object = None, num_classes: int = 10) -> nn.Module:
    """A convolution, pooled to four by four."""
    del weights
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(8 * 4 * 4, num_classes),
    )


build_tiny.__module__ = "torchvision.models.tiny"  # NB: backbones are listed by this.
register_model(name=ARCHITECTURE)(build_tiny)


def main(arguments: Sequence[str]) -> int:
    """Run the image program; returns its exit code."""
    return image.main([*arguments, "--architecture", ARCHITECTURE])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
