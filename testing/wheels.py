"""A wheel made by hand, so that tests install something without a network."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path


def build_wheel(
    folder: Path, name: str, *, content: str, version: str = "1.0", requires: Sequence[str] = ()
) -> Path:
    """A package of one module with a `CONTENT`, and a script of its name that prints it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    needs = "".join(f"Requires-Dist: {need}\n" for need in requires)
    about = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"CONTENT = {content!r}\n\n\ndef main() -> None:\n    print(CONTENT)\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
    }
    record = "".join(f"{file},,\n" for file in (*files, f"{about}/RECORD"))
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in {**files, f"{about}/RECORD": record}.items():
            wheel.writestr(file, text)
    return path
