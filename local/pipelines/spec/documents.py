"""Pipeline packages as users hold them: YAML, JSON, zip and tar.gz, one document or two.

A package is the pipeline spec and, for kfp-kubernetes settings, a second document with the
platform spec. This module finds the two and keeps them as JSON; what they say is read by
`parsing`.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from kubeloop.errors import InputError
from kubeloop.local.pipelines.spec.nodes import listed

MAX_PACKAGE_BYTES = 32 * 1024 * 1024
_MAX_VALUES = 2_000_000
_MAX_DEPTH = 200
_SUFFIXES = (".yaml", ".yml", ".json")
_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where it is built in


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineDocument:
    """The two documents of a package, as JSON."""

    spec: Mapping[str, Any]
    platform: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """`pipelineInfo.name`, empty where the spec has none."""
        info = self.spec.get("pipelineInfo")
        name = info.get("name") if isinstance(info, Mapping) else None
        return name if isinstance(name, str) else ""

    def to_json(self) -> dict[str, Any]:
        """As the KFP API carries it: the plain spec, or both documents under their names."""
        if not self.platform:
            return dict(self.spec)
        return {"pipeline_spec": dict(self.spec), "platform_spec": dict(self.platform)}


def document_from_json(value: Any) -> PipelineDocument:  # any JSON a client sent
    """Read the `pipeline_spec` of an API message.

    Raises:
        InputError: It is no pipeline spec.
    """
    if not isinstance(value, dict):
        raise InputError(f"A pipeline spec is a JSON object, not {type(value).__name__}.")
    if "pipeline_spec" in value or "pipelineSpec" in value:
        spec = value.get("pipeline_spec", value.get("pipelineSpec"))
        platform = value.get("platform_spec", value.get("platformSpec")) or {}
    else:
        spec, platform = value, {}
    return _document(spec, platform)


def read_package(data: bytes, *, file_name: str = "") -> PipelineDocument:
    """Read an uploaded package; its form is told by its first bytes, not by its name.

    Raises:
        InputError: The package is empty, too large, broken, or holds no pipeline.
    """
    if len(data) > MAX_PACKAGE_BYTES:
        raise InputError(
            f"The pipeline package is {len(data)} bytes; at most {MAX_PACKAGE_BYTES} are accepted."
        )
    what = f"The pipeline package {file_name!r}" if file_name else "The pipeline package"
    if not data.strip():
        raise InputError(f"{what} is empty; compile the pipeline and upload the YAML file.")
    if data.startswith(b"PK"):
        data = _read_zip(data, what)
    elif data.startswith(b"\x1f\x8b"):
        data = _read_tar(data, what)
    return parse_documents(data, what=what)


def parse_documents(data: bytes | str, *, what: str = "The pipeline file") -> PipelineDocument:
    """Read YAML (or JSON, which is YAML) of one or two documents.

    Raises:
        InputError: The text is no YAML, or its documents are no pipeline.
    """
    try:
        text = data.decode() if isinstance(data, bytes) else data
        documents = [item for item in yaml.load_all(text, Loader=_Loader) if item is not None]
    except UnicodeDecodeError as error:
        raise InputError(f"{what} is not text: {error}.") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{what} is not valid YAML: {error}.") from error
    if not documents:
        raise InputError(f"{what} holds no document; compile the pipeline and give its YAML file.")
    if len(documents) > 2:
        raise InputError(
            f"{what} holds {len(documents)} documents; a pipeline has one, or two with its "
            "platform configuration."
        )
    specs = [item for item in documents if not (isinstance(item, dict) and "platforms" in item)]
    platforms = [item for item in documents if isinstance(item, dict) and "platforms" in item]
    if len(specs) != 1:
        raise InputError(f"{what} needs exactly one pipeline spec, and holds {len(specs)}.")
    return _document(specs[0], platforms[0] if platforms else {}, what=what)


def _document(spec: Any, platform: Any, *, what: str = "The pipeline spec") -> PipelineDocument:
    if not isinstance(spec, dict):
        raise InputError(f"{what} is not an object but {type(spec).__name__}.")
    if spec.get("kind") == "Workflow" and "spec" in spec:
        raise InputError(
            f"{what} is an Argo workflow, compiled by KFP v1; compile it with the KFP v2 SDK."
        )
    if not isinstance(platform, dict):
        raise InputError(f"{what} has a platform spec that is not an object.")
    _check_size(spec, what)
    _check_size(platform, what)
    return PipelineDocument(spec=spec, platform=platform)


def _check_size(value: Any, what: str) -> None:
    """Refuse what would expand without end: YAML aliases can make a short text enormous."""
    stack: list[tuple[Any, int]] = [(value, 0)]
    seen = 0
    while stack:
        item, depth = stack.pop()
        seen += 1
        if seen > _MAX_VALUES or depth > _MAX_DEPTH:
            raise InputError(f"{what} is too large or nested too deeply to be a pipeline.")
        if isinstance(item, dict):
            stack.extend((child, depth + 1) for child in item.values())
        elif isinstance(item, list):
            stack.extend((child, depth + 1) for child in item)


def _read_zip(data: bytes, what: str) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            _check_names(names, what)
            with archive.open(_only_member(names, what)) as member:
                return _limited(member.read(MAX_PACKAGE_BYTES + 1), what)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{what} is a broken zip file: {error}.") from error


def _read_tar(data: bytes, what: str) -> bytes:
    """Read as a stream and never past the limit: what is skipped has to be unpacked too."""
    members: dict[str, bytes] = {}
    names: list[str] = []
    try:
        with gzip.open(io.BytesIO(data)) as unpacked:
            stream = io.BytesIO(_limited(unpacked.read(MAX_PACKAGE_BYTES + 1), what))
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for item in archive:
                names.append(item.name)
                if item.isfile() and (member := archive.extractfile(item)) is not None:
                    members[item.name] = member.read()
    except (tarfile.TarError, zlib.error, OSError, EOFError) as error:
        raise InputError(f"{what} is a broken tar.gz file: {error}.") from error
    _check_names(names, what)
    return members[_only_member(list(members), what)]


def _check_names(names: Iterable[str], what: str) -> None:
    for name in names:
        if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name):
            raise InputError(f"{what} has a file {name!r} that lies outside of the package.")


def _only_member(names: list[str], what: str) -> str:
    found = [name for name in names if name.endswith(_SUFFIXES)]
    if "pipeline.yaml" in found:
        return "pipeline.yaml"
    if len(found) != 1:
        held = listed(names) if names else "no file"
        raise InputError(f"{what} needs one YAML file, or a pipeline.yaml, and holds {held}.")
    return found[0]


def _limited(data: bytes, what: str) -> bytes:
    if len(data) > MAX_PACKAGE_BYTES:
        raise InputError(f"{what} unpacks to more than {MAX_PACKAGE_BYTES} bytes.")
    return data
