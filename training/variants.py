"""Other forms of a package's program, each checked against the original before it is written.

`onnx` computes the same with ONNX Runtime; `int8` does so with weights and products of 8 bits, a
quarter of the size. Programs that take images are quantised with the ranges that training images
give; others, whose inputs differ in length, take the ranges of each input as it comes.

A variant is scored on the whole validation split beside the original. One that loses more accuracy
than is tolerated fails the training, and no package is written. Times are told in the log and left
out of the package, which is the same bytes for the same training.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kubeloop.datasets.reading import Dataset
from kubeloop.datasets.splits import TRAIN, VALIDATION
from kubeloop.errors import InputError, PermanentError
from kubeloop.training.example_batches import iterate_batches
from kubeloop.training.onnx_export import export_onnx, quantize
from kubeloop.training.onnx_programs import OnnxProgram
from kubeloop.training.package import PackageManifest, VariantSpec
from kubeloop.training.preprocessing import Preprocessing, parse_preprocessing

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_BATCH_SIZE = 32
_NUM_CALIBRATED = 256
_NUM_TIMED = 20

Program = Callable[..., Any]  # tensors to a tensor, or to a tuple of tensors


class Variant(StrEnum):
    """A form of the program beside the exported one."""

    ONNX = "onnx"
    INT8 = "int8"


FILES = {Variant.ONNX: "model.onnx", Variant.INT8: "model.int8.onnx"}


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantsConfig:
    """Which variants a package gets."""

    variants: tuple[Variant, ...] = ()
    """Their names."""
    tolerance: float = 0.01
    """Accuracy on the validation split that a variant may lose."""

    def __post_init__(self) -> None:
        """Refuse a tolerance that is no share."""
        if not 0.0 <= self.tolerance <= 1.0:
            raise InputError(f"variant_tolerance must be from 0 to 1, not {self.tolerance!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How a variant answers beside the original, on the same examples."""

    num_examples: int
    equal_predictions: float
    """Share of the examples for which both name the same label."""
    max_difference: float
    """Greatest difference of one score."""
    accuracy: float
    original_accuracy: float
    num_bytes: int
    """Size of the variant's file."""
    original_num_bytes: int


