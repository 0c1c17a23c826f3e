from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from kubeloop.datasets import Commit, IngestConfig, ingest
from kubeloop.testing.image_folders import write_image_folder


@pytest.fixture(scope="session")
def commit(tmp_path_factory: pytest.TempPathFactory) -> Commit:
    """Three classes that are easy to tell apart, 60 images in all."""
    folder = tmp_path_factory.mktemp("stripes")
    source = write_image_folder(folder / "source", {"top": 20, "middle": 20, "bottom": 20})
    return ingest(IngestConfig(name="stripes", source=str(source), store=str(folder / "store")))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Bitwise comparisons need the same number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model_uri(tmp_path: Path) -> str:
    return str(tmp_path / "model")
