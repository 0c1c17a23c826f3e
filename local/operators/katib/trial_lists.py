"""Reads an experiment's trials again and again, but parses each version of a trial only once.

Every pass needs all trials, and every trial makes several passes: read in full, a search of
hundreds would spend most of its time on trials that ended long ago. What is remembered is only a
saving: which trials there are, and in which versions, is asked anew each time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from kubeloop.local.api.resources import TRIALS
from kubeloop.local.client import Client, Manifest
from kubeloop.local.operators.controller import Request, controller_owner
from kubeloop.local.operators.katib.terms import EXPERIMENT_LABEL
from kubeloop.local.operators.katib.trials import list_assignments

Facts = TypeVar("Facts")


@dataclass(frozen=True, slots=True)
class _Entry(Generic[Facts]):
    version: str
    owner_uid: str
    created: str
    name: str
    facts: Facts


class TrialLists(Generic[Facts]):
    """What one operator needs to know of trials, by experiment."""

    def __init__(self, client: Client, parse: Callable[[Manifest], Facts]) -> None:
        """Take the facts from each trial's manifest by `parse`."""
        self._client = client
        self._parse = parse
        self._known: dict[Request, dict[str, _Entry[Facts]]] = {}

    async def read(self, experiment: Manifest, *, suggestion: Manifest | None) -> list[Facts]:
        """The trials that an experiment controls, in the order in which they were suggested."""
        metadata = experiment["metadata"]
        request = Request(namespace=metadata["namespace"], name=metadata["name"])
        known = self._known.get(request, {})
        found = await self._client.list_changes(
            TRIALS,
            known={uid: entry.version for uid, entry in known.items()},
            namespace=request.namespace,
            label_selector=f"{EXPERIMENT_LABEL}={request.name}",
        )
        changed = {trial["metadata"]["uid"]: self._enter(trial) for trial in found.changed}
        entries = {uid: changed.get(uid) or known[uid] for uid in found.versions}
        self._known[request] = entries
        order = {entry["name"]: index for index, entry in enumerate(list_assignments(suggestion))}

        def age(entry: _Entry[Facts]) -> tuple[int, str, str]:
            return order.get(entry.name, len(order)), entry.created, entry.name

        mine = (entry for entry in entries.values() if entry.owner_uid == metadata["uid"])
        return [entry.facts for entry in sorted(mine, key=age)]

    def forget(self, request: Request) -> None:
        """Let go of what is known of an experiment's trials, as nobody asks any more."""
        self._known.pop(request, None)

    def _enter(self, trial: Manifest) -> _Entry[Facts]:
        metadata, owner = trial["metadata"], controller_owner(trial)
        return _Entry(
            version=metadata["resourceVersion"],
            owner_uid="" if owner is None else owner["uid"],
            created=metadata["creationTimestamp"],
            name=metadata["name"],
            facts=self._parse(trial),
        )
