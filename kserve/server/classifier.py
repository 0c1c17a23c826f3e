"""What the classifiers of all kinds of data share: from scores of labels to answers.

V1 predictions: `{"label": …, "probabilities": {label: probability}}`.
V2 outputs: the package's, and `label` as BYTES.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from kubeloop.errors import InputError
from kubeloop.kserve.server.errors import InvalidRequestError
from kubeloop.kserve.server.model import Arrays, Model
from kubeloop.kserve.server.tensors import Array
from kubeloop.training.package import PackageManifest, TensorSpec

LABEL_OUTPUT = "label"
_DIGITS = 6  # of a probability in V1 replies


class Classifier(Model):
    """A program that scores the package's labels; it reads one input tensor."""

    def __init__(
        self,
        program: Callable[..., Any],  # tensors to a tensor, or to a tuple of tensors
        *,
        manifest: PackageManifest,
    ) -> None:
        inputs, outputs, labels = manifest.inputs, manifest.outputs, manifest.labels
        if len(inputs) != 1 or not outputs or not labels:
            raise InputError(
                "A classifier has one input, outputs and labels; the package has"
                f" {len(inputs)}, {len(outputs)} and {len(labels)}."
            )
        self._program = program
        self._input = inputs[0]
        self._computed = outputs
        self._labels = labels
        self._label_array = np.array(labels, dtype=np.object_)
        self.inputs = inputs
        self.outputs = (*outputs, TensorSpec(name=LABEL_OUTPUT, datatype="BYTES", shape=(-1,)))

    def render(self, outputs: Arrays) -> list[Any]:
        """See `Model`."""
        probabilities = outputs[self._computed[0].name].astype(np.float64).round(_DIGITS)
        return [
            {"label": label, "probabilities": dict(zip(self._labels, row, strict=True))}
            for label, row in zip(outputs[LABEL_OUTPUT], probabilities.tolist(), strict=True)
        ]

    def try_out(self, batch: Arrays) -> None:
        """Compute once, so that the first request is no slower than the rest.

        Raises:
            InputError: The program does not run, or scores other labels than the package's.
        """
        try:
            outputs = self.compute(batch)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise InputError(f"The model package's program does not run: {error}.") from error
        num_scores = outputs[self._computed[0].name].shape[-1]
        if num_scores != len(self._labels):
            raise InputError(
                f"The model package has {len(self._labels)} labels, but its program answers"
                f" {num_scores} scores."
            )

    def _find_input(self, tensors: Arrays) -> Array:
        """The one tensor that a V2 request carries."""
        name = self._input.name
        if unknown := [given for given in tensors if given != name]:
            raise InvalidRequestError(f"Unknown input {unknown[0]!r}; the input is {name!r}.")
        if name not in tensors:
            raise InvalidRequestError(f"Input {name!r} is missing.")
        if not tensors[name].size:
            raise InvalidRequestError(f"Input {name!r} is empty.")
        return tensors[name]

    def _run(self, *inputs: Array) -> Arrays:
        with torch.inference_mode():
            computed = self._program(*(torch.from_numpy(array) for array in inputs))
        tensors = computed if isinstance(computed, tuple) else (computed,)
        arrays: dict[str, Array] = {
            spec.name: tensor.numpy() for spec, tensor in zip(self._computed, tensors, strict=True)
        }
        scores = arrays[self._computed[0].name]
        return {**arrays, LABEL_OUTPUT: self._label_array[scores.argmax(axis=1)]}
