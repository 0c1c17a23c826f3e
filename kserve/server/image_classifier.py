"""Image classifiers: model packages whose preprocessing is `image`.

The exported program takes unsigned bytes, batch by height by width by channels, of any size, and
has the rest of the preprocessing inside. So this only has to find pixels in a request.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from kubeloop.errors import InputError
from kubeloop.kserve.server.errors import InvalidRequestError
from kubeloop.kserve.server.model import MODEL_LOADERS, Arrays, Model
from kubeloop.kserve.server.programs import speed_up
from kubeloop.kserve.server.tensors import Array
from kubeloop.training.package import ModelPackage, TensorSpec
from kubeloop.training.preprocessing import ImagePreprocessing

Pixels = npt.NDArray[np.uint8]  # height x width x channels

LABEL_OUTPUT = "label"
_MAX_PIXEL = 255
_DIGITS = 6  # of a probability in V1 replies


class ImageClassifierModel(Model):
    """A classifier of images.

    V1 instances: nested lists of pixel values, or `{"b64": …}` with an image file's bytes.
    V1 predictions: `{"label": …, "probabilities": {label: probability}}`.
    V2 input: the package's, as UINT8 (batch, height, width, channels) or as BYTES (batch) of image
    files. V2 outputs: the package's, and `label` as BYTES.
    """

    def __init__(
        self,
        program: Callable[[torch.Tensor], Any],  # a tensor, or a tuple of tensors
        *,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        labels: Sequence[str],
        preprocessing: ImagePreprocessing,
    ) -> None:
        if len(inputs) != 1 or not outputs or not labels:
            raise InputError(
                "An image classifier has one input, outputs and labels; the package has"
                f" {len(inputs)}, {len(outputs)} and {len(labels)}."
            )
        self._program = program
        self._input = inputs[0]
        self._computed = tuple(outputs)
        self._labels = list(labels)
        self._label_array = np.array(self._labels, dtype=np.object_)
        self._preprocessing = preprocessing
        self.inputs = tuple(inputs)
        self.outputs = (*outputs, TensorSpec(name=LABEL_OUTPUT, datatype="BYTES", shape=(-1,)))

    def read_instances(self, instances: Sequence[Any]) -> Arrays:
        """See `Model`."""
        images = [self._read_instance(index, item) for index, item in enumerate(instances)]
        return {self._input.name: self._preprocessing.stack(images)}

    def read_tensors(self, tensors: Arrays) -> Arrays:
        """See `Model`."""
        name = self._input.name
        if unknown := [given for given in tensors if given != name]:
            raise InvalidRequestError(f"Unknown input {unknown[0]!r}; the input is {name!r}.")
        if name not in tensors:
            raise InvalidRequestError(f"Input {name!r} is missing.")
        tensor = tensors[name]
        if tensor.dtype.kind == "O":
            files = enumerate(tensor.reshape(-1))
            images = [self._decode(f"element {index}", file) for index, file in files]
            if not images:
                raise InvalidRequestError(f"Input {name!r} is empty.")
            return {name: self._preprocessing.stack(images)}
        channels = self._preprocessing.channels
        if tensor.dtype != np.uint8 or tensor.ndim != 4 or tensor.shape[3] != channels:
            raise InvalidRequestError(
                f"Input {name!r} must be UINT8 of shape [-1, -1, -1, {channels}] (batch, height,"
                f" width, channels) or BYTES of image files, not {tensor.dtype} of shape"
                f" {list(tensor.shape)}."
            )
        if not tensor.size:
            raise InvalidRequestError(f"Input {name!r} is empty.")
        return {name: tensor}

    def compute(self, batch: Arrays) -> Arrays:
        """See `Model`."""
        images = np.require(batch[self._input.name], requirements=["C", "W"])
        with torch.inference_mode():
            computed = self._program(torch.from_numpy(images))
        tensors = computed if isinstance(computed, tuple) else (computed,)
        arrays: dict[str, Array] = {
            spec.name: tensor.numpy() for spec, tensor in zip(self._computed, tensors, strict=True)
        }
        scores = arrays[self._computed[0].name]
        return {**arrays, LABEL_OUTPUT: self._label_array[scores.argmax(axis=1)]}

    def render(self, outputs: Arrays) -> list[Any]:
        """See `Model`."""
        probabilities = outputs[self._computed[0].name].astype(np.float64).round(_DIGITS)
        return [
            {"label": label, "probabilities": dict(zip(self._labels, row, strict=True))}
            for label, row in zip(outputs[LABEL_OUTPUT], probabilities.tolist(), strict=True)
        ]

    def _read_instance(self, index: int, instance: Any) -> Pixels:
        where = f"Instance {index}"
        if isinstance(instance, Mapping):
            encoded = instance.get("b64")
            if not isinstance(encoded, str):
                raise InvalidRequestError(
                    f"{where} is an object without 'b64', the base64 text of an image file."
                )
            try:
                content = base64.b64decode(encoded, validate=True)
            except (binascii.Error, ValueError) as error:
                raise InvalidRequestError(f"{where} has a 'b64' that is no base64.") from error
            return self._decode(where, content)
        return self._read_pixels(where, instance)

    def _decode(self, where: str, content: bytes) -> Pixels:
        try:
            return self._preprocessing.decode(content)
        except InputError as error:
            raise InvalidRequestError(f"{where} cannot be decoded: {error}.") from error

    def _read_pixels(self, where: str, instance: Any) -> Pixels:
        expected = (
            f"{where} must be height x width or height x width x channels (1 or 3) of whole"
            f" numbers from 0 to {_MAX_PIXEL}, or {{'b64': …}}"
        )
        try:
            raw = np.asarray(instance)
        except ValueError as error:  # rows of different lengths
            raise InvalidRequestError(f"{expected}: {error}.") from error
        if raw.dtype.kind not in "iuf" or raw.ndim not in (2, 3) or not raw.size:
            raise InvalidRequestError(f"{expected}, not {raw.dtype} of shape {list(raw.shape)}.")
        if raw.ndim == 3 and raw.shape[2] not in (1, 3):
            raise InvalidRequestError(f"{expected}, not {raw.shape[2]} channels.")
        if raw.min() < 0 or raw.max() > _MAX_PIXEL:
            raise InvalidRequestError(f"{expected}, not {raw.min()} to {raw.max()}.")
        pixels = raw.astype(np.uint8)
        if raw.dtype.kind == "f" and (pixels != raw).any():
            raise InvalidRequestError(f"{expected}; scale fractions to that range first.")
        return self._match_channels(pixels if raw.ndim == 3 else pixels[:, :, np.newaxis])

    def _match_channels(self, pixels: Pixels) -> Pixels:
        wanted = self._preprocessing.channels
        if pixels.shape[2] == wanted:
            return pixels
        if wanted == 3:
            return np.repeat(pixels, 3, axis=2)
        from PIL import Image

        return np.asarray(Image.fromarray(pixels).convert("L"))[:, :, np.newaxis]


def load_image_classifier(package: ModelPackage) -> ImageClassifierModel:
    """Load a package, and compute once so that the first request is no slower than the rest.

    Raises:
        InputError: The package is of another kind, or its program is not acceptable.
    """
    manifest = package.manifest
    preprocessing = ImagePreprocessing.parse(manifest.preprocessing)
    model = ImageClassifierModel(
        speed_up(package.load_model(), tuple(_build_samples(preprocessing))),
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        labels=manifest.labels,
        preprocessing=preprocessing,
    )
    size = preprocessing.image_size
    blank = np.zeros((1, size, size, preprocessing.channels), dtype=np.uint8)
    try:
        outputs = model.compute({manifest.inputs[0].name: blank})
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise InputError(f"The model package's program does not run: {error}.") from error
    num_scores = outputs[manifest.outputs[0].name].shape[-1]
    if num_scores != len(manifest.labels):
        raise InputError(
            f"The model package has {len(manifest.labels)} labels, but its program answers"
            f" {num_scores} scores."
        )
    return model


def _build_samples(preprocessing: ImagePreprocessing) -> Iterator[torch.Tensor]:
    """Images of several sizes, the same every time."""
    generator = torch.Generator().manual_seed(0)
    size, channels = preprocessing.image_size, preprocessing.channels
    for shape in ((1, size, size, channels), (3, size + 5, size + 2, channels)):
        yield torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


MODEL_LOADERS.register("image", load_image_classifier)
