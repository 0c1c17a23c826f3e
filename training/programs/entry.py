"""What the training programs have in common: their command line, their end, the way to a package.

Exit codes: 0 done; 1 wrong input or no use in trying again; 2 wrong arguments; 138 another process
of the job went away, or a store did not answer; 143 stopped by SIGTERM, after a checkpoint. Codes
from 128 ask for a restart.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from kubeloop import __version__
from kubeloop.datasets.reading import Dataset
from kubeloop.errors import KubeloopError, PermanentError, TransientError
from kubeloop.training.archive import read_program, save_program
from kubeloop.training.distributed import LostPeerError, World, joined, limit_threads, read_world
from kubeloop.training.loop_config import LoopConfig
from kubeloop.training.package import PROGRAM_FILE, PackageManifest, write_package
from kubeloop.training.stopping import StoppedError, StopSignal
from kubeloop.training.variants import VariantsConfig, add_variant_arguments, add_variants

EXIT_FAILED = 1
EXIT_TRY_AGAIN = 138
EXIT_STOPPED = 143
_TOLERANCE = 1e-4

ConfigT = TypeVar("ConfigT")


class ProgramExit(Exception):  # noqa: N818  # an end, not always an error
    """A program that this one runs ended with an exit code, and has said why."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


def build_parser(
    module: str, *, description: str | None, loop: LoopConfig
) -> argparse.ArgumentParser:
    """Return a parser for the contract's arguments and the loop's hyperparameters.

    Args:
        module: What `python -m` is given.
        description: For `--help`.
        loop: Defaults.
    """
    parser = argparse.ArgumentParser(prog=module, description=description, allow_abbrev=False)
    parser.add_argument("--dataset", required=True, help="URI of a dataset commit")
    parser.add_argument("--model", default="", help="URI to write the model package to")
    parser.add_argument("--checkpoint", default="", help="URI to keep checkpoints at")
    add_variant_arguments(parser)
    add_fields(parser, loop)
    return parser


def _is_choice(value: object) -> bool:
    return isinstance(value, StrEnum)


def _join(choices: Sequence[str] | None) -> str | None:
    return "|".join(choices) if choices else None


def add_fields(parser: argparse.ArgumentParser, config: object) -> None:
    """Add `--name` for every field of a configuration, with its value as the default."""
    for field in fields(config):  # type: ignore[arg-type]  # a dataclass
        default = getattr(config, field.name)
        choices = [str(choice) for choice in type(default)] if _is_choice(default) else None
        is_bool = isinstance(default, bool)
        parser.add_argument(
            f"--{field.name}",
            type=parse_bool if is_bool else type(default),
            default=default,
            metavar="true|false" if is_bool else _join(choices),
        )


def read_loop_config(values: argparse.Namespace) -> LoopConfig:
    """Return the loop's hyperparameters.

    Raises:
        InputError: A value is out of range.
    """
    return LoopConfig(**{field.name: getattr(values, field.name) for field in fields(LoopConfig)})


def parse_bool(text: str) -> bool:
    """Read `true` or `false`, for argparse."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be true or false, not {text!r}")
    return text.lower() == "true"


def run_program(
    parse: Callable[[Sequence[str]], ConfigT],
    train: Callable[[ConfigT, World, StopSignal], object],
    *,
    arguments: Sequence[str] | None,
    joins: bool = True,
) -> int:
    """Run a program in this process; returns its exit code.

    Args:
        parse: Reads the command line.
        train: Trains in one of the processes, all of which have joined.
        arguments: Of the command line; None: of this process.
        joins: Whether this process takes part in the training itself.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    stop = StopSignal()
    with stop.installed():
        try:
            config = parse(sys.argv[1:] if arguments is None else arguments)
            limit_threads(os.environ)
            world = read_world(os.environ)
            with joined(world) if joins else nullcontext():
                train(config, world, stop)
        except ProgramExit as end:
            return end.code
        except StoppedError as error:
            print(error, file=sys.stderr, flush=True)
            return EXIT_STOPPED
        except LostPeerError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            return EXIT_STOPPED if stop.is_set else EXIT_TRY_AGAIN
        except TransientError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            return EXIT_TRY_AGAIN
        except KubeloopError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            return EXIT_FAILED
    return 0


def describe_origin(dataset: Dataset | None, environment: Mapping[str, str]) -> dict[str, str]:
    """Return a package's provenance: data, code, and what the environment says of job and run."""
    commit = dataset.commit if dataset else None
    data = commit and {
        "dataset": commit.name,
        "dataset_uri": commit.uri,
        "dataset_version_hash": commit.version_hash,
        "source_digest": commit.source_digest,
    }
    return {
        **(data or {}),
        "code_version": __version__,
        "torch_version": torch.__version__,
        "training_job": environment.get("KUBELOOP_JOB_NAME", ""),
        "run_id": environment.get("KUBELOOP_RUN_ID", ""),
    }


def write_checked_package(
    uri: str,
    module: nn.Module,
    program: ExportedProgram,
    manifest: PackageManifest,
    *,
    sample: tuple[Tensor, ...],
    dataset: Dataset,
    variants: VariantsConfig,
) -> None:
    """Check that an exported model gives the trained one's answers, and write its package.

    Raises:
        PermanentError: It does not, or a variant differs too much from it.
    """
    with tempfile.TemporaryDirectory(prefix="kubeloop-export-") as folder:
        path = Path(folder, PROGRAM_FILE)
        save_program(program, path)
        exported = read_program(path)
        loaded = exported.module()
        with torch.inference_mode():
            difference = (loaded(*sample) - module(*sample)).abs().max().item()
        if not difference <= _TOLERANCE:
            raise PermanentError(
                f"The exported model differs from the trained one by {difference}; it is not kept."
            )
        manifest, files = add_variants(
            variants, manifest, program=exported, path=path, dataset=dataset, report=_say
        )
        write_package(uri, manifest, files={PROGRAM_FILE: path, **files})


def _say(line: str) -> None:
    print(line, flush=True)
