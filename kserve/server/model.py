"""What the server asks of a model, and how a model package becomes one.

Plug point: a `Model` reads requests of either protocol into named arrays, computes on a batch of
them, and renders predictions. Loaders are registered under the `kind` of a package's preprocessing,
so that a new kind of model is one class and one registration.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kubeloop.kserve.server.tensors import Array
from kubeloop.registry import Registry
from kubeloop.training.package import ModelPackage, TensorSpec

Arrays = Mapping[str, Array]


class Model(ABC):
    """A loaded model.

    The `read_` methods and `compute` are called in the model's worker thread, never at the same
    time; `render` is called there too. Arrays have the batch as their first axis, and `compute`
    treats the rows of a batch independently, so that requests may be computed together.
    """

    inputs: tuple[TensorSpec, ...]
    """Tensors that V2 requests carry."""
    outputs: tuple[TensorSpec, ...]
    """Tensors that V2 replies carry."""

    @abstractmethod
    def read_instances(self, instances: Sequence[Any]) -> Arrays:
        """Read V1 `instances`, which are any JSON, into one row each.

        Raises:
            InvalidRequestError: An instance is not what the model takes; the message says which.
        """

    @abstractmethod
    def read_tensors(self, tensors: Arrays) -> Arrays:
        """Read the tensors of a V2 request.

        Raises:
            InvalidRequestError: A tensor is missing, unknown, or of another type or shape.
        """

    @abstractmethod
    def compute(self, batch: Arrays) -> Arrays:
        """Run the model on a batch; returns `outputs` by name."""

    @abstractmethod
    def render(self, outputs: Arrays) -> list[Any]:
        """Render outputs as V1 `predictions`, one JSON value a row."""


ModelLoader = Callable[[ModelPackage], Model]

MODEL_LOADERS: Registry[ModelLoader] = Registry("kind of model")
"""`kind` of a package's preprocessing → function that loads the model."""


def load_model(package: ModelPackage) -> Model:
    """Load a verified package.

    Raises:
        InputError: No loader is registered for its kind, or the package cannot be loaded.
    """
    # They register themselves, and bring torch.
    from kubeloop.kserve.server import image_classifier, text_classifier  # noqa: F401

    return MODEL_LOADERS[str(package.manifest.preprocessing.get("kind", ""))](package)
