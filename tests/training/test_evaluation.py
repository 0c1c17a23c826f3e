import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from kubeloop.datasets import Commit, IngestConfig, SplitConfig, ingest, open_dataset
from kubeloop.datasets.commits import dataset_of
from kubeloop.datasets.history import add_tag
from kubeloop.errors import InputError
from kubeloop.testing.image_folders import write_image_folder
from kubeloop.testing.stripe_models import LABELS, AlwaysTop, ByBrightness, write_model
from kubeloop.training.evaluation import Comparison, EvaluationConfig, compare, evaluate
from kubeloop.training.evaluation_report import render_evaluation
from kubeloop.training.package import open_package, write_package
from kubeloop.training.scores import ScoreTally, score_classes
from kubeloop.training.slices import SliceTally


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
        EvaluationConfig(split="train", batch_size=batch_size),
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


class Logits(nn.Module):
    """What the program of `ByBrightness` gives before its softmax, with something beside it."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        rows = images.float().mean((2, 3))
        stripes = torch.stack([rows[:, start : start + 2].mean(1) for start in (5, 2, 0)], dim=1)
        return stripes, rows + 0.0


def test_a_model_that_gives_logits_is_scored_by_its_probabilities(
    commit: Commit, tmp_path: Path
) -> None:
    (tmp_path / "plain").mkdir()
    expected = evaluate(write_model(tmp_path, ByBrightness()), commit.uri)

    found = evaluate(write_model(tmp_path / "plain", Logits()), commit.uri)

    assert found.loss == pytest.approx(expected.loss, abs=1e-6)
    assert found.confusion == expected.confusion
    assert found.calibration.error == pytest.approx(expected.calibration.error, abs=1e-6)


def rewrite(folder: Path, uri: str, **changes: Any) -> str:
    """Write a package again whose description differs."""
    package = open_package(Path(uri))
    files = {"model.pt2": Path(uri) / "model.pt2"}
    target = str(folder / "rewritten")
    write_package(target, replace(package.manifest, **changes), files=files)
    return target


def test_a_model_that_does_not_fit_its_description_is_refused(
    commit: Commit, tmp_path: Path
) -> None:
    good = write_model(tmp_path, ByBrightness())
    colour = {"kind": "image", "channels": 3, "image_size": 8}

    with pytest.raises(InputError, match="cannot take examples as its preprocessing prepares"):
        evaluate(rewrite(tmp_path, good, preprocessing=colour), commit.uri)
    champion = rewrite(tmp_path, good, labels=(*LABELS, "more"))
    with pytest.raises(
        InputError, match=r"with the shape \[9, 3\], not one score for each of its 4"
    ):
        compare(evaluate(good, commit.uri), champion, commit.uri, EvaluationConfig())


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
    first, _ = score_classes(("a", "b"), ((4, 1), (2, 3)))

    assert first.precision == pytest.approx(4 / 6)
    assert first.recall == pytest.approx(4 / 5)
    assert first.f1 == pytest.approx(8 / 11)


def make_answers(*, num_examples: int = 600) -> tuple[Tensor, Tensor]:
    """Answers of three classes that are right more often than not, some of them very sure."""
    random = np.random.default_rng(0)
    targets = random.integers(0, 3, num_examples)
    scores = random.normal(size=(num_examples, 3)) * random.choice([0.5, 4], (num_examples, 1))
    scores[np.arange(num_examples), targets] += 1.5
    return torch.from_numpy(scores).softmax(1).float(), torch.from_numpy(targets)


def test_areas_under_roc_curves_are_those_of_scikit_learn() -> None:
    probabilities, targets = make_answers()
    tally = ScoreTally(("a", "b", "c"))
    for start in range(0, 600, 100):
        tally.add(probabilities[start : start + 100], targets[start : start + 100])

    expected = [roc_auc_score(targets == index, probabilities[:, index]) for index in range(3)]
    assert [curve.area for curve in tally.class_rocs] == pytest.approx(expected, abs=0.002)
    truths = torch.nn.functional.one_hot(targets, 3)
    assert tally.roc is not None
    assert tally.roc.area == pytest.approx(
        roc_auc_score(truths.flatten(), probabilities.flatten()), abs=0.002
    )


def test_points_of_a_roc_curve_are_what_their_thresholds_give() -> None:
    probabilities, targets = make_answers()
    tally = ScoreTally(("a", "b", "c"))
    tally.add(probabilities, targets)

    curve = tally.class_rocs[1]
    scores, truths = probabilities[:, 1].double(), targets == 1
    points = zip(
        curve.thresholds, curve.true_positive_rates, curve.false_positive_rates, strict=True
    )
    for threshold, found, wrong in list(points)[1:]:
        predicted = scores >= threshold
        assert found == pytest.approx((predicted & truths).sum() / truths.sum())
        assert wrong == pytest.approx((predicted & ~truths).sum() / (~truths).sum())


def test_a_class_without_examples_has_no_curve() -> None:
    tally = ScoreTally(("a", "b", "c"))
    tally.add(torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.5, 0.2]]), torch.tensor([0, 1]))

    assert [curve.label for curve in tally.class_rocs] == ["a", "b"]


def test_calibration_compares_confidence_with_accuracy() -> None:
    tally = ScoreTally(("a", "b"))
    sure = torch.tensor([[0.9, 0.1]]).expand(10, 2)
    tally.add(sure, torch.tensor([0] * 6 + [1] * 4))
    tally.add(torch.tensor([[0.45, 0.55]] * 2), torch.tensor([1, 0]))

    low, high = tally.calibration.bins
    assert (low.num_examples, low.accuracy) == (2, 0.5)
    assert (high.num_examples, high.accuracy) == (10, 0.6)
    assert high.confidence == pytest.approx(0.9)
    assert tally.calibration.error == pytest.approx((10 * 0.3 + 2 * 0.05) / 12)


def test_a_model_that_answers_no_numbers_is_refused() -> None:
    with pytest.raises(InputError, match="NaN"):
        ScoreTally(("a", "b")).add(torch.tensor([[math.nan, 1.0]]), torch.tensor([0]))


def count_slices(
    rows: Sequence[tuple[dict[str, object], bool]], columns: Sequence[str] = ()
) -> dict[tuple[str, str], tuple[int, float]]:
    tally = SliceTally(lambda index: rows[index][0], columns=columns)
    for index, (_, is_right) in enumerate(rows):
        tally.add(index, label="a", is_right=is_right)
    return {(s.column, s.value): (s.num_examples, s.accuracy) for s in tally.slices()}


def test_columns_of_few_values_make_slices() -> None:
    rows = [
        ({"camera": index % 2, "id": index, "site": "x"}, index % 4 != 1) for index in range(80)
    ]

    assert count_slices(rows) == {("camera", "1"): (40, 0.5), ("camera", "0"): (40, 1.0)}


def test_slices_are_by_label_where_no_column_divides_the_split() -> None:
    assert count_slices([({}, True), ({}, False)]) == {("label", "a"): (2, 0.5)}


@pytest.mark.parametrize("columns", [(), ("camera",)])
def test_a_column_that_later_commits_brought_makes_slices(columns: tuple[str, ...]) -> None:
    rows: list[tuple[dict[str, object], bool]] = [
        ({}, True), ({}, False), ({"camera": "new"}, False)
    ]  # fmt: skip

    assert count_slices(rows, columns) == {
        ("camera", "missing"): (2, 0.5),
        ("camera", "new"): (1, 0.0),
    }


def test_columns_to_slice_by_are_checked() -> None:
    rows: list[tuple[dict[str, object], bool]] = [({"id": index}, True) for index in range(80)]

    with pytest.raises(InputError, match="No column 'camera' to slice by; there are id, tag"):
        count_slices(rows, ["camera"])
    with pytest.raises(InputError, match="'id' has more than 30 values"):
        count_slices(rows, ["id"])


def test_text_models_are_sliced_by_the_columns_of_their_table(tmp_path: Path) -> None:
    source = tmp_path / "texts.csv"
    rows = [f"text {n},{'ab'[n % 2]},{'en' if n % 3 else 'de'}" for n in range(60)]
    source.write_text("\n".join(["text,label,language", *rows]))
    store = str(tmp_path / "store")
    made = ingest(
        IngestConfig(name="t", source=str(source), store=store, kind="text_classification")
    )
    split = open_dataset(made.uri).split("train")

    tally = SliceTally(split.metadata)
    for index in range(len(split)):
        tally.add(index, label="a", is_right=True)

    assert {(part.column, part.value) for part in tally.slices()} == {
        ("language", "de"),
        ("language", "en"),
    }


def test_examples_of_tagged_commits_make_slices(tmp_path: Path) -> None:
    old = write_image_folder(tmp_path / "old", {"top": 20, "middle": 20, "bottom": 20})
    store = str(tmp_path / "store")
    first = ingest(IngestConfig(name="s", source=str(old), store=store))
    add_tag(dataset_of(first.uri), first.version_hash, "first")
    model = write_model(tmp_path, AlwaysTop())

    assert {part.column for part in evaluate(model, first.uri).slices} == {"label"}
    chosen = evaluate(model, first.uri, EvaluationConfig(slice_by=("tag",)))

    assert [(part.column, part.value) for part in chosen.slices] == [("tag", "first")]
    assert chosen.slices[0].num_examples == chosen.num_examples


def compare_models(commit: Commit, folder: Path, champion: nn.Module, **labels: str) -> Comparison:
    (folder / "old").mkdir()
    challenger = evaluate(write_model(folder, ByBrightness()), commit.uri)
    known = tuple(labels.get(label, label) for label in LABELS)
    served = write_model(folder / "old", champion, labels=known)
    return compare(challenger, served, commit.uri, EvaluationConfig())


def test_a_better_model_beats_the_served_one(commit: Commit, tmp_path: Path) -> None:
    comparison = compare_models(commit, tmp_path, AlwaysTop())

    assert comparison.champion_accuracy == pytest.approx(1 / 3)
    assert comparison.challenger_accuracy == 1.0
    assert comparison.is_won()
    assert comparison.is_won(2 / 3)
    assert not comparison.is_won(0.7)
    assert comparison.new_labels_accuracy is None


def test_the_same_model_holds_against_itself_without_a_gain(commit: Commit, tmp_path: Path) -> None:
    comparison = compare_models(commit, tmp_path, ByBrightness())

    assert comparison.is_won()
    assert not comparison.is_won(0.001)


def test_a_worse_model_loses(commit: Commit, tmp_path: Path) -> None:
    better = compare_models(commit, tmp_path, AlwaysTop())

    assert not replace(better, challenger=better.champion, champion=better.challenger).is_won()


def test_models_are_compared_on_the_labels_that_both_know(commit: Commit, tmp_path: Path) -> None:
    comparison = compare_models(commit, tmp_path, AlwaysTop(), bottom="gone")

    assert comparison.champion.num_examples == 6
    assert comparison.champion_accuracy == 0.5
    assert comparison.new_labels == ("bottom",)
    assert comparison.new_labels_accuracy == 1.0


def test_a_served_model_of_other_labels_cannot_be_compared(commit: Commit, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"of which split 'test' of .* has no examples"):
        compare_models(commit, tmp_path, AlwaysTop(), top="x", middle="y", bottom="z")


def test_the_report_shows_all_parts_and_escapes_labels(commit: Commit, tmp_path: Path) -> None:
    comparison = compare_models(commit, tmp_path, AlwaysTop())

    page = render_evaluation(
        replace(comparison.challenger, labels=("bottom", "middle", "<script>x")),
        comparison,
        facts={"model": "m"},
        verdict="It wins.",
    )

    for heading in ("Champion and challenger", "Classes", "Confusion matrix", "ROC", "Calibration"):
        assert f">{heading}<" in page
    assert "It wins." in page
    assert "<script>x" not in page
