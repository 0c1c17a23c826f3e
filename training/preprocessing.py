"""From raw images to a model's input, as recorded in a model package.

Training, evaluation and serving go through here, so that a model sees in production what it saw in
training. The exported program takes images of any size and resizes them itself; `stack` is only
needed to put images of different sizes into one batch, and resizes exactly as the program does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from kubeloop.datasets.images import Channels, decode_image
from kubeloop.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePreprocessing:
    """How images become the input of a model."""

    channels: Channels
    """3 for RGB, 1 for grey."""
    image_size: int
    """Height and width that the model works on, in pixels."""

    def render(self) -> dict[str, Any]:
        """Write for a model package."""
        return {"kind": "image", "channels": self.channels, "image_size": self.image_size}

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        """Decode an encoded image to height x width x channels.

        Raises:
            InputError: It is no image, is damaged, or is too big.
        """
        return decode_image(data, channels=self.channels)

    def resize(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Scale an image to the model's size, as the exported program would."""
        import torch

        from kubeloop.training.images import resize_images

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


def parse_preprocessing(document: Mapping[str, Any]) -> ImagePreprocessing:
    """Read the `preprocessing` of a model package.

    Raises:
        InputError: It is of a kind that this version does not know.
    """
    if document.get("kind") != "image" or document.get("channels") not in (1, 3):
        raise InputError(f"Unknown preprocessing {dict(document)!r} in the model package.")
    return ImagePreprocessing(channels=document["channels"], image_size=int(document["image_size"]))
