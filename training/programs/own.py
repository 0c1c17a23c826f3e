"""Run a user's own program from a code archive: `python -m kubeloop.training.programs.own`.

The program needs no import of kubeloop. It is called with `--dataset FOLDER` (plain files, see
`plain_data.py`), `--model FOLDER` (where it saves `model.pt2`), `--checkpoint FOLDER` (kept between
its lives) and every hyperparameter as `--name value`; it prints metrics as `name=value`. Its exit
code is this program's. Where a job has several processes, torchrun starts them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from kubeloop.datasets.reading import Dataset
from kubeloop.training.code import fetch_code
from kubeloop.training.completion import complete_package
from kubeloop.training.distributed import World
from kubeloop.training.metric_lines import parse_metrics
from kubeloop.training.package import PROGRAM_FILE
from kubeloop.training.plain_data import mirrored_folder, write_plain_dataset
from kubeloop.training.programs.entry import ProgramExit, describe_origin, run_program
from kubeloop.training.stopping import StopSignal
from kubeloop.training.user_process import UserProcess, user_process
from kubeloop.training.variants import VariantsConfig, add_variant_arguments, read_variants

_FIRST_SIGNAL = 128
_LAUNCHER = "kubeloop.training.launch"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnProgramConfig:
    """What the command line says."""

    code_uri: str
    """Archive of the code."""
    dataset_uri: str = ""
    """Commit to train on; empty: the program is not given one."""
    model_uri: str = ""
    """Where the model package goes; empty: the model is not kept."""
    checkpoint_uri: str = ""
    """What the program's checkpoint folder holds between its lives; empty: it has none."""
    variants: VariantsConfig = field(default_factory=VariantsConfig)
    """Other forms of the model that the package holds too."""
    arguments: tuple[str, ...] = ()
    """Everything else, for the program."""

    @property
    def hyperparameters(self) -> dict[str, str]:
        """The program's `--name value` arguments by name."""
        pairs = zip(self.arguments, self.arguments[1:], strict=False)
        return {name[2:]: value for name, value in pairs if name.startswith("--")}


def parse_arguments(arguments: Sequence[str]) -> OwnProgramConfig:
    """Read the command line; what is not of the contract is the program's."""
    parser = argparse.ArgumentParser(
        prog="kubeloop.training.programs.own", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--code", required=True, help="URI of a code archive")
    parser.add_argument("--dataset", default="", help="URI of a dataset commit")
    parser.add_argument("--model", default="", help="URI to write the model package to")
    parser.add_argument("--checkpoint", default="", help="URI to keep checkpoints at")
    add_variant_arguments(parser)
    values, others = parser.parse_known_args(arguments)
    return OwnProgramConfig(
        code_uri=values.code,
        dataset_uri=values.dataset,
        model_uri=values.model,
        checkpoint_uri=values.checkpoint,
        variants=read_variants(values),
        arguments=tuple(others),
    )


def train(config: OwnProgramConfig, world: World, stop: StopSignal) -> None:
    """Run the program, and complete the package that it leaves.

    Raises:
        ProgramExit: The program failed.
        InputError: The code cannot be run, or left no model.
    """
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kubeloop-own-")))
        for name in ("code", "dataset", "model", "checkpoint"):
            (work / name).mkdir()
        entry = fetch_code(config.code_uri, work / "code")
        arguments: list[str] = []
        dataset = None
        if config.dataset_uri:
            dataset = write_plain_dataset(config.dataset_uri, work / "dataset")
            arguments += ["--dataset", str(work / "dataset")]
        if config.model_uri:
            arguments += ["--model", str(work / "model")]
        if config.checkpoint_uri:
            kept = mirrored_folder(config.checkpoint_uri, work / "checkpoint")
            arguments += ["--checkpoint", str(stack.enter_context(kept))]
        metrics = _run(entry, [*arguments, *config.arguments], stop=stop)
        if config.model_uri and _writes_model(work / "model", world, os.environ):
            _complete(config, work / "model", dataset=dataset, metrics=metrics)


def _writes_model(folder: Path, world: World, environment: Mapping[str, str]) -> bool:
    """Rank 0 answers for the model; which worker of an elastic job that is, its file tells."""
    is_elastic = "PET_RDZV_ENDPOINT" in environment
    return (folder / PROGRAM_FILE).exists() if is_elastic else world.is_main


def _choose_launcher(environment: Mapping[str, str]) -> str:
    """Several processes, or workers that come and go, are torchrun's business."""
    return _LAUNCHER if environment.get("PET_NPROC_PER_NODE", "").isdigit() else ""


def _run(script: Path, arguments: Sequence[str], *, stop: StopSignal) -> dict[str, float]:
    """Run a program to its end, pass its output on, and return the last metrics it printed."""
    metrics: dict[str, float] = {}
    launcher = _choose_launcher(os.environ)
    with (
        user_process(script, arguments, launcher=launcher) as process,
        _passing_on_sigterm(process, stop),
    ):
        for line in process.output:
            print(line, end="", flush=True)
            metrics = parse_metrics(line) or metrics
    if code := process.exit_code:
        raise ProgramExit(_FIRST_SIGNAL - code if code < 0 else code)
    return metrics


@contextmanager
def _passing_on_sigterm(process: UserProcess, stop: StopSignal) -> Iterator[None]:
    def pass_on(_number: int, _frame: FrameType | None) -> None:
        stop.is_set = True
        with contextlib.suppress(ProcessLookupError):
            process.terminate()

    previous = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _complete(
    config: OwnProgramConfig, folder: Path, *, dataset: Dataset | None, metrics: Mapping[str, float]
) -> None:
    origin = describe_origin(dataset, os.environ)
    complete_package(
        folder,
        config.model_uri,
        dataset=dataset,
        metrics=metrics,
        hyperparameters=config.hyperparameters,
        provenance={**origin, "code_uri": config.code_uri},
        variants=config.variants,
        report=lambda line: print(line, flush=True),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return run_program(parse_arguments, train, arguments=arguments, joins=False)


if __name__ == "__main__":
    sys.exit(main())
