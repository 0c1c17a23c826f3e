"""From raw examples to a model's input, as recorded in a model package.

Training, evaluation and serving go through here, so that a model sees in production what it saw in
training. A package's `preprocessing.kind` names the reader; each is a plug-in of `PREPROCESSINGS`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

from kubeloop.datasets.images import Channels, decode_image
from kubeloop.errors import InputError
from kubeloop.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


REDUCTION_MARGIN = 1.0
"""Of new models. Photos decoded at a fraction and then shrunk differ from those shrunk at once by
2 to 3 of 256 levels on average, at a margin of 1.5 by 1 to 2, and are read much faster."""


class Preprocessing(ABC):
    """How raw examples, as bytes, become the positional inputs of a packaged program.

    It is a function of its settings and of the bytes alone, on any machine.
    """

    @abstractmethod
    def render(self) -> dict[str, Any]:
        """Write for a model package; `kind` names the reader."""

    @abstractmethod
    def prepare(self, examples: Sequence[bytes]) -> tuple[NDArray[Any], ...]:
        """Return the program's inputs for a batch of encoded examples.

        Raises:
            InputError: An example cannot be decoded.
        """


PREPROCESSINGS: Registry[Callable[[Mapping[str, Any]], Preprocessing]] = Registry(
    "kind of preprocessing"
)
"""Kind → reader of what `render` wrote."""


def parse_preprocessing(document: Mapping[str, Any]) -> Preprocessing:
    """Read the `preprocessing` of a model package.

    Raises:
        InputError: It is of a kind or a version that this kubeloop does not know.
    """
    # NB: registers the kind; at the top of this module it would be a circle.
    from kubeloop.training import text_preprocessing  # noqa: F401

    try:
        return PREPROCESSINGS[str(document.get("kind", ""))](document)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"Unknown preprocessing {dict(document)!r} in the model package: {error}"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePreprocessing(Preprocessing):
    """How images become the input of a model.

    The exported program takes images of any size and resizes them itself. Encoded images that are
    larger than the model's size are brought to it where they are decoded, which is several times as
    fast as in the program and differs by one of 256 levels at most; training, evaluation and
    serving all decode here. `stack` is only needed to put images of different sizes into one batch,
    and resizes exactly as the program does.
    """

    channels: Channels
    """3 for RGB, 1 for grey."""
    image_size: int
    """Height and width that the model works on, in pixels."""
    reduction_margin: float = 0.0
    """Large JPEG files are decoded at a fraction of their size, if that is still at least this many
    times the model's; 0: never."""

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> ImagePreprocessing:
        """Read what `render` wrote."""
        if document["kind"] != "image" or document["channels"] not in (1, 3):
            raise InputError("it is not of kind 'image' with 1 or 3 channels.")
        reduces = bool(document.get("reduces", False))  # in packages from before there was a choice
        return cls(
            channels=document["channels"],
            image_size=int(document["image_size"]),
            reduction_margin=float(document.get("reduction_margin", 1.5 * reduces)),
        )

    def render(self) -> dict[str, Any]:
        """Write for a model package."""
        return {"kind": "image", **asdict(self)}

    def prepare(self, examples: Sequence[bytes]) -> tuple[NDArray[np.uint8], ...]:
        """Return batch x height x width x channels."""
        return (self.stack([self.decode(example) for example in examples]),)

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        """Decode an encoded image to height x width x channels, no larger than the model's size.

        Raises:
            InputError: It is no image, is damaged, or is too big.
        """
        min_side = math.ceil(self.image_size * self.reduction_margin)
        image = decode_image(data, channels=self.channels, min_side=min_side)
        return (
            self._shrink(image) if image.shape[0] * image.shape[1] > self.image_size**2 else image
        )

    def _shrink(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        import numpy as np
        import torch
        from torch.nn.functional import interpolate

        writable = np.require(image, requirements=["C", "W"])
        planes = torch.from_numpy(writable).permute(2, 0, 1).unsqueeze(0)
        # NB: of bytes torch computes this in integers, with the processor's vector instructions.
        small = interpolate(planes, size=[self.image_size] * 2, mode="bilinear", antialias=True)
        return cast("NDArray[np.uint8]", small[0].permute(1, 2, 0).numpy())

    def resize(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Scale an image to the model's size, as the exported program would."""
        import torch

        from kubeloop.training.images import resize_images

        if image.shape[:2] == (self.image_size, self.image_size):
            return image
        tensor = torch.from_numpy(image.copy()).permute(2, 0, 1).unsqueeze(0)
        resized = resize_images(tensor, self.image_size).round().to(torch.uint8)
        return cast("NDArray[np.uint8]", resized[0].permute(1, 2, 0).numpy())

    def stack(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Join images to one batch, resizing only where their sizes differ.

        Returns:
            Batch x height x width x channels.
        """
        import numpy as np

        if len({image.shape for image in images}) > 1:
            images = [self.resize(image) for image in images]
        return np.stack(images)


PREPROCESSINGS.register("image", ImagePreprocessing.parse)
