"""Models of the stripes of `image_folders`: one that is always right, and one that never looks."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from kubeloop.training.archive import save_program
from kubeloop.training.package import PackageManifest, TensorSpec, write_package

LABELS = ("bottom", "middle", "top")


class ByBrightness(nn.Module):
    """Says `bottom`, `middle` or `top` after the brightest third of the rows."""

    def forward(self, images: Tensor) -> Tensor:
        """Return probabilities, batch x labels."""
        rows = images.float().mean((2, 3))
        stripes = torch.stack([rows[:, start : start + 2].mean(1) for start in (5, 2, 0)], dim=1)
        return stripes.softmax(1)


class AlwaysTop(nn.Module):
    """Says `top`, whatever it sees."""

    def forward(self, images: Tensor) -> Tensor:
        """Return probabilities, batch x labels."""
        score = torch.tensor([[0.1, 0.1, 0.8]])
        return score.expand(images.shape[0], 3) + 0.0 * images.float().mean((1, 2, 3)).unsqueeze(1)


def write_model(folder: Path, module: nn.Module, labels: tuple[str, ...] = LABELS) -> str:
    """Write a package below a folder; returns its URI."""
    (folder / "program.pt2").write_bytes(_export(type(module)))  # type: ignore[arg-type]  # a class, and so hashable
    manifest = PackageManifest(
        name="stripes",
        inputs=(TensorSpec(name="image", datatype="UINT8", shape=(-1, 8, 8, 1)),),
        outputs=(TensorSpec(name="probabilities", datatype="FP32", shape=(-1, 3)),),
        labels=labels,
        preprocessing={"kind": "image", "channels": 1, "image_size": 8},
    )
    write_package(str(folder / "model"), manifest, files={"model.pt2": folder / "program.pt2"})
    return str(folder / "model")


@cache
def _export(kind: type[nn.Module]) -> bytes:
    batch = torch.export.Dim("batch", max=512)
    example = torch.zeros(2, 8, 8, 1, dtype=torch.uint8)
    program = torch.export.export(kind(), (example,), dynamic_shapes=({0: batch},))
    with TemporaryDirectory() as folder:
        save_program(program, Path(folder, "program.pt2"))
        return Path(folder, "program.pt2").read_bytes()
