"""Compiles kubeloop's pipelines: `python -m kubeloop.pipelines.compiling` writes them all."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from kubeloop.pipelines.packages import COMPILED


def list_pipelines() -> dict[str, Callable[..., object]]:
    """Our pipelines by the name of their compiled file."""
    from kubeloop.pipelines.image_classification import image_classification
    from kubeloop.pipelines.ingest_in_parts import ingest_in_parts
    from kubeloop.pipelines.retrain import retrain
    from kubeloop.pipelines.text_classification import text_classification

    return {
        "image_classification": image_classification,
        "ingest_in_parts": ingest_in_parts,
        "retrain": retrain,
        "text_classification": text_classification,
    }


def compile_all(folder: Path = COMPILED) -> list[Path]:
    """Compile every pipeline into `folder`; returns the files."""
    with warnings.catch_warnings():
        # kfp announces the default image of its next release; ours is always named.
        warnings.simplefilter("ignore", FutureWarning)
        from kfp import compiler

        written = []
        for name, pipeline in list_pipelines().items():
            path = folder / f"{name}.yaml"
            compiler.Compiler().compile(pipeline, str(path))
            written.append(path)
    return written


if __name__ == "__main__":
    compile_all()
