"""Score a model package on a split of a dataset commit, alone or against another.

The packaged program is scored, as serving will run it, not the weights that training still holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kubeloop.datasets.reading import Dataset, Split, open_dataset
from kubeloop.datasets.splits import TEST
from kubeloop.errors import InputError
from kubeloop.training.example_batches import iterate_batches
from kubeloop.training.package import Digest, ModelPackage, opened_package
from kubeloop.training.preprocessing import parse_preprocessing
from kubeloop.training.scores import Calibration, ClassScores, RocCurve, ScoreTally, score_classes
from kubeloop.training.slices import SliceScores, SliceTally, find_tagged

if TYPE_CHECKING:
    from torch import Tensor

_ROUNDING = 1e-9
_MAX_SUM_ERROR = 0.01
"""By which probabilities in half precision may miss a sum of 1."""
_READ_BY = {"image": "image_classification", "text": "text_classification"}
"""What a package's preprocessing reads, by kinds of datasets; others may read any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """What is scored, and how."""

    split: str = TEST
    """Which split of the dataset."""
    variant: str = ""
    """Which form of the model, such as `int8`; empty: the original."""
    batch_size: int = 256
    """Examples at a time."""
    slice_by: tuple[str, ...] = ()
    """Columns, `tag` or `label` to slice by; empty: tags and columns of few values, else label."""
    only_known_labels: bool = False
    """Whether examples with labels that the model does not know are left out, not refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Scores of one model on one split."""

    digest: Digest
    """The model package's."""
    split: str
    labels: tuple[str, ...]
    """The model's."""
    loss: float
    """Mean cross-entropy."""
    confusion: tuple[tuple[int, ...], ...]
    """Examples by true class (row) and predicted class (column)."""
    calibration: Calibration
    roc: RocCurve | None
    """Of all classes together; None where there is but one."""
    class_rocs: tuple[RocCurve, ...]
    """Of the classes that have examples, beside others."""
    slices: tuple[SliceScores, ...]

    @property
    def num_examples(self) -> int:
        """How many examples it was scored on."""
        return sum(map(sum, self.confusion))

    @property
    def accuracy(self) -> float:
        """Share of the predictions that is right."""
        return self.accuracy_on(self.labels) or 0.0

    @property
    def classes(self) -> tuple[ClassScores, ...]:
        """Scores by class."""
        return score_classes(self.labels, self.confusion)

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that have examples."""
        scores = [scores.f1 for scores in self.classes if scores.num_examples]
        return sum(scores) / len(scores) if scores else 0.0

    def accuracy_on(self, labels: Sequence[str]) -> float | None:
        """Accuracy on the examples of some labels; None where there are none."""
        chosen = [index for index, label in enumerate(self.labels) if label in set(labels)]
        total = sum(sum(self.confusion[index]) for index in chosen)
        return sum(self.confusion[index][index] for index in chosen) / total if total else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A new model, the challenger, beside the one that is served, the champion.

    They are compared on the examples whose labels both know, so that a model that has learnt a new
    label shows whether it still is good on the old ones.
    """

    challenger: Evaluation
    champion: Evaluation
    """On the same split, without the examples whose labels it does not know."""
    champion_uri: str

    @property
    def champion_accuracy(self) -> float:
        """The champion's accuracy on the labels that it knows."""
        return self.champion.accuracy

    @property
    def challenger_accuracy(self) -> float:
        """The challenger's accuracy on the same examples."""
        return self.challenger.accuracy_on(self.champion.labels) or 0.0

    @property
    def new_labels(self) -> tuple[str, ...]:
        """Labels that the champion does not know."""
        return tuple(label for label in self.challenger.labels if label not in self.champion.labels)

    @property
    def new_labels_accuracy(self) -> float | None:
        """The challenger's accuracy on them; None where the split has none."""
        return self.challenger.accuracy_on(self.new_labels)

    def is_won(self, min_gain: float = 0.0) -> bool:
        """Whether the challenger is better by at least `min_gain`; 0: at least as good."""
        gain = self.challenger_accuracy - self.champion_accuracy
        return gain >= min_gain - _ROUNDING


