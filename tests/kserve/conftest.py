from collections.abc import Callable
from pathlib import Path

import pytest

from kubeloop.testing.model_packages import write_color_package, write_shade_package


@pytest.fixture(scope="session")
def color_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that names the strongest colour of an RGB image."""
    return write_color_package(tmp_path_factory.mktemp("models") / "colors")


@pytest.fixture(scope="session")
def shade_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that tells dark from light grey images."""
    return write_shade_package(tmp_path_factory.mktemp("models") / "shades")


@pytest.fixture
def copy_package(color_package: Path, tmp_path: Path) -> Callable[[], Path]:
    """Makes a copy of a good package, to be broken."""

    def copy() -> Path:
        folder = tmp_path / "copy"
        folder.mkdir()
        for path in color_package.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        return folder

    return copy
