"""`kubeloop code`: a training program of your own on its way to a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kubeloop.cli.options import (
    DEFAULT_STATE,
    Output,
    OutputOption,
    Session,
    StateOption,
    print_json,
)

app = typer.Typer(
    no_args_is_help=True,
    help="Training programs of your own: archives in an object store, named by their hash.",
)

StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="KUBELOOP_CODE",
        help="URI of the archives: a folder or s3://BUCKET/PREFIX; a cluster needs the latter.",
        show_default="beside the artifacts of the embedded control plane",
    ),
]


@app.callback()
def _group() -> None:
    """Keep `publish` a word of its own beside the group's."""


def register(parent: typer.Typer) -> None:
    """Add the commands."""
    parent.add_typer(app, name="code")


@app.command()
def publish(
    source: Annotated[
        Path, typer.Argument(help="A Python file, or a folder of modules.", show_default=False)
    ],
    *,
    entry: Annotated[
        str, typer.Option(help="The folder's file to run; empty: main.py, or the only one.")
    ] = "",
    store: StoreOption = "",
    state: StateOption = DEFAULT_STATE,
    output: OutputOption = Output.TEXT,
) -> None:
    """Put code into the object store, and print its URI; the same code is the same URI.

    The program is run with --dataset, --model and --checkpoint (folders), --epochs, --seed and its
    hyperparameters; it prints metrics as name=value and saves its model with torch.export.

    Examples:
        kubeloop code publish train.py

        kubeloop code publish project/ --entry train.py --store s3://bucket/code

        kubeloop run pipelines/compiled/image_classification.yaml -p dataset_source=photos/
        -p code=$(kubeloop code publish train.py) -p hyperparameters={} -p num_workers=1
    """
    from kubeloop.training.code import publish_code

    root = store or str(Session.open(state).state.root / "artifacts" / "kubeloop" / "code")
    if "://" not in root:
        root = str(Path(root).expanduser().resolve())
    uri = publish_code(source, root, entry=entry)
    if output is Output.JSON:
        print_json({"uri": uri, "sha256": uri.rpartition("/")[2].removesuffix(".zip")})
    else:
        print(uri)
