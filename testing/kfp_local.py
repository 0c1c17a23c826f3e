"""Runs a pipeline with KFP's own local runner, to compare what it gives."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

from kfp import dsl, local
from kfp.local import config


def run_with_kfp_local(pipeline: Any, folder: Path, **arguments: Any) -> dict[str, Any] | None:
    """The outputs of a pipeline, artifacts as their files' text; None where it cannot run there.

    Loops, conditions and exit handlers are known to the runner of later versions only, or to none.
    """
    runner = local.SubprocessRunner(use_venv=False)
    local.init(runner=runner, pipeline_root=str(folder))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            task = pipeline(**arguments)
    except NotImplementedError:
        return None
    finally:
        config.LocalExecutionConfig.instance = None
    return {name: _read(value) for name, value in task.outputs.items()}


def _read(value: Any) -> Any:
    if isinstance(value, dsl.Artifact):
        return Path(value.path).read_text()
    return [_read(item) for item in value] if isinstance(value, list) else value
