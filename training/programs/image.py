"""Train an image classifier on a dataset commit: `python -m kubeloop.training.programs.image`.

The contract of a training program: it reads `--dataset`, takes hyperparameters as `--name value`,
prints metrics as `name=value` lines, checkpoints to `--checkpoint` and resumes from there, and
writes a model package to `--model` from rank 0. It runs in one process, or in as many as RANK and
WORLD_SIZE say.

Exit codes: 0 done; 1 wrong input or no use in trying again; 2 wrong arguments; 138 another process
of the job went away; 143 stopped by SIGTERM, after a checkpoint. Codes from 128 ask for a restart.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from kubeloop import __version__
from kubeloop.datasets.reading import Dataset, open_dataset
from kubeloop.datasets.splits import TRAIN, VALIDATION
from kubeloop.datasets.stores import open_store
from kubeloop.errors import InputError, KubeloopError, PermanentError
from kubeloop.training.archive import load_program, save_program
from kubeloop.training.distributed import (
    LostPeerError,
    World,
    joined,
    limit_threads,
    read_world,
)
from kubeloop.training.images import (
    ImageBatches,
    ImageClassifier,
    choose_image_size,
    export_classifier,
    load_split,
    measure_normalization,
)
from kubeloop.training.loop import LoopConfig, Scores, StoppedError, StopSignal, TrainingLoop
from kubeloop.training.package import PROGRAM_FILE, PackageManifest, TensorSpec, write_package
from kubeloop.training.preprocessing import ImagePreprocessing
from kubeloop.training.vision import DEFAULT_ARCHITECTURE, build_backbone

EXIT_FAILED = 1
EXIT_LOST_PEER = 138
EXIT_STOPPED = 143
_MAX_IMAGE_SIZE = 1024
_TOLERANCE = 1e-4


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
    image_size: int = 0
    """Height and width to work on; 0 chooses one that fits the data."""
    augment: bool = True
    """Turn, scale and shift training images a little."""
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
    parser = argparse.ArgumentParser(
        prog="kubeloop.training.programs.image", description=__doc__, allow_abbrev=False
    )
    defaults = LoopConfig()
    parser.add_argument("--dataset", required=True, help="URI of a dataset commit")
    parser.add_argument("--model", default="", help="URI to write the model package to")
    parser.add_argument("--checkpoint", default="", help="URI to keep checkpoints at")
    parser.add_argument("--architecture", default=DEFAULT_ARCHITECTURE)
    parser.add_argument("--image_size", type=int, default=0, help="0: chosen from the data")
    parser.add_argument("--augment", type=_parse_bool, default=True, metavar="true|false")
    for name, default in asdict(defaults).items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    values = vars(parser.parse_args(arguments))
    return ImageProgramConfig(
        dataset_uri=values["dataset"],
        model_uri=values["model"],
        checkpoint_uri=values["checkpoint"],
        architecture=values["architecture"],
        image_size=values["image_size"],
        augment=values["augment"],
        loop=LoopConfig(**{name: values[name] for name in asdict(defaults)}),
    )


def _parse_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be true or false, not {text!r}")
    return text.lower() == "true"


def train(
    config: ImageProgramConfig, *, world: World, stop: StopSignal, provenance: Mapping[str, str]
) -> Scores:
    """Train, and write the model package from the main process.

    Args:
        config: What to train on and how.
        world: The processes; joined already.
        stop: Asked after every step whether to end.
        provenance: What the environment says about job and run.

    Raises:
        KubeloopError: See `TrainingLoop.run`.
    """
    dataset = open_dataset(config.dataset_uri)
    classifier, loop = _build(config, dataset, world=world, stop=stop)
    scores = loop.run()
    if world.is_main and config.model_uri:
        manifest = _describe(config, dataset, classifier, scores, provenance)
        _write(config.model_uri, classifier.cpu().eval(), manifest)
    return scores


def _build(
    config: ImageProgramConfig, dataset: Dataset, *, world: World, stop: StopSignal
) -> tuple[ImageClassifier, TrainingLoop]:
    image_size = config.image_size or _choose_size(dataset)
    preprocessing = ImagePreprocessing(channels=dataset.channels, image_size=image_size)
    images, labels = load_split(dataset.split(TRAIN), preprocessing)
    torch.manual_seed(config.loop.seed)
    backbone = build_backbone(
        config.architecture, num_classes=len(dataset.labels), image_size=image_size
    )
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
    config: ImageProgramConfig,
    dataset: Dataset,
    classifier: ImageClassifier,
    scores: Scores,
    provenance: Mapping[str, str],
) -> PackageManifest:
    commit, preprocessing = dataset.commit, classifier.preprocessing
    return PackageManifest(
        name=commit.name,
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
        metrics={"val_loss": scores.loss, "val_accuracy": scores.accuracy},
        hyperparameters={
            **asdict(config.loop),
            "architecture": config.architecture,
            "image_size": preprocessing.image_size,
            "augment": config.augment,
        },
        provenance={
            "dataset": commit.name,
            "dataset_uri": commit.uri,
            "dataset_version_hash": commit.version_hash,
            "source_digest": commit.source_digest,
            "code_version": __version__,
            "torch_version": torch.__version__,
            **provenance,
        },
    )


def _write(uri: str, classifier: ImageClassifier, manifest: PackageManifest) -> None:
    """Export the model, check that it still gives the same answers, and write the package."""
    channels = classifier.preprocessing.channels
    sample = torch.randint(
        0, 256, (3, 20, 24, channels), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    with tempfile.TemporaryDirectory(prefix="kubeloop-export-") as folder:
        path = Path(folder, PROGRAM_FILE)
        save_program(export_classifier(classifier), path)
        with torch.inference_mode():
            difference = (load_program(path)(sample) - classifier(sample)).abs().max().item()
        if not difference <= _TOLERANCE:
            raise PermanentError(
                f"The exported model differs from the trained one by {difference}; it is not kept."
            )
        write_package(uri, manifest, files={PROGRAM_FILE: path})


def read_provenance(environment: Mapping[str, str]) -> dict[str, str]:
    """Read which job and run this process belongs to."""
    return {
        "training_job": environment.get("KUBELOOP_JOB_NAME", ""),
        "run_id": environment.get("KUBELOOP_RUN_ID", ""),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    stop = StopSignal()
    with stop.installed():
        try:
            config = parse_arguments(sys.argv[1:] if arguments is None else arguments)
            limit_threads(os.environ)
            world = read_world(os.environ)
            provenance = read_provenance(os.environ)
            with joined(world):
                train(config, world=world, stop=stop, provenance=provenance)
        except StoppedError as error:
            print(error, file=sys.stderr, flush=True)
            return EXIT_STOPPED
        except LostPeerError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            return EXIT_STOPPED if stop.is_set else EXIT_LOST_PEER
        except KubeloopError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
