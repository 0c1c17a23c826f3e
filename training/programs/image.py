"""Train an image classifier on a dataset commit: `python -m kubeloop.training.programs.image`.

The contract of a training program: it reads `--dataset`, takes hyperparameters as `--name value`,
prints metrics as `name=value` lines, checkpoints to `--checkpoint` and resumes from there, and
writes a model package to `--model` from rank 0. It runs in one process, or in as many as RANK and
WORLD_SIZE say. `entry.py` lists the exit codes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from kubeloop.datasets.reading import Dataset, open_dataset
from kubeloop.datasets.splits import TRAIN, VALIDATION
from kubeloop.datasets.stores import open_store
from kubeloop.errors import InputError
from kubeloop.training.distributed import World
from kubeloop.training.images import (
    ImageBatches,
    ImageClassifier,
    choose_image_size,
    export_classifier,
    load_split,
    measure_normalization,
)
from kubeloop.training.loop import TrainingLoop
from kubeloop.training.loop_config import LoopConfig
from kubeloop.training.package import PackageManifest, TensorSpec
from kubeloop.training.preprocessing import REDUCTION_MARGIN, ImagePreprocessing
from kubeloop.training.programs.entry import (
    build_parser,
    describe_origin,
    parse_bool,
    read_loop_config,
    run_program,
    write_checked_package,
)
from kubeloop.training.selection import Scores
from kubeloop.training.stopping import StopSignal
from kubeloop.training.variants import VariantsConfig, read_variants
from kubeloop.training.vision import DEFAULT_ARCHITECTURE, build_backbone
from kubeloop.training.weights import load_weights

_MAX_IMAGE_SIZE = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageProgramConfig:
    """What the command line says."""

    dataset_uri: str
    """Commit to train on."""
    model_uri: str = ""
    """Where the model package goes; empty: the model is not kept."""
    checkpoint_uri: str = ""
    """Where checkpoints go; empty: none are written."""
    architecture: str = DEFAULT_ARCHITECTURE
    """torchvision name of the backbone."""
    weights_uri: str = ""
    """File of weights of that architecture to start from; empty: random ones."""
    image_size: int = 0
    """Height and width to work on; 0 chooses one that fits the data."""
    augment: bool = True
    """Turn, scale and shift training images a little."""
    variants: VariantsConfig
    """Other forms of the model that the package holds too."""
    loop: LoopConfig
    """Hyperparameters of the loop."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot work."""
        if self.image_size != 0 and not 8 <= self.image_size <= _MAX_IMAGE_SIZE:
            raise InputError(
                f"image_size must be 0 or from 8 to {_MAX_IMAGE_SIZE}, not {self.image_size!r}."
            )


def parse_arguments(arguments: Sequence[str]) -> ImageProgramConfig:
    """Read the command line.

    Raises:
        InputError: A value is out of range. (Unknown or malformed arguments exit with code 2.)
    """
    parser = build_parser(
        "kubeloop.training.programs.image", description=__doc__, loop=LoopConfig()
    )
    parser.add_argument("--architecture", default=DEFAULT_ARCHITECTURE)
    parser.add_argument("--weights", default="", help="URI of a file of weights to start from")
    parser.add_argument("--image_size", type=int, default=0, help="0: chosen from the data")
    parser.add_argument("--augment", type=parse_bool, default=True, metavar="true|false")
    values = parser.parse_args(arguments)
    return ImageProgramConfig(
        dataset_uri=values.dataset,
        model_uri=values.model,
        checkpoint_uri=values.checkpoint,
        architecture=values.architecture,
        weights_uri=values.weights,
        image_size=values.image_size,
        augment=values.augment,
        variants=read_variants(values),
        loop=read_loop_config(values),
    )


def train(config: ImageProgramConfig, world: World, stop: StopSignal) -> Scores:
    """Train, and write the model package from the main process.

    Args:
        config: What to train on and how.
        world: The processes; joined already.
        stop: Asked after every step whether to end.

    Raises:
        KubeloopError: See `TrainingLoop.run`.
    """
    dataset = open_dataset(config.dataset_uri)
    classifier, loop = _build(config, dataset, world=world, stop=stop)
    scores = loop.run()
    if world.is_main and config.model_uri:
        classifier = classifier.cpu().eval()
        write_checked_package(
            config.model_uri,
            classifier,
            export_classifier(classifier),
            _describe(config, dataset, classifier, scores),
            sample=(_draw_sample(classifier.preprocessing),),
            dataset=dataset,
            variants=config.variants,
        )
    return scores


def _build(
    config: ImageProgramConfig, dataset: Dataset, *, world: World, stop: StopSignal
) -> tuple[ImageClassifier, TrainingLoop]:
    image_size = config.image_size or _choose_size(dataset)
    preprocessing = ImagePreprocessing(
        channels=dataset.channels, image_size=image_size, reduction_margin=REDUCTION_MARGIN
    )
    images, labels = load_split(dataset.split(TRAIN), preprocessing)
    torch.manual_seed(config.loop.seed)
    backbone = build_backbone(
        config.architecture, num_classes=len(dataset.labels), image_size=image_size
    )
    if config.weights_uri:
        load_weights(backbone, config.weights_uri)
    mean, std = measure_normalization(images)
    classifier = ImageClassifier(backbone, preprocessing=preprocessing, mean=mean, std=std)
    classifier.to(world.device)
    validation = load_split(dataset.split(VALIDATION), preprocessing)
    loop = TrainingLoop(
        classifier.backbone,
        config.loop,
        world=world,
        train=ImageBatches(images, labels, classifier=classifier, augment=config.augment),
        validation=ImageBatches(*validation, classifier=classifier, augment=False),
        checkpoints=open_store(config.checkpoint_uri) if config.checkpoint_uri else None,
        identity={
            "dataset_version_hash": dataset.commit.version_hash,
            "architecture": config.architecture,
            "weights": config.weights_uri,
            "image_size": image_size,
            "augment": config.augment,
        },
        stop=stop,
        report=lambda line: print(line, flush=True),
    )
    return classifier, loop


def _choose_size(dataset: Dataset) -> int:
    summary = dataset.commit.statistics[dataset.commit.manifest.kind]
    return choose_image_size([summary["width"]["mean"], summary["height"]["mean"]])


def _describe(
    config: ImageProgramConfig, dataset: Dataset, classifier: ImageClassifier, scores: Scores
) -> PackageManifest:
    preprocessing = classifier.preprocessing
    return PackageManifest(
        name=dataset.commit.name,
        inputs=(
            TensorSpec(
                name="image",
                datatype="UINT8",
                shape=(-1, -1, -1, preprocessing.channels),
                content="image",
            ),
        ),
        outputs=(
            TensorSpec(name="probabilities", datatype="FP32", shape=(-1, len(dataset.labels))),
        ),
        labels=dataset.labels,
        preprocessing=preprocessing.render(),
        metrics=scores.render(),
        hyperparameters={
            **asdict(config.loop),
            "architecture": config.architecture,
            "weights": config.weights_uri,
            "image_size": preprocessing.image_size,
            "augment": config.augment,
        },
        provenance=describe_origin(dataset, os.environ),
    )


def _draw_sample(preprocessing: ImagePreprocessing) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (3, 20, 24, preprocessing.channels)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return run_program(parse_arguments, train, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
