"""Checkpoints that survive being killed while they are written.

A checkpoint is two objects: `<number>.pt`, and `<number>.json` with the file's sha256, written
after it. The newest whole one is resumed from; a damaged one is passed over. Files are read as
tensors and plain values only, never as code.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from kubeloop.datasets.stores import ObjectStore
from kubeloop.errors import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """State of a training run between two steps."""

    num_steps: int
    """Steps taken so far; where to go on."""
    state: Mapping[str, Any]
    """Where the run stands: place in the data, weights, optimizer, sums of the running epoch."""
    settings: Mapping[str, Any]
    """What the run was started with; only the same run may go on."""


def save_checkpoint(store: ObjectStore, checkpoint: Checkpoint, *, num_kept: int = 2) -> None:
    """Write a checkpoint, and drop all but the newest ones."""
    buffer = io.BytesIO()
    torch.save({"num_steps": checkpoint.num_steps, "state": dict(checkpoint.state)}, buffer)
    data = buffer.getvalue()
    number = f"{checkpoint.num_steps:012d}"
    facts = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "settings": dict(checkpoint.settings),
    }
    store.write(f"{number}.pt", data)
    store.write(f"{number}.json", json.dumps(facts, sort_keys=True).encode())
    first_kept = _list_numbers(store)[-num_kept:][0]
    # NB: facts go before their file, and sort before it; a killed writer may have left either.
    for key in list(store.list()):
        if key.split(".")[0] < first_kept:
            store.delete(key)


def load_checkpoint(
    store: ObjectStore, settings: Mapping[str, Any], *, num_steps: int | None = None
) -> Checkpoint | None:
    """Read the newest whole checkpoint, or the one after some number of steps.

    Returns:
        None where there is none.

    Raises:
        InputError: It belongs to a run with other settings.
    """
    for number in reversed(_list_numbers(store)):
        if num_steps is not None and int(number) != num_steps:
            continue
        try:
            facts = json.loads(store.read(f"{number}.json"))
            data = store.read(f"{number}.pt")
            if hashlib.sha256(data).hexdigest() != facts["sha256"]:
                raise InputError("its sha256 differs from the recorded one")
            content = torch.load(io.BytesIO(data), weights_only=True)
        except (ValueError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
            logger.warning(
                "Passing over the damaged checkpoint %s: %s", store.uri_of(f"{number}.pt"), error
            )
            continue
        _check_settings(facts["settings"], settings, uri=store.uri)
        return Checkpoint(num_steps=content["num_steps"], state=content["state"], settings=settings)
    return None


def _list_numbers(store: ObjectStore) -> list[str]:
    return [key.removesuffix(".json") for key in store.list() if key.endswith(".json")]


def _check_settings(found: Mapping[str, Any], wanted: Mapping[str, Any], *, uri: str) -> None:
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise InputError(
                f"The checkpoint in {uri!r} is from a run with {name} {found.get(name)!r}, not"
                f" {wanted.get(name)!r}; give --checkpoint another place, or the same settings."
            )
