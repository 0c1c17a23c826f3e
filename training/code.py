"""A user's own code on its way into a job: an archive in the object store, named by its sha256.

A folder of modules, one file or one function becomes a zip whose bytes depend on its content alone.
Its URI holds its hash, so that what a job ran can be told years later, a change of code needs no
image, and a step is cached by the code it ran. An archive is data from a store: unpacking one
verifies the hash and lets nothing out of the target folder. This module does not load torch.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import stat
import textwrap
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kubeloop.datasets.stores import check_key, open_object, open_store
from kubeloop.errors import InputError, IntegrityError

MANIFEST_FILE = "kubeloop-code.json"
MAX_BYTES = 256 << 20
MAX_FILES = 10_000
_TIME = (1980, 1, 1, 0, 0, 0)
_SKIPPED = frozenset({"__pycache__", "node_modules", "build", "dist"})
_FUNCTION_FILE = "main.py"
_PARSERS = {int: "int", float: "float", str: "str"}

Source = Path | Callable[..., Any]


def publish_code(source: Source, store_uri: str, *, entry: str = "") -> str:
    """Put code into the object store.

    Args:
        source: A folder, a file, or a function whose parameters are the program's arguments; a
            function must import what it uses itself, and its parameters have defaults.
        store_uri: Folder or prefix of all code archives.
        entry: The folder's file to run; empty: `main.py`, or the only Python file there is.

    Returns:
        `<store_uri>/<sha256>.zip`; code that is there already is left alone.

    Raises:
        InputError: There is no such code, or it is too big for an archive.
    """
    data = pack_code(source, entry=entry)
    name = f"{hashlib.sha256(data).hexdigest()}.zip"
    store = open_store(store_uri)
    if not store.exists(name):
        store.write(name, data)
    return store.uri_of(name)


def pack_code(source: Source, *, entry: str = "") -> bytes:
    """Return the archive; the same code is always the same bytes.

    Raises:
        InputError: See `publish_code`.
    """
    if callable(source):
        files, entry = {_FUNCTION_FILE: _render_function(source).encode()}, _FUNCTION_FILE
    elif source.is_file():
        files, entry = {source.name: source.read_bytes()}, source.name
    elif source.is_dir():
        files = {path.relative_to(source).as_posix(): path.read_bytes() for path in _walk(source)}
        entry = entry or _find_entry(files, source)
    else:
        raise InputError(f"There is no code at {str(source)!r}; give a folder, file or function.")
    if entry not in files:
        raise InputError(f"The code {str(source)!r} has no file {entry!r} to run.")
    size = sum(len(data) for data in files.values())
    if size > MAX_BYTES or len(files) > MAX_FILES:
        raise InputError(
            f"The code {str(source)!r} has {len(files)} files of {size} bytes; at most {MAX_FILES}"
            f" of {MAX_BYTES} travel with a job. Keep data in a dataset."
        )
    files[MANIFEST_FILE] = json.dumps({"entry": entry, "version": 1}).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            member = zipfile.ZipInfo(name, _TIME)
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, files[name])
    return buffer.getvalue()


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in _SKIPPED:
            continue
        if path.is_symlink():
            raise InputError(f"{str(path)!r} is a link; code that travels must hold the files.")
        if path.is_dir():
            yield from _walk(path)
        elif path.is_file():
            yield path


def _find_entry(files: dict[str, bytes], source: Path) -> str:
    scripts = [name for name in files if name.endswith(".py") and "/" not in name]
    if _FUNCTION_FILE in scripts:
        return _FUNCTION_FILE
    if len(scripts) == 1:
        return scripts[0]
    raise InputError(
        f"Which file of {str(source)!r} is to be run? Give entry, one of {scripts or 'none'}."
    )


def _render_function(function: Callable[..., Any]) -> str:
    """Write a script that calls the function with its arguments from the command line."""
    try:
        code = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError) as error:
        raise InputError(f"The source of {function!r} cannot be found: {error}.") from error
    if not code.startswith("def "):
        raise InputError(f"{function!r} must be a plain function, without decorators.")
    lines = ["import argparse", "", "", code, "", "parser = argparse.ArgumentParser()"]
    for parameter in inspect.signature(function).parameters.values():
        if parameter.default is inspect.Parameter.empty:
            raise InputError(f"Parameter {parameter.name!r} of the function needs a default.")
        kind = _PARSERS.get(type(parameter.default))
        if kind is None:
            raise InputError(
                f"Parameter {parameter.name!r} of the function must be text or a number, not"
                f" {parameter.default!r}."
            )
        lines.append(
            f"parser.add_argument('--{parameter.name}', type={kind}, default={parameter.default!r})"
        )
    call = f"{function.__name__}(**vars(parser.parse_args()))"
    return "\n".join([*lines, call, ""])


def fetch_code(uri: str, folder: Path) -> Path:
    """Unpack an archive from the object store, and return the file to run.

    Raises:
        InputError: There is no archive, or it holds what must not be unpacked.
        IntegrityError: It differs from the hash that names it.
    """
    store, name = open_object(uri)
    data = store.read(name)
    digest = hashlib.sha256(data).hexdigest()
    if f"{digest}.zip" != name:
        raise IntegrityError(
            f"The code archive {uri!r} has sha256 {digest}: it was changed, or its name is not"
            " its hash; publish the code again."
        )
    return unpack_code(data, folder)


def unpack_code(data: bytes, folder: Path) -> Path:
    """Unpack an archive into a folder, and return the file to run.

    Raises:
        InputError: It is no code archive, is too big, or a member would leave the folder.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            _check_members(members)
            for member in members:
                path = folder / member.filename
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.read(member))
        entry = json.loads((folder / MANIFEST_FILE).read_bytes())["entry"]
        path = folder / check_key(str(entry))
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError) as error:
        raise InputError(f"The code archive cannot be unpacked: {error}.") from error
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(f"{MANIFEST_FILE} of the code archive names no entry: {error}.") from error
    if not path.is_file():
        raise InputError(f"The code archive's entry {entry!r} is not among its files.")
    return path


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    names = [check_key(member.filename) for member in members]
    if len(set(names)) < len(names):
        raise InputError("The code archive holds a file twice.")
    # NB: zipfile stops a member that is longer than it says.
    size = sum(member.file_size for member in members)
    if size > MAX_BYTES or len(members) > MAX_FILES:
        raise InputError(
            f"The code archive would unpack to {len(members)} files of {size} bytes; at most"
            f" {MAX_FILES} of {MAX_BYTES} are accepted."
        )
    for member in members:
        mode = member.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise InputError(f"The code archive holds {member.filename!r}, which is no plain file.")
