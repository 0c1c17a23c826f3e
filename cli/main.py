"""Entry point of the `kubeloop` command.

Commands live in one file a concern; each imports what it needs when it runs, so that `--help` does
not wait for SDKs.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import typer

from kubeloop.cli import (
    check,
    code,
    datasets,
    demo,
    endpoints,
    experiments,
    lineage,
    plane,
    runs,
    schedules,
)
from kubeloop.cli import run as run_command
from kubeloop.cli.options import errors
from kubeloop.errors import InputError, KubeloopError

_UsageError: Any = typer.BadParameter.__base__
"""Wrong arguments. Any: typer's own copy of click's class, or click's, by typer's version."""

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=True,
    help="Close the loop from raw data to a served model on Kubeflow, on this machine or on a"
    " cluster.\n\nThe embedded control plane serves the Kubernetes and KFP APIs on loopback:"
    " `kubeloop up`, then `kubeloop run`, `kubectl`, `kfp.Client`, ….",
)
_MODULES = (
    plane, run_command, check, runs, schedules, code, datasets, experiments, endpoints, lineage,
    demo,
)  # fmt: skip
for module in _MODULES:
    module.register(app)


def run(arguments: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed, 2 wrong input, 130 Ctrl-C."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # NB: its retries; kfp sets the level of urllib3 itself. What the last says is in our error.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    try:
        exit_code = app(args=arguments, standalone_mode=False)
    except InputError as error:
        errors.print(f"[red]Error:[/red] {error}", markup=True, soft_wrap=True)
        return 2
    except KubeloopError as error:
        errors.print(f"[red]Error:[/red] {error}", markup=True, soft_wrap=True)
        return 1
    except (KeyboardInterrupt, typer.Abort):
        errors.print("Interrupted.")
        return 130
    except _UsageError as error:
        error.show()
        return int(error.exit_code)
    return exit_code if isinstance(exit_code, int) else 0


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run())


if __name__ == "__main__":
    main()
