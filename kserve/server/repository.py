"""The models that a server has, loaded from model packages on disk.

A folder that is a package holds one model, whatever the server is told to call it. A folder of
packages holds one model for each, named by its folder: this is how KServe's agent lays out the
models of a multi-model server.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kubeloop.errors import KubeloopError
from kubeloop.kserve.server.errors import ModelNotFoundError, ModelNotReadyError
from kubeloop.kserve.server.metrics import ServerMetrics
from kubeloop.kserve.server.model import Model, load_model
from kubeloop.kserve.server.worker import Worker, WorkerConfig
from kubeloop.training.package import MANIFEST_FILE, ModelPackage, open_package

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model that takes requests."""

    name: str
    model: Model
    worker: Worker
    package: ModelPackage


class ModelRepository:
    """Loads and unloads models by name."""

    def __init__(
        self,
        folders: dict[str, Path],
        *,
        metrics: ServerMetrics,
        worker: WorkerConfig | None = None,
        variant: str = "",
    ) -> None:
        self._folders = dict(folders)
        self._loaded: dict[str, LoadedModel] = {}
        self._metrics = metrics
        self._worker_config = worker
        self._variant = variant

    @property
    def names(self) -> list[str]:
        """All known models, loaded or not."""
        return list(self._folders)

    @property
    def is_ready(self) -> bool:
        """Whether there is a model and every known one is loaded."""
        return bool(self._folders) and len(self._loaded) == len(self._folders)

    def find(self, name: str) -> LoadedModel:
        """The loaded model of a name.

        Raises:
            ModelNotFoundError: There is none.
            ModelNotReadyError: It is not loaded.
        """
        loaded = self._loaded.get(name)
        if loaded is not None:
            return loaded
        if name not in self._folders:
            raise ModelNotFoundError(name)
        raise ModelNotReadyError(name)

    async def load(self, name: str) -> None:
        """Load a model, or load it anew; requests go to the old one until the new one is there.

        Raises:
            ModelNotFoundError: There is none of that name.
            KubeloopError: Its package is missing, damaged or not acceptable.
        """
        folder = self._folders.get(name)
        if folder is None:
            raise ModelNotFoundError(name)
        package, model = await asyncio.to_thread(_load, folder, variant=self._variant)
        metrics = self._metrics.of_model(name)
        previous = self._loaded.get(name)
        self._loaded[name] = LoadedModel(
            name=name,
            model=model,
            worker=Worker(model, metrics=metrics, config=self._worker_config),
            package=package,
        )
        metrics.ready.set(1)
        logger.info("model loaded", extra={"object_name": name, "digest": package.digest})
        if previous is not None:
            await previous.worker.drain()

    async def load_all(self) -> None:
        """Load every known model; the first that fails raises."""
        for name in self._folders:
            await self.load(name)

    async def reload(self, name: str) -> None:
        """Load a model on a client's request.

        Raises:
            ModelNotReadyError: It cannot be loaded; a model that was loaded stays.
        """
        try:
            await self.load(name)
        except ModelNotFoundError:
            raise ModelNotReadyError(name) from None
        except KubeloopError as error:
            logger.warning("model not loaded", extra={"object_name": name, "cause": str(error)})
            detail = f"Error type: {type(error).__name__}"
            raise ModelNotReadyError(name, detail=detail) from error

    async def unload(self, name: str) -> None:
        """Stop serving a model; its package can be loaded again.

        Raises:
            ModelNotFoundError: There is none of that name.
        """
        if name not in self._folders:
            raise ModelNotFoundError(name)
        loaded = self._loaded.pop(name, None)
        if loaded is not None:
            self._metrics.of_model(name).ready.set(0)
            await loaded.worker.drain()

    async def close(self) -> None:
        """Finish what is being computed and end the threads."""
        loaded = list(self._loaded.values())
        self._loaded.clear()
        for model in loaded:
            await model.worker.drain()


def find_packages(model_dir: Path, *, model_name: str) -> dict[str, Path]:
    """The packages of a folder by the name that they are served under."""
    if (model_dir / MANIFEST_FILE).is_file():
        return {model_name: model_dir}
    folders = {path.name: path for path in _list_packages(model_dir)}
    # No package at all: name the one that was asked for, so that loading it says what is missing.
    return folders or {model_name: model_dir}


def _list_packages(model_dir: Path) -> Iterable[Path]:
    if not model_dir.is_dir():
        return []
    return sorted(path.parent for path in model_dir.glob(f"*/{MANIFEST_FILE}"))


def _load(folder: Path, *, variant: str) -> tuple[ModelPackage, Model]:
    package = open_package(folder, variant=variant)
    return package, load_model(package)
