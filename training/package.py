"""The model package: what training writes, evaluation and serving read, and lineage points at.

A package is a folder of `model.pt2` (an exported program) and `model.json`, which says what goes in
and comes out, how raw input is prepared, what the model scored, where it comes from, and the
sha256 of every file. `model.json` is written last, so a package without it does not exist yet. The
package's digest is the sha256 of `model.json`, and so covers everything. Opening one verifies the
digests, and loading one executes no code from it. Importing this module does not load torch.

A package may also hold variants of its program, such as an ONNX file, that take the same input and
give the same outputs. `model.json` lists them with how they agreed with the original.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NewType

from kubeloop.datasets.stores import FileStore, ObjectStore, check_key, open_store
from kubeloop.errors import InputError, IntegrityError

Digest = NewType("Digest", str)
MANIFEST_FILE = "model.json"
PROGRAM_FILE = "model.pt2"
FORMAT = "kubeloop/model-package"
FORMAT_VERSION = 1
_EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output, in the words of the V2 inference protocol."""

    name: str
    """Name in requests and responses."""
    datatype: str
    """V2 datatype: UINT8, INT64, FP32 …"""
    shape: tuple[int, ...]
    """Shape with the batch first; -1 where any size is accepted."""
    content: str = ""
    """`image`: an element may also come as an encoded image file (V2 BYTES). `text`: an element is
    a text (V2 BYTES), of which `preprocessing` makes the program's inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantSpec:
    """Another form of the package's program."""

    file: str
    """Its file in the package."""
    metrics: Mapping[str, float] = field(default_factory=lambda: _EMPTY)
    """How it agreed with the original on the validation split, and the size of both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageManifest:
    """`model.json`."""

    name: str
    """Name of the model, used as a folder name when it is published."""
    inputs: tuple[TensorSpec, ...]
    """What goes in: the program's positional inputs; with `content` what its reader takes."""
    outputs: tuple[TensorSpec, ...]
    """Outputs of the program, in order."""
    labels: tuple[str, ...] = ()
    """Class names by index of the last axis of the first output; empty: no classifier."""
    preprocessing: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)
    """How raw input becomes the inputs; `kind` names the reader (see `preprocessing.py`)."""
    metrics: Mapping[str, float] = field(default_factory=lambda: _EMPTY)
    """What the model scored while it was trained."""
    hyperparameters: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)
    """What it was trained with."""
    provenance: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    """Dataset, commit, job, run and code it comes from."""
    variants: Mapping[str, VariantSpec] = field(default_factory=lambda: _EMPTY)
    """Other forms of the program by name, such as `onnx` and `int8`."""
    files: Mapping[str, Digest] = field(default_factory=lambda: _EMPTY)
    """sha256 of every other file of the package."""

    def render(self) -> bytes:
        """Write as JSON; the same manifest is always the same bytes."""
        document = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "name": self.name,
            "signature": {
                "inputs": [_render_spec(spec) for spec in self.inputs],
                "outputs": [_render_spec(spec) for spec in self.outputs],
            },
            "labels": list(self.labels),
            "preprocessing": dict(self.preprocessing),
            "metrics": dict(self.metrics),
            "hyperparameters": dict(self.hyperparameters),
            "provenance": dict(self.provenance),
            "files": dict(self.files),
        }
        if self.variants:
            document["variants"] = {
                name: {"file": spec.file, "metrics": dict(spec.metrics)}
                for name, spec in self.variants.items()
            }
        return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()


