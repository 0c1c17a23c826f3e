from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kubeloop.datasets import Commit, IngestConfig, ingest

Ingest = Callable[..., Commit]


@pytest.fixture
def ingest_text(tmp_path: Path) -> Ingest:
    """Ingest a source of texts into a store of the test."""

    def run(source: Path | str, *, kind: str = "text_classification", **settings: Any) -> Commit:
        store = str(tmp_path / "store")
        return ingest(
            IngestConfig(
                **{"name": "texts", "source": str(source), "store": store, "kind": kind} | settings
            )
        )

    return run


@pytest.fixture
def rows() -> list[tuple[str, str]]:
    """Texts, some with commas and quotes, and their labels."""
    return [(f'text "{number}", of {number % 7}', "ab"[number % 2]) for number in range(200)]
