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
from kubeloop.kserve.server.classifier import Classifier
from kubeloop.kserve.server.errors import InvalidRequestError
from kubeloop.kserve.server.model import MODEL_LOADERS, Arrays
from kubeloop.kserve.server.programs import speed_up
from kubeloop.training.package import ModelPackage, PackageManifest
from kubeloop.training.preprocessing import ImagePreprocessing

Pixels = npt.NDArray[np.uint8]  # height x width x channels

_MAX_PIXEL = 255


class ImageClassifierModel(Classifier):
    """A classifier of images; it answers as all classifiers do.

    V1 instances: nested lists of pixel values, or `{"b64": …}` with an image file's bytes.
    V2 input: the package's, as UINT8 (batch, height, width, channels) or as BYTES (batch) of image
    files.
    """

    def __init__(
        self,
        program: Callable[[torch.Tensor], Any],  # see Classifier
        *,
        manifest: PackageManifest,
        preprocessing: ImagePreprocessing,
    ) -> None:
        super().__init__(program, manifest=manifest)
        self._preprocessing = preprocessing

    def read_instances(self, instances: Sequence[Any]) -> Arrays:
        """See `Model`."""
        images = [self._read_instance(index, item) for index, item in enumerate(instances)]
        return {self._input.name: self._preprocessing.stack(images)}

    def read_tensors(self, tensors: Arrays) -> Arrays:
        """See `Model`."""
        name, tensor = self._input.name, self._find_input(tensors)
        if tensor.dtype.kind == "O":
            files = enumerate(tensor.reshape(-1))
            images = [self._decode(f"element {index}", file) for index, file in files]
            return {name: self._preprocessing.stack(images)}
        channels = self._preprocessing.channels
        if tensor.dtype != np.uint8 or tensor.ndim != 4 or tensor.shape[3] != channels:
            raise InvalidRequestError(
                f"Input {name!r} must be UINT8 of shape [-1, -1, -1, {channels}] (batch, height,"
                f" width, channels) or BYTES of image files, not {tensor.dtype} of shape"
                f" {list(tensor.shape)}."
            )
        return {name: tensor}

    def compute(self, batch: Arrays) -> Arrays:
        """See `Model`."""
        return self._run(np.require(batch[self._input.name], requirements=["C", "W"]))

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
    """Load a package.

    Raises:
        InputError: The package is of another kind, or its program is not acceptable.
    """
    manifest = package.manifest
    preprocessing = ImagePreprocessing.parse(manifest.preprocessing)
    model = ImageClassifierModel(
        speed_up(package.load_model(), tuple(_build_samples(preprocessing))),
        manifest=manifest,
        preprocessing=preprocessing,
    )
    size = preprocessing.image_size
    blank = np.zeros((1, size, size, preprocessing.channels), dtype=np.uint8)
    model.try_out({manifest.inputs[0].name: blank})
    return model


def _build_samples(preprocessing: ImagePreprocessing) -> Iterator[tuple[torch.Tensor]]:
    """Images of several sizes, the same every time."""
    generator = torch.Generator().manual_seed(0)
    size, channels = preprocessing.image_size, preprocessing.channels
    for shape in ((1, size, size, channels), (3, size + 5, size + 2, channels)):
        yield (torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),)


MODEL_LOADERS.register("image", load_image_classifier)
