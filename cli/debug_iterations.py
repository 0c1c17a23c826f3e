"""Which of a loop's iterations is debugged."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from kubeloop.cli.options import Session, errors
from kubeloop.errors import InputError, PermanentError
from kubeloop.pipelines.metadata import TaskRecord
from kubeloop.pipelines.task_probe import TaskPlace

_MAX_LISTED = 20


def choose_record(
    session: Session, run_id: str, place: TaskPlace, *, iteration: str = ""
) -> TaskRecord:
    """The record of a task in a run; in a loop, that of one iteration.

    Args:
        session: Where the run is.
        run_id: The run.
        place: The task.
        iteration: Counted from 0 as KFP does; `2.0` in a loop within a loop; empty: the first.

    Raises:
        InputError: There is no such iteration.
        PermanentError: The task never began.
    """
    with contextlib.closing(session.connect_metadata()) as metadata:
        found = {
            find_iteration(record): record
            for record in metadata.list_tasks(run_id)
            if names_of(record) == place.path
            and (record.input_parameters or record.input_artifacts or record.output_parameters)
        }
    if not found:
        msg = (
            f"Task {place.name!r} had no inputs in run {run_id}, or never began: something before"
            f" it failed, or a condition was false (see `kubeloop runs {run_id}`)."
        )
        raise PermanentError(msg)
    ran = sorted(found, key=_as_numbers)
    if iteration:
        return _take(found, iteration, place, ran)
    if len(ran) > 1:
        errors.print(
            f"Task {place.name} ran {len(ran)} times, in a loop; this is iteration {ran[0]}, and"
            f" --iteration takes another: {_list(ran)}.",
            soft_wrap=True,
        )
    return found[ran[0]]


def refuse_iteration(place: TaskPlace, iteration: str) -> None:
    """Check that a task can have such an iteration, before anything runs.

    Raises:
        InputError: It cannot.
    """
    numbers = iteration.split(".") if iteration else []
    if numbers and not place.num_loops:
        raise InputError(f"Task {place.name!r} is in no loop: leave out --iteration.")
    if numbers and (len(numbers) != place.num_loops or not all(map(str.isdigit, numbers))):
        example = ".".join(map(str, range(place.num_loops)))
        msg = (
            f"--iteration takes one number for each loop that task"
            f" {place.name!r} is in, such as {example}, not {iteration!r}."
        )
        raise InputError(msg)


def names_of(record: TaskRecord) -> tuple[str, ...]:
    """The task names on the way to a task, without the iterations in between."""
    return tuple(part for part in record.path.split(".")[1:] if not part.isdigit())


def find_iteration(record: TaskRecord) -> str:
    """The iterations on the way to a task, joined by dots; empty outside of loops."""
    return ".".join(part for part in record.path.split(".")[1:] if part.isdigit())


def _take(
    found: Mapping[str, TaskRecord], iteration: str, place: TaskPlace, ran: list[str]
) -> TaskRecord:
    if iteration in found:
        return found[iteration]
    msg = f"Task {place.name!r} has no iteration {iteration!r}; those that ran are {_list(ran)}."
    raise InputError(msg)


def _as_numbers(iteration: str) -> list[int]:
    return [int(part) for part in iteration.split(".") if part]


def _list(iterations: list[str]) -> str:
    more = len(iterations) - _MAX_LISTED
    listed = ", ".join(iterations[:_MAX_LISTED])
    return f"{listed} and {more} more" if more > 0 else listed
