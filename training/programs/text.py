"""Train a text classifier on a dataset commit: `python -m kubeloop.training.programs.text`.

The contract is that of every training program; see `image.py`. Where the dataset has a label that
says "none of the others" (`--out_of_scope`), it is learnt like any class, and its recall on the
validation data is printed beside the accuracy on the other examples. `--out_of_scope_shift` is
added to its log-probability: the higher, the more texts are left to it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice

import torch
from torch import Tensor

from kubeloop.datasets.reading import Dataset, TextSplit, open_dataset
from kubeloop.datasets.splits import TRAIN, VALIDATION
from kubeloop.datasets.stores import open_store
from kubeloop.errors import InputError
from kubeloop.training.distributed import World
from kubeloop.training.loop import TrainingLoop
from kubeloop.training.loop_config import LoopConfig, Selection
from kubeloop.training.package import PackageManifest, TensorSpec
from kubeloop.training.programs.entry import (
    add_fields,
    build_parser,
    describe_origin,
    read_loop_config,
    run_program,
    write_checked_package,
)
from kubeloop.training.selection import Scores
from kubeloop.training.stopping import StopSignal
from kubeloop.training.text_batches import TextBatches
from kubeloop.training.text_preprocessing import TextFeatures, TextPreprocessing
from kubeloop.training.texts import (
    TextClassifier,
    TextModelConfig,
    TextNetwork,
    Vocabulary,
    export_text_classifier,
)
from kubeloop.training.variants import VariantsConfig, read_variants

DEFAULT_LOOP = LoopConfig(
    learning_rate=0.003,
    batch_size=128,
    epochs=8,
    weight_decay=0.01,
    warm_up=0.1,
    label_smoothing=0.05,
    selection=Selection.LAST,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextProgramConfig:
    """What the command line says."""

    dataset_uri: str
    """Commit to train on."""
    model_uri: str = ""
    """Where the model package goes; empty: the model is not kept."""
    checkpoint_uri: str = ""
    """Where checkpoints go; empty: none are written."""
    out_of_scope: str = "oos"
    """Label of texts that belong to no other; a dataset need not have it."""
    out_of_scope_shift: float = 0.5
    """Added to the log-probability of that label."""
    preprocessing: TextPreprocessing
    """Which features a text has."""
    model: TextModelConfig
    """Size and regularisation of the model."""
    variants: VariantsConfig
    """Other forms of the model that the package holds too."""
    loop: LoopConfig
    """Hyperparameters of the loop."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not -100.0 <= self.out_of_scope_shift <= 100.0:
            raise InputError(
                f"out_of_scope_shift must be from -100 to 100, not {self.out_of_scope_shift!r}."
            )


def parse_arguments(arguments: Sequence[str]) -> TextProgramConfig:
    """Read the command line.

    Raises:
        InputError: A value is out of range. (Unknown or malformed arguments exit with code 2.)
    """
    parser = build_parser("kubeloop.training.programs.text", description=__doc__, loop=DEFAULT_LOOP)
    add_fields(parser, TextPreprocessing())
    add_fields(parser, TextModelConfig())
    parser.add_argument("--out_of_scope", default="oos")
    parser.add_argument("--out_of_scope_shift", type=float, default=0.5)
    values = parser.parse_args(arguments)
    return TextProgramConfig(
        dataset_uri=values.dataset,
        model_uri=values.model,
        checkpoint_uri=values.checkpoint,
        out_of_scope=values.out_of_scope,
        out_of_scope_shift=values.out_of_scope_shift,
        preprocessing=TextPreprocessing(
            **{field.name: getattr(values, field.name) for field in fields(TextPreprocessing)}
        ),
        model=TextModelConfig(
            **{field.name: getattr(values, field.name) for field in fields(TextModelConfig)}
        ),
        variants=read_variants(values),
        loop=read_loop_config(values),
    )


