"""Save and load exported programs without executing anything that a file says to execute.

`torch.export.load` trusts its file: pickled sample inputs, weights and constants, guard code that
is compiled, shape expressions that are evaluated, operator names that are looked up and called,
native libraries. A model package comes from an object store, so nothing of that is acceptable.
`load_program` therefore reads the archive itself, drops what a model does not need, refuses what
is not a plain graph of tensor operators, and hands torch a fresh archive with the rest.

Source: torch/_export/serde/schema.py and torch/export/pt2_archive/_package.py of torch 2.13.
"""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubeloop.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

_MODEL = "models/model.json"
_SAMPLE_INPUTS = "data/sample_inputs/model.pt"
_PAYLOADS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_MARKERS = frozenset(
    {"archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id"}
)
_TENSOR_FILE = re.compile(r"data/(weights/weight|constants/tensor)_[0-9]+")

_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.]*|")
_TEXT = re.compile(r"[A-Za-z0-9_.,>\- ]*")
_FLOAT = re.compile(r"-?[0-9.]+(e[+-]?[0-9]+)?|-?inf|nan")
_OPERATOR = re.compile(r"torch\.ops\.aten\.[A-Za-z0-9_]+\.[A-Za-z0-9_]+")
_SCALAR_OPERATOR = re.compile(
    r"_operator\.(add|and_|eq|floordiv|ge|getitem|gt|le|lt|mod|mul|ne|neg|not_|or_|pos|pow|sub"
    r"|truediv)|torch\.sym_(float|int|max|min|not)"
)
_FILE_OPERATORS = re.compile(r"torch\.ops\.aten\.from_file\..*")
_EXPRESSION = re.compile(r"[A-Za-z0-9_ ()=',+\-*/<>&|~.]*")
_EXPRESSION_TOKEN = re.compile(r"'[^']*'|[A-Za-z_][A-Za-z0-9_]*|\.(?![0-9])")
_EXPRESSION_WORD = re.compile(
    "Symbol|positive|nonnegative|integer|True|False|Integer|Rational|Float|Add|Mul|Pow|Max|Min|Abs"
    "|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|FloorDiv|ModularIndexing|Where|PythonMod|Mod|CleanDiv|CeilToInt"
    "|FloorToInt|CeilDiv|PowByNatural|FloatPow|FloatTrueDiv|IntTrueDiv|TruncToFloat|TruncToInt"
    "|RoundToInt|RoundDecimal|ToFloat|Identity|'?z?[su][0-9]+'?"
)
_TREE_TYPES = frozenset({None, "builtins.tuple", "builtins.list", "builtins.dict"})


def save_program(program: ExportedProgram, path: Path) -> None:
    """Write an exported program as a `.pt2` file of data alone.

    Sample inputs (pickled) and stack traces (paths of this machine) are left out.

    Raises:
        InputError: The program holds what `load_program` would refuse.
    """
    import torch

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # NB: torch warns of every weight in channels-last order; those are stored whole.
        warnings.filterwarnings("ignore", "No complete tensor found", UserWarning)
        torch.export.save(program, buffer)
    path.write_bytes(sanitize_archive(buffer.getvalue(), name=path.name))


def load_program(path: Path) -> torch.nn.Module:
    """Load a `.pt2` file as a callable module, executing nothing from it.

    Raises:
        InputError: The file is no exported program, or asks for more than tensor operators.
    """
    return read_program(path).module()


def read_program(path: Path) -> ExportedProgram:
    """Load a `.pt2` file as an exported program, executing nothing from it.

    Raises:
        InputError: See `load_program`.
    """
    import torch

    clean = sanitize_archive(path.read_bytes(), name=path.name)
    try:
        return torch.export.load(io.BytesIO(clean))
    except Exception as error:
        raise InputError(f"{path.name} cannot be read as an exported program: {error}") from error


