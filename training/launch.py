"""Run torchrun, and end as the processes that it started did: `python -m kubeloop.training.launch`.

torchrun ends with 1 whatever became of its processes, so that an operator which goes by exit codes
would give up a job whose worker was merely evicted. And it starts again what has failed whatever
the cause, so that the arguments of a program of ours are checked before. Arguments are torchrun's
own; `-m`, where it is given, comes first.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Sequence

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.run import main as run

from kubeloop.errors import InputError

_OURS = "kubeloop.training.programs."
_FIRST_SIGNAL = 128
_EXIT_FAILED = 1
_EXIT_TRY_AGAIN = 138


def main(arguments: Sequence[str] | None = None) -> int:
    """Run torchrun; returns the exit code that says why it ended."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _check(given)
    except InputError as error:
        _tell(str(error))
        return _EXIT_FAILED
    # NB: where its agents share their store, the one that hosts it tells the workers of its first
    # round alone where it is (torch 2.13); one that comes later waits for that for ever.
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    try:
        run(given)
    except ChildFailedError as error:
        codes = [failure.exitcode for failure in error.failures.values()]
        _tell(f"processes ended with {codes}")
        return choose_exit_code(codes)
    except SignalException as error:
        return _FIRST_SIGNAL + int(error.sigval)
    except (RendezvousError, RuntimeError) as error:
        # A rendezvous to which too few came, or whose host went away.
        _tell(str(error))
        return _EXIT_TRY_AGAIN
    return 0


def _check(arguments: Sequence[str]) -> None:
    """Have a program of ours read its command line; as argparse does, it may exit with 2."""
    match arguments:
        case ["-m", module, *others] if module.startswith(_OURS):
            importlib.import_module(module).parse_arguments(others)


def _tell(cause: str) -> None:
    sys.stderr.write(f"error: {cause}\n")
    sys.stderr.flush()


def choose_exit_code(codes: Iterable[int]) -> int:
    """Return the code of the failure that counts: one that trying again would not mend."""
    ends = [_FIRST_SIGNAL - code if code < 0 else code for code in codes]
    final = [code for code in ends if 0 < code < _FIRST_SIGNAL]
    return final[0] if final else max(ends, default=_EXIT_FAILED)


if __name__ == "__main__":
    sys.exit(main())
