"""Compiled pipelines: reading the package file, and compiling ours."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from kubeloop.errors import InputError

COMPILED = Path(__file__).parent / "compiled"
"""Folder of the pipelines that ship with kubeloop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelinePackage:
    """A compiled pipeline: `spec` is its IR, `platform_spec` what only Kubernetes understands."""

    path: Path
    spec: dict[str, Any]
    platform_spec: dict[str, Any]

    @property
    def name(self) -> str:
        """The pipeline's own name."""
        return str(self.spec["pipelineInfo"]["name"])


def read_package(path: Path) -> PipelinePackage:
    """Read a compiled pipeline.

    Raises:
        InputError: The file is missing, is no YAML, or is not a compiled KFP v2 pipeline.
    """
    try:
        documents = [document for document in yaml.safe_load_all(path.read_text()) if document]
    except OSError as error:
        msg = f"Failed to read pipeline {path}: {error.strerror}."
        raise InputError(msg) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"Failed to read pipeline {path}: not YAML ({error})."
        raise InputError(msg) from error
    spec = documents[0] if documents else None
    if isinstance(spec, dict) and "pipeline_spec" in spec:
        documents = [spec["pipeline_spec"], spec.get("platform_spec") or {}]
        spec = documents[0]
    if not isinstance(spec, dict) or "pipelineInfo" not in spec or "root" not in spec:
        msg = (
            f"{path} is not a compiled KFP v2 pipeline: it has no pipelineInfo or root; compile one"
            " with `kfp dsl compile` or kfp.compiler."
        )
        raise InputError(msg)
    return PipelinePackage(
        path=path, spec=spec, platform_spec=documents[1] if len(documents) > 1 else {}
    )


@contextmanager
def with_caching(package: PipelinePackage, *, enabled: bool | None) -> Iterator[Path]:
    """A file of the pipeline in which all tasks use the cache, or none, or (None) as they say.

    NB: kfp's client overrides the tasks of the root alone, and leaves loops and conditions as they
    are.
    """
    if enabled is None:
        yield package.path
        return
    spec = copy.deepcopy(package.spec)
    for component in (spec["root"], *spec.get("components", {}).values()):
        for task in component.get("dag", {}).get("tasks", {}).values():
            task.setdefault("cachingOptions", {})["enableCache"] = enabled
    with written(replace(package, spec=spec)) as path:
        yield path


@contextmanager
def written(package: PipelinePackage) -> Iterator[Path]:
    """A file of a pipeline as it is in memory."""
    documents = [package.spec, package.platform_spec] if package.platform_spec else [package.spec]
    with tempfile.TemporaryDirectory(prefix="kubeloop-") as folder:
        path = Path(folder) / "pipeline.yaml"
        path.write_text(yaml.safe_dump_all(documents))
        yield path