def sanitize_archive(data: bytes, *, name: str) -> bytes:
    """Return the archive with data alone, its bytes a function of its content.

    Raises:
        InputError: The archive is broken, or holds anything that loading it would execute.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = _read_members(archive, name=name)
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise InputError(f"{name} is not a .pt2 archive: {error}.") from error
    missing = {_MODEL, *_PAYLOADS} - members.keys()
    if missing:
        raise InputError(f"{name} lacks {', '.join(sorted(missing))}.")
    try:
        for payload in _PAYLOADS:
            _check_payload(json.loads(members[payload]), folder=str(Path(payload).parent))
        model = _strip_model(json.loads(members[_MODEL]))
        _check_value(model, key="")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{name} cannot be loaded safely: {error}") from error
    members[_MODEL] = json.dumps(model, sort_keys=True, separators=(",", ":")).encode()
    members[_SAMPLE_INPUTS] = b""
    return _write_archive(members)


def _read_members(archive: zipfile.ZipFile, *, name: str) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    for info in archive.infolist():
        member = info.filename.partition("/")[2]
        if member in members:
            raise InputError(f"{name} holds {member!r} twice.")
        if info.compress_type != zipfile.ZIP_STORED:
            raise InputError(f"{name} holds {member!r} compressed, which torch does not write.")
        known = {_MODEL, _SAMPLE_INPUTS, *_PAYLOADS} | _MARKERS
        if member not in known and not _TENSOR_FILE.fullmatch(member):
            raise InputError(
                f"{name} holds {member!r}; only a graph, its weights and constants are accepted."
            )
        members[member] = archive.read(info)
    return members


def _write_archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for member in sorted(members):
            archive.writestr(zipfile.ZipInfo(f"model/{member}"), members[member])
    return buffer.getvalue()


def _check_payload(payload: dict[str, Any], *, folder: str) -> None:
    for tensor, entry in payload["config"].items():
        if not _WORD.fullmatch(tensor):
            raise ValueError(f"tensor name {tensor!r} is not plain.")
        if entry["use_pickle"] is not False:
            raise ValueError(f"{tensor!r} is pickled.")
        if not _TENSOR_FILE.fullmatch(f"{folder}/{entry['path_name']}"):
            raise ValueError(f"{tensor!r} is stored as {entry['path_name']!r}, not as a tensor.")


def _strip_model(model: dict[str, Any]) -> dict[str, Any]:
    """Drop descriptions for people and checks that loading would compile."""
    model["guards_code"] = []
    module = model["graph_module"]
    module["metadata"] = {}
    for node in module["graph"]["nodes"]:
        node["metadata"] = {}
    return model


def _check_value(value: object, *, key: str) -> None:
    """Walk the graph's JSON; every text in it must be of the form that its key calls for."""
    if isinstance(value, dict):
        for name, item in value.items():
            if not _WORD.fullmatch(name):
                raise ValueError(f"name {name!r} is not plain.")
            _check_value(item, key=name)
    elif isinstance(value, list):
        for item in value:
            _check_value(item, key=key)
    elif isinstance(value, str):
        _check_text(value, key=key)


def _check_text(text: str, *, key: str) -> None:
    if key == "target":
        allowed = _OPERATOR.fullmatch(text) and not _FILE_OPERATORS.fullmatch(text)
        if not allowed and not _SCALAR_OPERATOR.fullmatch(text):
            raise ValueError(f"operator {text!r} is not a tensor operator of torch.ops.aten.")
    elif key == "expr_str":
        _check_expression(text)
    elif key in ("in_spec", "out_spec"):
        _check_tree(json.loads(text)[1])
    elif key in ("as_string", "as_strings"):
        if not _TEXT.fullmatch(text):
            raise ValueError(f"argument {text!r} is not plain.")
    elif key != "torch_version" and not _WORD.fullmatch(text) and not _FLOAT.fullmatch(text):
        raise ValueError(f"{key} {text!r} is not plain.")


def _check_expression(text: str) -> None:
    """Shape arithmetic only: sympy evaluates the text as Python."""
    words = _EXPRESSION_TOKEN.findall(text) if _EXPRESSION.fullmatch(text) else ["?"]
    if not all(_EXPRESSION_WORD.fullmatch(word) for word in words):
        raise ValueError(f"shape expression {text!r} is not plain arithmetic.")


def _check_tree(tree: dict[str, Any]) -> None:
    if tree["type"] not in _TREE_TYPES:
        raise ValueError(f"inputs or outputs hold a {tree['type']!r}.")
    context = json.loads(tree["context"]) if tree["context"] is not None else None
    if context is not None and not (
        isinstance(context, list) and all(isinstance(key, str) for key in context)
    ):
        raise ValueError(f"inputs or outputs are described by {context!r}.")
    for child in tree["children_spec"]:
        _check_tree(child)
