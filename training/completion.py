"""Makes a model package out of what a program without kubeloop can write: an exported program.

The least is `model.pt2`, as `torch.export.save` writes it. A `model.json` beside it may say what
the file does not: `labels`, names of `inputs` and `outputs`, `preprocessing`, `metrics`. What it
leaves out is read off the program and the dataset.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from kubeloop.datasets.images import Channels
from kubeloop.datasets.reading import Dataset
from kubeloop.errors import InputError
from kubeloop.training.archive import read_program, save_program
from kubeloop.training.images import choose_image_size
from kubeloop.training.package import (
    MANIFEST_FILE,
    PROGRAM_FILE,
    PackageManifest,
    TensorSpec,
    write_package,
)
from kubeloop.training.preprocessing import ImagePreprocessing, parse_preprocessing
from kubeloop.training.variants import VariantsConfig, add_variants

_DATATYPES = {
    torch.bool: "BOOL",
    torch.uint8: "UINT8",
    torch.int8: "INT8",
    torch.int16: "INT16",
    torch.int32: "INT32",
    torch.int64: "INT64",
    torch.float16: "FP16",
    torch.bfloat16: "BF16",
    torch.float32: "FP32",
    torch.float64: "FP64",
}
_KNOWN = frozenset({"inputs", "outputs", "labels", "preprocessing", "metrics"})


def complete_package(
    folder: Path,
    uri: str,
    *,
    dataset: Dataset | None,
    metrics: Mapping[str, float],
    hyperparameters: Mapping[str, Any],
    provenance: Mapping[str, str],
    variants: VariantsConfig,
    report: Callable[[str], None],
) -> None:
    """Write the package at `uri` from what a program left in `folder`.

    Args:
        folder: Holds `model.pt2`, and perhaps `model.json`.
        uri: Where the package goes.
        dataset: What the program was trained on; gives labels and image size.
        metrics: The last metric line that the program printed.
        hyperparameters: What it was given.
        provenance: Where it comes from.
        variants: Other forms of the model that the package holds too.
        report: Takes a line for the log.

    Raises:
        InputError: There is no program, it cannot be loaded safely, or `model.json` is wrong.
        PermanentError: A variant differs too much from the program.
    """
    path = folder / PROGRAM_FILE
    if not path.is_file():
        raise InputError(
            f"The program ended without a model: write it with torch.export.save to {PROGRAM_FILE}"
            " in the folder that --model names."
        )
    program = read_program(path)
    said = _read_description(folder / MANIFEST_FILE)
    inputs = _list_specs(_find_values(program, "placeholder"), said.get("inputs"), "input")
    outputs = _list_specs(_find_values(program, "output"), said.get("outputs"), "output")
    labels = said.get("labels") or _find_labels(outputs, dataset)
    preprocessing = said.get("preprocessing") or _guess_preprocessing(inputs, dataset)
    if preprocessing:
        parse_preprocessing(preprocessing)
    if preprocessing.get("kind") == "image":
        [spec] = inputs
        inputs = [
            TensorSpec(name=spec.name, datatype=spec.datatype, shape=spec.shape, content="image")
        ]
    manifest = PackageManifest(
        name=dataset.commit.name if dataset else "model",
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        labels=tuple(str(label) for label in labels),
        preprocessing=preprocessing,
        metrics={**metrics, **said.get("metrics", {})},
        hyperparameters=hyperparameters,
        provenance=provenance,
    )
    with tempfile.TemporaryDirectory(prefix="kubeloop-export-") as staging:
        clean = Path(staging, PROGRAM_FILE)
        save_program(program, clean)
        manifest, files = add_variants(
            variants, manifest, program=program, path=clean, dataset=dataset, report=report
        )
        write_package(uri, manifest, files={PROGRAM_FILE: clean, **files})


def _read_description(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        said = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{MANIFEST_FILE} is not JSON: {error}.") from error
    if not isinstance(said, dict) or said.keys() - _KNOWN:
        raise InputError(f"{MANIFEST_FILE} may say {', '.join(sorted(_KNOWN))}, and nothing else.")
    return said


def _find_values(program: ExportedProgram, kind: str) -> list[torch.Tensor]:
    """Example values of the user's inputs or outputs; sizes that may vary are symbols."""
    signature = program.graph_signature
    wanted = signature.user_inputs if kind == "placeholder" else signature.user_outputs
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    found = [values.get(str(name)) for name in wanted]
    tensors = [value for value in found if isinstance(value, torch.Tensor)]
    if not tensors or len(tensors) < len(found):
        raise InputError(f"Every {kind} of {PROGRAM_FILE} must be a tensor.")
    return tensors


def _list_specs(
    values: Sequence[torch.Tensor], names: Sequence[str] | None, role: str
) -> list[TensorSpec]:
    if names is None:
        names = [role] if len(values) == 1 else [f"{role}_{n}" for n in range(len(values))]
    if len(names) != len(values):
        raise InputError(f"{MANIFEST_FILE} names {len(names)} {role}s; there are {len(values)}.")
    return [
        TensorSpec(
            name=str(name),
            datatype=_DATATYPES[value.dtype],
            shape=tuple(size if isinstance(size, int) else -1 for size in value.shape),
        )
        for name, value in zip(names, values, strict=True)
    ]


def _find_labels(outputs: Sequence[TensorSpec], dataset: Dataset | None) -> Sequence[str]:
    if dataset is None or outputs[0].shape[-1:] != (len(dataset.labels),):
        return ()
    return dataset.labels


def _guess_preprocessing(
    inputs: Sequence[TensorSpec], dataset: Dataset | None
) -> Mapping[str, Any]:
    """Bytes of batch x height x width x 1 or 3 channels are images."""
    spec = inputs[0]
    is_image = len(inputs) == 1 and spec.datatype == "UINT8" and len(spec.shape) == 4
    if not is_image or spec.shape[3] not in (1, 3):
        return {}
    size = spec.shape[1]
    if size < 0:
        size = _find_size(dataset)
    channels: Channels = 1 if spec.shape[3] == 1 else 3
    return ImagePreprocessing(channels=channels, image_size=size).render()


def _find_size(dataset: Dataset | None) -> int:
    if dataset is None:
        return 224
    summary = dataset.commit.statistics[dataset.commit.manifest.kind]
    return choose_image_size([summary["width"]["mean"], summary["height"]["mean"]])
