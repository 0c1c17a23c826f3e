import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kubeloop.datasets import Commit, IngestConfig, SplitConfig, ingest
from kubeloop.errors import InputError
from kubeloop.testing.image_folders import write_image_folder
from kubeloop.training.archive import save_program
from kubeloop.training.evaluation import Evaluation, evaluate
from kubeloop.training.package import PackageManifest, TensorSpec, write_package

LABELS = ("bottom", "middle", "top")


class ByBrightness(nn.Module):
    """Says `bottom`, `middle` or `top` after the brightest third of the rows."""

    def forward(self, images: Tensor) -> Tensor:
        rows = images.float().mean((2, 3))
        stripes = torch.stack([rows[:, start : start + 2].mean(1) for start in (5, 2, 0)], dim=1)
        return stripes.softmax(1)


class AlwaysTop(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        score = torch.tensor([[0.1, 0.1, 0.8]])
        return score.expand(images.shape[0], 3) + 0.0 * images.float().mean((1, 2, 3)).unsqueeze(1)


def write_model(folder: Path, module: nn.Module, labels: tuple[str, ...] = LABELS) -> str:
    batch = torch.export.Dim("batch", max=512)
    example = torch.zeros(2, 8, 8, 1, dtype=torch.uint8)
    program = torch.export.export(module, (example,), dynamic_shapes=({0: batch},))
    save_program(program, folder / "program.pt2")
    manifest = PackageManifest(
        name="stripes",
        inputs=(TensorSpec(name="image", datatype="UINT8", shape=(-1, 8, 8, 1)),),
        outputs=(TensorSpec(name="probabilities", datatype="FP32", shape=(-1, 3)),),
        labels=labels,
        preprocessing={"kind": "image", "channels": 1, "image_size": 8},
    )
    write_package(str(folder / "model"), manifest, files={"model.pt2": folder / "program.pt2"})
    return str(folder / "model")


def test_a_perfect_model_scores_one(commit: Commit, tmp_path: Path) -> None:
    evaluation = evaluate(write_model(tmp_path, ByBrightness()), commit.uri)

    assert evaluation.accuracy == 1.0
    assert evaluation.confusion == ((3, 0, 0), (0, 3, 0), (0, 0, 3))
    assert [scores.f1 for scores in evaluation.classes] == [1.0, 1.0, 1.0]
    assert evaluation.loss < 0.01


@pytest.mark.parametrize("batch_size", [1, 4, 256])
def test_scores_are_counted_by_class(commit: Commit, tmp_path: Path, batch_size: int) -> None:
    progress: list[tuple[int, int]] = []

    evaluation = evaluate(
        write_model(tmp_path, AlwaysTop()),
        commit.uri,
        split="train",
        batch_size=batch_size,
        on_progress=lambda done, total: progress.append((done, total)),
    )

    assert evaluation.num_examples == 42
    assert evaluation.accuracy == pytest.approx(1 / 3)
    expected_loss = -(2 * math.log(0.1) + math.log(0.8)) / 3
    assert evaluation.loss == pytest.approx(expected_loss, abs=1e-5)
    bottom, _, top = evaluation.classes
    assert (top.label, top.recall) == ("top", 1.0)
    assert top.precision == pytest.approx(1 / 3)
    assert top.f1 == pytest.approx(0.5)
    assert (bottom.precision, bottom.recall, bottom.f1, bottom.num_examples) == (0, 0, 0, 14)
    assert progress[-1] == (42, 42)


def test_a_model_of_other_labels_is_refused(commit: Commit, tmp_path: Path) -> None:
    uri = write_model(tmp_path, AlwaysTop(), labels=("a", "b", "c"))

    with pytest.raises(InputError, match=r"knows the labels \['a', 'b', 'c'\]"):
        evaluate(uri, commit.uri)


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    source = write_image_folder(tmp_path / "source", {"top": 3, "middle": 3, "bottom": 3})
    splits = SplitConfig(train=0.5, validation=0.5, test=0.0)
    store = str(tmp_path / "store")
    made = ingest(IngestConfig(name="s", source=str(source), store=store, splits=splits))

    with pytest.raises(InputError, match=r"'test' of .* has no examples"):
        evaluate(write_model(tmp_path, AlwaysTop()), made.uri)


def test_scores_of_a_known_table() -> None:
    evaluation = Evaluation(
        split="test",
        labels=("a", "b"),
        num_examples=10,
        accuracy=0.7,
        loss=0.0,
        confusion=((4, 1), (2, 3)),
    )

    first = evaluation.classes[0]
    assert first.precision == pytest.approx(4 / 6)
    assert first.recall == pytest.approx(4 / 5)
    assert first.f1 == pytest.approx(8 / 11)
