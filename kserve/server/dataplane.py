"""What the model server does, without a transport: routes call this and render the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubeloop import __version__
from kubeloop.kserve.server.errors import InvalidRequestError, ModelNotReadyError
from kubeloop.kserve.server.model import Arrays
from kubeloop.kserve.server.repository import ModelRepository
from kubeloop.training.package import TensorSpec

SERVER_NAME = "kubeloop"
TORCH_PLATFORM = "kubeloop_torch_export"
ONNX_PLATFORM = "onnxruntime_onnx"  # as Triton's server calls it
EXTENSIONS = ("model_repository_extension", "binary_tensor_data")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMetadata:
    """What a V2 client asks about a model."""

    name: str
    version: str
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class DataPlane:
    """The server's verbs; raises `RequestError`s for whatever cannot be answered."""

    def __init__(self, repository: ModelRepository) -> None:
        self.repository = repository
        self._is_draining = False

    def begin_draining(self) -> None:
        """Say not ready from now on, and go on answering."""
        self._is_draining = True

    @property
    def is_ready(self) -> bool:
        """Whether every model is loaded and the server is not about to end."""
        return self.repository.is_ready and not self._is_draining

    @property
    def version(self) -> str:
        """Version of the server."""
        return __version__

    def list_models(self) -> list[str]:
        """Names of all models."""
        return self.repository.names

    def check_model(self, name: str) -> None:
        """Raise unless the model takes requests."""
        self.repository.find(name)
        if self._is_draining:
            raise ModelNotReadyError(name)

    def describe_model(self, name: str) -> ModelMetadata:
        """The model's signature."""
        loaded = self.repository.find(name)
        return ModelMetadata(
            name=name,
            version=loaded.package.digest[:12],
            platform=ONNX_PLATFORM if loaded.package.variant else TORCH_PLATFORM,
            inputs=loaded.model.inputs,
            outputs=loaded.model.outputs,
        )

    async def predict(self, name: str, instances: Sequence[Any]) -> list[Any]:
        """V1: one prediction for each of `instances`."""
        loaded = self.repository.find(name)
        if not instances:
            return []
        model = loaded.model
        return await loaded.worker.run(lambda: model.read_instances(instances), model.render)

    async def infer(self, name: str, tensors: Arrays, *, outputs: Sequence[str] = ()) -> Arrays:
        """V2: the output tensors named in `outputs`, all when there is no name."""
        loaded = self.repository.find(name)
        model = loaded.model
        known = [spec.name for spec in model.outputs]
        if unknown := [output for output in outputs if output not in known]:
            raise InvalidRequestError(
                f"Model {name!r} has no output {unknown[0]!r}; its outputs are {', '.join(known)}."
            )
        computed = await loaded.worker.run(lambda: model.read_tensors(tensors), _keep)
        return {output: computed[output] for output in outputs or known}


def _keep(outputs: Arrays) -> Mapping[str, Any]:
    return outputs
