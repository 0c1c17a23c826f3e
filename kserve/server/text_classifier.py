"""Text classifiers: model packages whose preprocessing is `text`.

A request carries texts as they are. Those of one batch become numbers together, because the program
takes all texts of a batch at the length of the longest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from kubeloop.kserve.server.classifier import Classifier
from kubeloop.kserve.server.errors import InvalidRequestError
from kubeloop.kserve.server.model import MODEL_LOADERS, Arrays
from kubeloop.kserve.server.programs import speed_up
from kubeloop.training.package import ModelPackage, PackageManifest
from kubeloop.training.preprocessing import Preprocessing, parse_preprocessing


class TextClassifierModel(Classifier):
    """A classifier of texts; it answers as all classifiers do.

    V1 instances: JSON strings. V2 input: the package's, as BYTES of UTF-8 texts.
    """

    def __init__(
        self,
        program: Callable[..., Any],  # see Classifier
        *,
        manifest: PackageManifest,
        preprocessing: Preprocessing,
    ) -> None:
        super().__init__(program, manifest=manifest)
        self._preprocessing = preprocessing

    def read_instances(self, instances: Sequence[Any]) -> Arrays:
        """See `Model`."""
        for index, instance in enumerate(instances):
            if not isinstance(instance, str):
                raise InvalidRequestError(
                    f"Instance {index} must be a text (a JSON string), not {str(instance)[:80]!r}."
                )
        return self._join([instance.encode() for instance in instances])

    def read_tensors(self, tensors: Arrays) -> Arrays:
        """See `Model`."""
        tensor = self._find_input(tensors)
        if tensor.dtype.kind != "O":
            raise InvalidRequestError(
                f"Input {self._input.name!r} must be BYTES of texts, not {tensor.dtype}."
            )
        texts = list(tensor.reshape(-1))
        for index, text in enumerate(texts):
            try:
                text.decode()
            except UnicodeDecodeError as error:
                raise InvalidRequestError(f"Element {index} is not UTF-8: {error}.") from error
        return self._join(texts)

    def compute(self, batch: Arrays) -> Arrays:
        """See `Model`."""
        return self._run(*self._preprocessing.prepare(list(batch[self._input.name])))

    def _join(self, texts: Sequence[bytes]) -> Arrays:
        array = np.empty(len(texts), dtype=np.object_)
        array[:] = texts
        return {self._input.name: array}


def load_text_classifier(package: ModelPackage) -> TextClassifierModel:
    """Load a package.

    Raises:
        InputError: The package is of another kind, or its program is not acceptable.
    """
    preprocessing = parse_preprocessing(package.manifest.preprocessing)
    model = TextClassifierModel(
        speed_up(package.load_model(), list(_build_samples(preprocessing))),
        manifest=package.manifest,
        preprocessing=preprocessing,
    )
    model.try_out(model.read_instances(["a text", ""]))
    return model


def _build_samples(preprocessing: Preprocessing) -> Iterator[tuple[torch.Tensor, ...]]:
    """Batches of texts of several lengths."""
    for texts in ([b"a text of some words"], [b"", b"text", b"a longer text, of many words " * 5]):
        yield tuple(torch.from_numpy(part) for part in preprocessing.prepare(texts))


MODEL_LOADERS.register("text", load_text_classifier)
