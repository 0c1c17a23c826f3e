"""Backbones by torchvision's names; the only module that imports torchvision.

torchvision's wheel is linked against CUDA. Beside a CPU-only torch its C++ operators do not load,
and importing it fails because `torchvision::nms` does not exist. Declaring the two schemas that it
refers to at import is enough for its models.
"""

from __future__ import annotations

import importlib.util
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import nn

from kubeloop.errors import InputError, MissingDependencyError


def _declare_operators() -> torch.library.Library:
    """Declare what is missing once torchvision's own operators have had their chance to load."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise MissingDependencyError(
            "Image training needs torchvision: pip install 'kubeloop[torch]'."
        )
    for extension in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(extension)  # type: ignore[no-untyped-call]  # torch's own
        except OSError:
            continue
    arguments = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]  # torch's own
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}{arguments}")  # type: ignore[no-untyped-call]  # torch's own
    return library


_LIBRARY = _declare_operators()  # NB: its schemas go when it is collected.

from torchvision import models  # noqa: E402

DEFAULT_ARCHITECTURE = "shufflenet_v2_x0_5"
_WITH_EXTRA_OUTPUTS = ("googlenet", "inception")
_SMALL_SIDE = 64
_TINY_SIDE = 32


def list_architectures() -> list[str]:
    """Return the names of the image classifiers that `build_backbone` knows."""
    return [
        name
        for name in models.list_models(module=models)
        if not name.startswith(_WITH_EXTRA_OUTPUTS)
    ]


def build_backbone(architecture: str, *, num_classes: int, image_size: int) -> nn.Module:
    """Build a randomly initialised classifier.

    torchvision's networks are made for images of 224 pixels and halve them several times at once.
    For images of up to 64 pixels the first convolution keeps the size; for images of up to 32 a
    leading max-pool is left out too.

    Args:
        architecture: A torchvision model name, such as `resnet18`.
        num_classes: Number of outputs.
        image_size: Height and width of the inputs.

    Raises:
        InputError: The name is unknown, or the network cannot take images of that size.
    """
    known = list_architectures()
    if architecture not in known:
        examples = get_close_matches(architecture, known) or [DEFAULT_ARCHITECTURE, "resnet18"]
        raise InputError(
            f"Unknown architecture {architecture!r}; give one of torchvision's {len(known)}"
            f" classifiers, such as {', '.join(examples)}."
        )
    backbone: nn.Module = models.get_model(architecture, weights=None, num_classes=num_classes)
    if image_size <= _SMALL_SIDE:
        _keep_size(backbone, drop_pooling=image_size <= _TINY_SIDE)
    _check_size(backbone, architecture=architecture, image_size=image_size)
    return backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]  # torch's stubs lack it


def _keep_size(backbone: nn.Module, *, drop_pooling: bool) -> None:
    convolution = next((part for part in backbone.modules() if isinstance(part, nn.Conv2d)), None)
    if convolution is not None and convolution.kernel_size[0] <= 7:
        overlaps = convolution.stride[0] < convolution.kernel_size[0]
        if overlaps:
            convolution.stride = (1, 1)
    if drop_pooling and isinstance(getattr(backbone, "maxpool", None), nn.MaxPool2d):
        backbone.maxpool = nn.Identity()


def _check_size(backbone: nn.Module, *, architecture: str, image_size: int) -> None:
    was_training = backbone.training
    backbone.eval()
    try:
        with torch.inference_mode():
            backbone(torch.zeros(1, 3, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(
            f"Architecture {architecture} cannot take images of {image_size} pixels: {error}"
        ) from error
    finally:
        backbone.train(was_training)