def add_variant_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `read_variants` reads."""
    parser.add_argument(
        "--variants", default="", help=f"comma-separated, of {', '.join(Variant)}; default: none"
    )
    parser.add_argument(
        "--variant_tolerance",
        type=float,
        default=VariantsConfig().tolerance,
        help="validation accuracy that a variant may lose",
    )


def read_variants(values: argparse.Namespace) -> VariantsConfig:
    """Return what the command line asks for.

    Raises:
        InputError: A variant is unknown, or the tolerance out of range.
    """
    names = [name.strip() for name in values.variants.split(",") if name.strip()]
    if unknown := [name for name in names if name not in tuple(Variant)]:
        raise InputError(f"Unknown variant {unknown[0]!r}; there are {', '.join(Variant)}.")
    return VariantsConfig(
        variants=tuple(variant for variant in Variant if variant in names),
        tolerance=values.variant_tolerance,
    )


def add_variants(
    config: VariantsConfig,
    manifest: PackageManifest,
    *,
    program: ExportedProgram,
    path: Path,
    dataset: Dataset | None,
    report: Callable[[str], None],
) -> tuple[PackageManifest, dict[str, Path]]:
    """Write the variants beside a program, and check them.

    Args:
        config: Which ones.
        manifest: Of the package without them.
        program: The original.
        path: Its file; the variants are written into its folder.
        dataset: What it was trained on.
        report: Takes a line for the log.

    Returns:
        The manifest with the variants, and their files by name in the package.

    Raises:
        InputError: They cannot be made, or not be checked.
        PermanentError: One loses more accuracy than is tolerated.
    """
    if not config.variants:
        return manifest, {}
    examples = _Examples(manifest, dataset)
    exact = path.with_name(FILES[Variant.ONNX])
    export_onnx(program, exact)
    files = {Variant.ONNX: exact}
    if Variant.INT8 in config.variants:
        files[Variant.INT8] = path.with_name(FILES[Variant.INT8])
        quantize(exact, files[Variant.INT8], calibration=examples.calibration())
    original, specs = program.module(), {}
    for variant in config.variants:
        file = files[variant]
        quick = OnnxProgram(file)
        agreement = replace(
            compare_programs(original, quick, examples.validation()),
            num_bytes=file.stat().st_size,
            original_num_bytes=path.stat().st_size,
        )
        report(f"Variant {variant}: {_describe(agreement)}")
        if not agreement.accuracy >= agreement.original_accuracy - config.tolerance:
            raise PermanentError(
                f"The variant {variant} loses more than {config.tolerance:g} of accuracy; no model"
                f" is written: {_describe(agreement)} Leave it out of variants, or allow more"
                " with variant_tolerance."
            )
        report(f"Variant {variant}: {_time_both(original, quick, examples.first())}")
        specs[variant.value] = VariantSpec(file=file.name, metrics=asdict(agreement))
    kept = {FILES[variant]: files[variant] for variant in config.variants}
    return replace(manifest, variants=specs), kept


class _Examples:
    """The dataset as inputs of the program, read as they are needed."""

    def __init__(self, manifest: PackageManifest, dataset: Dataset | None) -> None:
        if dataset is None or not manifest.preprocessing or manifest.labels != dataset.labels:
            raise InputError(
                "Variants are checked on the dataset's validation split, so the model must say how"
                " its examples become inputs (preprocessing) and score the dataset's labels."
            )
        self._dataset, self._labels = dataset, manifest.labels
        self._preprocessing: Preprocessing = parse_preprocessing(manifest.preprocessing)
        self._takes_images = manifest.preprocessing["kind"] == "image"

    def validation(self) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """Inputs and classes of the whole split."""
        return self._read(VALIDATION)

    def first(self) -> tuple[Tensor, ...]:
        """Inputs of one example."""
        return next(self._read(VALIDATION, indices=[0]))[0]

    def calibration(self) -> Iterator[Sequence[Any]] | None:
        """Inputs from all over the training split; None where ranges are taken of each input."""
        if not self._takes_images:
            return None
        length = len(self._dataset.split(TRAIN))
        step = max(1, length // _NUM_CALIBRATED)
        chosen = range(0, length, step)[:_NUM_CALIBRATED]
        batches = self._read(TRAIN, indices=chosen)
        return ([part.numpy() for part in inputs] for inputs, _ in batches)

    def _read(
        self, split: str, *, indices: Sequence[int] | None = None
    ) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        rows = self._dataset.split(split)
        batches = iterate_batches(
            rows, self._labels, self._preprocessing, batch_size=_BATCH_SIZE, indices=indices
        )
        return ((batch.inputs, batch.targets) for batch in batches)


def compare_programs(
    original: Program, variant: Program, batches: Iterator[tuple[tuple[Tensor, ...], Tensor]]
) -> Agreement:
    """Score two programs on the same batches of inputs and classes; sizes are left at 0.

    Raises:
        InputError: The variant's scores are no numbers, or there are no examples.
    """
    count = num_equal = num_hits = num_original_hits = 0
    most = 0.0
    for inputs, targets in batches:
        expected, actual = _score(original, inputs), _score(variant, inputs)
        if not actual.isfinite().all() and expected.isfinite().all():
            raise InputError("A variant's scores are no numbers where the original's are.")
        most = max(most, (expected - actual).abs().max().item())
        chosen, predicted = expected.argmax(1), actual.argmax(1)
        count += len(targets)
        num_equal += int((chosen == predicted).sum())
        num_hits += int((predicted == targets).sum())
        num_original_hits += int((chosen == targets).sum())
    if not count:
        raise InputError("There are no examples to check a variant on.")
    return Agreement(
        num_examples=count,
        equal_predictions=num_equal / count,
        max_difference=most,
        accuracy=num_hits / count,
        original_accuracy=num_original_hits / count,
        num_bytes=0,
        original_num_bytes=0,
    )


def _score(program: Program, inputs: tuple[Tensor, ...]) -> Tensor:
    with torch.inference_mode():
        computed = program(*inputs)
    scores: Tensor = computed[0] if isinstance(computed, tuple | list) else computed
    return scores.float()


def _describe(agreement: Agreement) -> str:
    return (
        f"accuracy {agreement.accuracy:.4f}, the original's {agreement.original_accuracy:.4f}, on"
        f" {agreement.num_examples} validation examples; {agreement.equal_predictions:.2%} of the"
        f" predictions are equal, scores differ by {agreement.max_difference:.2g} at most;"
        f" {agreement.num_bytes:,} bytes, the original's {agreement.original_num_bytes:,}."
    )


def _time_both(original: Program, variant: Program, inputs: tuple[Tensor, ...]) -> str:
    """The best of several, by turns, so that what else the machine does falls on both."""
    best = [float("inf"), float("inf")]
    with torch.inference_mode():
        for _ in range(_NUM_TIMED):
            for index, program in enumerate((original, variant)):
                started = perf_counter()
                program(*inputs)
                best[index] = min(best[index], perf_counter() - started)
    return f"{best[1] * 1e3:.2f} ms for one example, the original {best[0] * 1e3:.2f} ms."
