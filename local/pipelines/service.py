"""What the routes call: the store, the engine, and the settings they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kubeloop.local.pipelines.engine.engine import Engine
from kubeloop.local.pipelines.storage.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Shared by all routes."""

    store: Store
    engine: Engine
    namespace: str
    pipeline_root: Path
    clock: Callable[[], float]
