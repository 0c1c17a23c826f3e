"""What the server does with packages that are damaged, hostile, or of another kind."""

import asyncio
import hashlib
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kubeloop.errors import InputError, IntegrityError
from kubeloop.kserve.server.metrics import ServerMetrics
from kubeloop.kserve.server.repository import ModelRepository, find_packages

CopyPackage = Callable[[], Path]


def load(folder: Path) -> ModelRepository:
    async def main() -> ModelRepository:
        folders = find_packages(folder, model_name="m")
        repository = ModelRepository(folders, metrics=ServerMetrics())
        try:
            await repository.load_all()
        finally:
            await repository.close()
        return repository

    return asyncio.run(main())


def edit_manifest(folder: Path, **fields: Any) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def replace_program(folder: Path, content: bytes) -> None:
    """Swap the program and record its digest, as whoever forges a package would."""
    (folder / "model.pt2").write_bytes(content)
    edit_manifest(folder, files={"model.pt2": hashlib.sha256(content).hexdigest()})


def test_good_package_is_loaded(copy_package: CopyPackage) -> None:
    assert load(copy_package()).names == ["m"]


def test_changed_program_is_refused(copy_package: CopyPackage) -> None:
    folder = copy_package()
    with (folder / "model.pt2").open("ab") as file:
        file.write(b"x")

    with pytest.raises(IntegrityError, match="not the recorded"):
        load(folder)


def test_missing_program_is_refused(copy_package: CopyPackage) -> None:
    folder = copy_package()
    (folder / "model.pt2").unlink()

    with pytest.raises(IntegrityError, match=r"model\.pt2' is missing"):
        load(folder)


def test_folder_without_a_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no model package"):
        load(tmp_path / "nothing")


def test_pickle_in_place_of_the_program_is_refused_and_not_run(
    copy_package: CopyPackage, tmp_path: Path
) -> None:
    folder, trace = copy_package(), tmp_path / "ran"

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (trace,))

    replace_program(folder, pickle.dumps(Hostile()))

    with pytest.raises(InputError):
        load(folder)
    assert not trace.exists()


def test_program_that_calls_other_operators_is_refused(copy_package: CopyPackage) -> None:
    folder = copy_package()
    changed = folder / "changed.pt2"
    with zipfile.ZipFile(folder / "model.pt2") as old, zipfile.ZipFile(changed, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            if info.filename.endswith("models/model.json"):
                content = content.replace(b"torch.ops.aten.div.Tensor", b"torch.ops.aten.from_file")
            new.writestr(info, content)
    content = changed.read_bytes()
    changed.unlink()
    replace_program(folder, content)

    with pytest.raises(InputError):
        load(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": "other"}, "has format 'other'"),
        ({"version": 2}, "version 2"),
        ({"preprocessing": {"kind": "x"}}, "Unknown kind of model 'x'; known are: image, text"),
        ({"labels": ["a", "b"]}, "has 2 labels, but its program answers 3 scores"),
        ({"labels": []}, "one input, outputs and labels"),
        ({"preprocessing": {"kind": "image", "channels": 1, "image_size": 8}}, "does not run"),
    ],
)
def test_manifest_that_does_not_fit_is_refused(
    copy_package: CopyPackage, fields: dict[str, Any], message: str
) -> None:
    folder = copy_package()
    edit_manifest(folder, **fields)

    with pytest.raises(InputError, match=message):
        load(folder)