def train(config: TextProgramConfig, world: World, stop: StopSignal) -> Scores:
    """Train, and write the model package from the main process.

    Args:
        config: What to train on and how.
        world: The processes; joined already.
        stop: Asked after every step whether to end.

    Raises:
        KubeloopError: See `TrainingLoop.run`.
    """
    dataset = open_dataset(config.dataset_uri)
    network, loop = _build(config, dataset, world=world, stop=stop)
    scores = loop.run()
    if world.is_main and config.model_uri:
        classifier = TextClassifier(network).cpu().eval()
        texts = [example.text.encode() for example in islice(dataset.split(VALIDATION), 3)]
        write_checked_package(
            config.model_uri,
            classifier,
            export_text_classifier(classifier, config.preprocessing),
            _describe(config, dataset, scores),
            sample=tuple(torch.from_numpy(part) for part in config.preprocessing.prepare(texts)),
            dataset=dataset,
            variants=config.variants,
        )
    return scores


def _build(
    config: TextProgramConfig, dataset: Dataset, *, world: World, stop: StopSignal
) -> tuple[TextNetwork, TrainingLoop]:
    labels = dataset.labels
    texts, targets = _load(dataset, TRAIN, preprocessing=config.preprocessing)
    torch.manual_seed(config.loop.seed)
    vocabulary = Vocabulary(
        texts, preprocessing=config.preprocessing, min_count=config.model.min_count
    )
    shift = torch.tensor([config.out_of_scope_shift * (n == config.out_of_scope) for n in labels])
    network = TextNetwork(vocabulary, config.model, shift=shift).to(world.device)

    def to_batches(texts: Sequence[TextFeatures], targets: Tensor) -> TextBatches:
        return TextBatches(texts, targets, num_classes=len(labels), device=world.device)

    loop = TrainingLoop(
        network,
        config.loop,
        world=world,
        train=to_batches(texts, targets),
        validation=to_batches(*_load(dataset, VALIDATION, preprocessing=config.preprocessing)),
        checkpoints=open_store(config.checkpoint_uri) if config.checkpoint_uri else None,
        identity={
            "dataset_version_hash": dataset.commit.version_hash,
            **_list_settings(config),
        },
        stop=stop,
        report=lambda line: print(line, flush=True),
        score_classes=_score_scope(labels, config.out_of_scope),
    )
    return network, loop


def _load(
    dataset: Dataset, split: str, *, preprocessing: TextPreprocessing
) -> tuple[list[TextFeatures], Tensor]:
    examples = dataset.split(split)
    if not isinstance(examples, TextSplit):
        raise InputError(
            f"{dataset.commit.uri!r} is a dataset of kind {dataset.commit.manifest.kind!r}, not of"
            " texts; train it with another program."
        )
    if not len(examples):
        raise InputError(f"The split {split!r} has no examples; make larger split fractions.")
    texts, targets = zip(*examples, strict=True)
    return preprocessing.extract_all(texts), torch.tensor(targets)


def _score_scope(
    labels: Sequence[str], out_of_scope: str
) -> Callable[[Tensor, Tensor], Mapping[str, float]]:
    """Score texts in and out of scope apart; all are in scope where no label says otherwise."""
    if out_of_scope not in labels:
        return lambda hits, counts: {"in_scope_accuracy": (hits.sum() / counts.sum()).item()}
    index = list(labels).index(out_of_scope)

    def score(hits: Tensor, counts: Tensor) -> Mapping[str, float]:
        inside = max(counts.sum().item() - counts[index].item(), 1.0)
        return {
            "in_scope_accuracy": (hits.sum() - hits[index]).item() / inside,
            "out_of_scope_recall": hits[index].item() / max(counts[index].item(), 1.0),
        }

    return score


def _list_settings(config: TextProgramConfig) -> dict[str, object]:
    return {
        **asdict(config.preprocessing),
        **asdict(config.model),
        "out_of_scope": config.out_of_scope,
        "out_of_scope_shift": config.out_of_scope_shift,
    }


def _describe(config: TextProgramConfig, dataset: Dataset, scores: Scores) -> PackageManifest:
    labels = dataset.labels
    return PackageManifest(
        name=dataset.commit.name,
        inputs=(TensorSpec(name="text", datatype="BYTES", shape=(-1,), content="text"),),
        outputs=(TensorSpec(name="probabilities", datatype="FP32", shape=(-1, len(labels))),),
        labels=labels,
        preprocessing=config.preprocessing.render(),
        metrics=scores.render(),
        hyperparameters={**asdict(config.loop), **_list_settings(config)},
        provenance=describe_origin(dataset, os.environ),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return run_program(parse_arguments, train, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