def _render_spec(spec: TensorSpec) -> dict[str, Any]:
    rendered = {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
    return rendered | ({"content": spec.content} if spec.content else {})


def parse_manifest(data: bytes) -> PackageManifest:
    """Read `model.json`.

    Raises:
        InputError: It is not a model package's manifest, or of a newer format.
    """
    try:
        document = json.loads(data)
        if document["format"] != FORMAT or document["version"] != FORMAT_VERSION:
            raise InputError(
                f"The model package has format {document['format']!r} version"
                f" {document['version']!r}; this kubeloop reads {FORMAT!r} version"
                f" {FORMAT_VERSION}."
            )
        return PackageManifest(
            name=document["name"],
            inputs=tuple(_parse_spec(spec) for spec in document["signature"]["inputs"]),
            outputs=tuple(_parse_spec(spec) for spec in document["signature"]["outputs"]),
            labels=tuple(str(label) for label in document.get("labels", ())),
            preprocessing=document.get("preprocessing", {}),
            metrics=document.get("metrics", {}),
            hyperparameters=document.get("hyperparameters", {}),
            provenance=document.get("provenance", {}),
            variants={
                str(name): VariantSpec(file=str(spec["file"]), metrics=spec.get("metrics", {}))
                for name, spec in document.get("variants", {}).items()
            },
            files={check_key(name): Digest(sha) for name, sha in document["files"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{MANIFEST_FILE} is not a model package's manifest: {error!r}.") from (
            error
        )


def _parse_spec(document: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(
        name=str(document["name"]),
        datatype=str(document["datatype"]),
        shape=tuple(int(size) for size in document["shape"]),
        content=str(document.get("content", "")),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPackage:
    """An opened package in a local folder; its digests have been verified."""

    folder: Path
    """Where the files lie."""
    manifest: PackageManifest
    """What `model.json` says."""
    digest: Digest
    """sha256 of `model.json`."""

    variant: str = ""
    """Which form of the program is loaded; empty: the original."""

    @property
    def program_file(self) -> str:
        """The file of the program that is loaded."""
        return self.manifest.variants[self.variant].file if self.variant else PROGRAM_FILE

    def load_model(self) -> Callable[..., Any]:  # tensors to a tensor, or to a tuple of tensors
        """Load the program as a function that takes the inputs positionally.

        Returns:
            The function; of the original it is a torch module. Call it under
            `torch.inference_mode()`; it returns a tensor, or a tuple of tensors where the manifest
            lists several outputs.

        Raises:
            InputError: The file is no program, or holds anything but tensor operators.
            MissingDependencyError: The variant needs an extra that is not installed.
        """
        path = self.folder / self.program_file
        if self.variant:
            from kubeloop.training.onnx_programs import OnnxProgram

            return OnnxProgram(path)
        from kubeloop.training.archive import load_program

        return load_program(path)


def open_package(folder: Path, *, variant: str = "") -> ModelPackage:
    """Open a package in a local folder.

    Args:
        folder: Holds the package.
        variant: Form of the program that `load_model` loads; empty: the original.

    Raises:
        InputError: There is no package, or it has no such variant.
        IntegrityError: A file differs from its recorded digest, or is missing.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise InputError(f"{str(folder)!r} holds no model package: there is no {MANIFEST_FILE}.")
    data = path.read_bytes()
    manifest = parse_manifest(data)
    if PROGRAM_FILE not in manifest.files:
        raise InputError(f"The model package {str(folder)!r} lists no {PROGRAM_FILE}.")
    if variant and variant not in manifest.variants:
        known = ", ".join(sorted(manifest.variants)) or "none"
        raise InputError(
            f"The model package {str(folder)!r} has no variant {variant!r}, only: {known}. Ask the"
            " training program for it with --variants."
        )
    if stray := [
        spec.file for spec in manifest.variants.values() if spec.file not in manifest.files
    ]:
        raise InputError(f"The model package {str(folder)!r} does not list its {stray[0]!r}.")
    for name, expected in manifest.files.items():
        _verify(folder / name, expected)
    digest = Digest(hashlib.sha256(data).hexdigest())
    return ModelPackage(folder=folder, manifest=manifest, digest=digest, variant=variant)


def _verify(path: Path, expected: Digest) -> None:
    if not path.is_file():
        raise IntegrityError(f"The model package's file {str(path)!r} is missing.")
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != expected:
        raise IntegrityError(
            f"The model package's file {str(path)!r} has sha256 {actual}, not the recorded"
            f" {expected}: it was changed or damaged after it was written."
        )


@contextlib.contextmanager
def opened_package(uri: str, *, variant: str = "") -> Iterator[ModelPackage]:
    """Open a package at any URI, downloading it for the time of the context where needed.

    Raises:
        InputError: There is no package at the URI, or it has no such variant.
        IntegrityError: A file differs from its recorded digest.
    """
    store = open_store(uri)
    if isinstance(store, FileStore):
        yield open_package(store.root, variant=variant)
        return
    with tempfile.TemporaryDirectory(prefix="kubeloop-model-") as folder:
        _download(store, Path(folder))
        yield open_package(Path(folder), variant=variant)


def _download(store: ObjectStore, folder: Path) -> None:
    if not store.exists(MANIFEST_FILE):
        raise InputError(f"{store.uri!r} holds no model package: there is no {MANIFEST_FILE}.")
    data = store.read(MANIFEST_FILE)
    for name in parse_manifest(data).files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        store.download(name, folder / name)
    (folder / MANIFEST_FILE).write_bytes(data)


def write_package(uri: str, manifest: PackageManifest, *, files: Mapping[str, Path]) -> Digest:
    """Write a package; readers see it only when it is whole.

    Args:
        uri: Folder or prefix to write to; a package there is replaced.
        manifest: What to record; `files` of it is filled in.
        files: Local files by their name in the package.

    Returns:
        The package's digest.
    """
    store = open_store(uri)
    digests: dict[str, Digest] = {}
    store.delete(MANIFEST_FILE)
    for name, path in files.items():
        with path.open("rb") as file:
            digests[name] = Digest(hashlib.file_digest(file, "sha256").hexdigest())
        store.upload(name, path)
    data = replace(manifest, files=digests).render()
    store.write(MANIFEST_FILE, data)
    return Digest(hashlib.sha256(data).hexdigest())


def publish(uri: str, store_root: str) -> str:
    """Copy a package to the place that its content names, and verify it there.

    Args:
        uri: A package.
        store_root: Folder or prefix of all published models.

    Returns:
        `<store_root>/<model name>/<digest>`. A package that is there already is left alone.
    """
    with opened_package(uri) as package:
        target = f"{store_root.rstrip('/')}/{check_key(package.manifest.name)}/{package.digest}"
        store = open_store(target)
        if not store.exists(MANIFEST_FILE):
            for name in package.manifest.files:
                store.upload(name, package.folder / name)
            store.upload(MANIFEST_FILE, package.folder / MANIFEST_FILE)
    with opened_package(target) as published:
        if published.digest != package.digest:
            raise IntegrityError(
                f"The model package {target!r} has digest {published.digest}: it was changed."
            )
    return target