def evaluate(
    model_uri: str,
    dataset_uri: str,
    config: EvaluationConfig | None = None,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score a model package.

    Args:
        model_uri: A model package.
        dataset_uri: A dataset commit with the model's labels.
        config: What is scored.
        on_progress: Called with the number of examples done, and of all.

    Raises:
        InputError: The model is no classifier of this dataset's labels, or the split is empty.
        IntegrityError: Model or data differ from their recorded digests.
    """
    config = config or EvaluationConfig()
    dataset = open_dataset(dataset_uri)
    rows = dataset.split(config.split)
    if not len(rows):
        raise InputError(f"Split {config.split!r} of {dataset_uri!r} has no examples to score on.")
    slices = SliceTally(
        rows.metadata,
        columns=config.slice_by,
        tagged=find_tagged(dataset.commit, config.split),
    )
    with opened_package(model_uri, variant=config.variant) as package:
        known = package.manifest.labels
        _check_kind(package, model_uri=model_uri, dataset=dataset)
        if known != dataset.labels and not config.only_known_labels:
            raise InputError(
                f"The model {model_uri!r} knows the labels {list(known)}, the"
                f" dataset {dataset_uri!r} has {list(dataset.labels)}; they must be the same."
            )
        evaluation = _score(package, rows, config, slices=slices, on_progress=on_progress)
    if not evaluation.num_examples:
        raise InputError(
            f"The model {model_uri!r} knows the labels {list(known)}, of which split"
            f" {config.split!r} of {dataset_uri!r} has no examples."
        )
    return evaluation


def compare(
    challenger: Evaluation, champion_uri: str, dataset_uri: str, config: EvaluationConfig
) -> Comparison:
    """Score the served model on the same split.

    Args:
        challenger: How the new model does there.
        champion_uri: The model package that is served.
        dataset_uri: The dataset commit that the challenger was scored on.
        config: What the challenger was scored with.

    Raises:
        InputError: There is no model package, or it knows none of the split's labels.
        IntegrityError: It differs from its recorded digests.
    """
    config = EvaluationConfig(
        split=config.split, batch_size=config.batch_size, only_known_labels=True
    )
    champion = evaluate(champion_uri, dataset_uri, config)
    return Comparison(challenger=challenger, champion=champion, champion_uri=champion_uri)


def _check_kind(package: ModelPackage, *, model_uri: str, dataset: Dataset) -> None:
    kind, reader = dataset.commit.manifest.kind, package.manifest.preprocessing.get("kind")
    if kind in _READ_BY.values() and _READ_BY.get(str(reader), kind) != kind:
        raise InputError(
            f"The model {model_uri!r} is of {reader}s, the dataset {dataset.commit.uri!r} is for"
            f" {kind}."
        )


def _score(
    package: ModelPackage,
    rows: Split[Any],  # of images or texts
    config: EvaluationConfig,
    *,
    slices: SliceTally,
    on_progress: Callable[[int, int], None] | None,
) -> Evaluation:
    import torch

    labels = package.manifest.labels
    model = package.load_model()
    preprocessing = parse_preprocessing(package.manifest.preprocessing)
    tally = ScoreTally(labels)
    with torch.inference_mode():
        for batch in iterate_batches(rows, labels, preprocessing, batch_size=config.batch_size):
            hits = tally.add(_answer(model, batch.inputs, labels), batch.targets)
            for index, target, hit in zip(
                batch.indices, batch.targets.tolist(), hits.tolist(), strict=True
            ):
                slices.add(index, label=labels[target], is_right=hit)
            if on_progress is not None:
                on_progress(batch.indices[-1] + 1, len(rows))
    return Evaluation(
        digest=package.digest,
        split=config.split,
        labels=labels,
        loss=tally.loss,
        confusion=tally.confusion,
        calibration=tally.calibration,
        roc=tally.roc,
        class_rocs=tally.class_rocs,
        slices=slices.slices(),
    )


def _answer(model: Callable[..., Any], inputs: tuple[Tensor, ...], labels: Sequence[str]) -> Tensor:
    """Return probabilities, batch x labels, of a program that gives these or logits."""
    try:
        computed = model(*inputs)
    except RuntimeError as error:
        cause = str(error).partition("\n")[0].rstrip(".")
        raise InputError(
            f"The model cannot take examples as its preprocessing prepares them: {cause}."
        ) from error
    scores: Tensor = computed[0] if isinstance(computed, tuple | list) else computed
    if scores.ndim != 2 or scores.shape[1] != len(labels):
        raise InputError(
            f"The model answers a batch with the shape {list(scores.shape)}, not one score for each"
            f" of its {len(labels)} labels."
        )
    scores = scores.double()
    is_probability = (scores >= 0) & ((scores.sum(1, keepdim=True) - 1).abs() <= _MAX_SUM_ERROR)
    return scores if is_probability.all() else scores.softmax(1)
