"""What a user means by a word: an endpoint, a run, a task, a commit, a model, any artifact."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from kubeloop.components.provenance import DatasetKey
from kubeloop.errors import InputError
from kubeloop.kserve.endpoints import Endpoint
from kubeloop.pipelines.lineage.describing import digest_of_artifact
from kubeloop.pipelines.lineage.tracing import Target
from kubeloop.pipelines.metadata import Artifact, MetadataSource

T = TypeVar("T")

ACCEPTED = (
    "an endpoint (NAME or NAMESPACE/NAME), a run id, a task (its id or"
    " RUN/NAME), a dataset commit (NAME@HASH),"
    " a model (NAME/DIGEST or sha256:DIGEST), an artifact's URI or id;"
    " or KIND:VALUE with the kind endpoint, run, task, dataset, model or artifact"
)
_KIND = re.compile(r"(endpoint|run|task|dataset|model|artifact):(?!//)(.+)")
_COMMIT = re.compile(r"([^@/]+)@([0-9a-f]{6,64})")
_MODEL = re.compile(r"(?:([^/@:]+)/)?(?:sha256:)?([0-9a-f]{12,64})")
_MAX_NAMED = 5


def find_target(text: str, source: MetadataSource, *, endpoints: Sequence[Endpoint]) -> Target:
    """Find what `text` names.

    Args:
        text: See `ACCEPTED`.
        source: The record of runs.
        endpoints: The InferenceServices that can be meant.

    Raises:
        InputError: Nothing, or more than one thing, is meant; the message says what is accepted.
    """
    finder = _Finder(source, endpoints)
    kind = _KIND.fullmatch(text)
    if kind is not None:
        found = finder.find(kind[1], kind[2])
        if found is None:
            raise InputError(f"There is no {kind[1]} {kind[2]!r} in the record.{finder.hint}")
        return found
    matches = {name: found for name in finder.kinds if (found := finder.find(name, text))}
    # A dataset's commit or a model is also an artifact; the first to match says what it is.
    if matches.keys() & {"dataset", "model"}:
        matches.pop("artifact", None)
    if len(matches) > 1:
        named = " or ".join(f"{name}:{text}" for name in matches)
        raise InputError(f"{text!r} names {len(matches)} things; write {named}.")
    if not matches:
        raise InputError(f"Nothing is known as {text!r}.{finder.hint} Give {ACCEPTED}.")
    return next(iter(matches.values()))


class _Finder:
    def __init__(self, source: MetadataSource, endpoints: Sequence[Endpoint]) -> None:
        self._source = source
        self._endpoints = endpoints
        self.kinds: dict[str, Callable[[str], Target | None]] = {
            "endpoint": self._find_endpoint,
            "run": self._find_run,
            "task": self._find_task,
            "dataset": self._find_dataset,
            "model": self._find_model,
            "artifact": self._find_artifact,
        }

    @property
    def hint(self) -> str:
        """The endpoints that there are, for messages."""
        known = ", ".join(endpoint.name for endpoint in self._endpoints[:_MAX_NAMED])
        more = ", …" if len(self._endpoints) > _MAX_NAMED else ""
        return f" Endpoints are: {known or 'none'}{more}."

    def find(self, kind: str, value: str) -> Target | None:
        return self.kinds[kind](value)

    def _find_endpoint(self, value: str) -> Target | None:
        for endpoint in self._endpoints:
            if value in (endpoint.name, f"{endpoint.namespace}/{endpoint.name}"):
                return Target(endpoint=endpoint)
        return None

    def _find_run(self, value: str) -> Target | None:
        run = _ask(self._source.get_run, value)
        return None if run is None else Target(run=run)

    def _find_task(self, value: str) -> Target | None:
        run_id, _, name = value.partition("/")
        if not name:
            task = _ask(self._source.get_task, value)
            return None if task is None or task.is_group else Target(task=task)
        tasks = _ask(self._source.list_tasks, run_id) or []
        found = [task for task in tasks if task.name == name and not task.is_group]
        if len(found) > 1:
            known = ", ".join(task.task_id for task in found[:_MAX_NAMED])
            raise InputError(f"{value!r} names {len(found)} tasks; give the id of one: {known}.")
        return Target(task=found[0]) if found else None

    def _find_dataset(self, value: str) -> Target | None:
        commit = _COMMIT.fullmatch(value)
        if commit is None:
            return None
        name, version = commit.groups()
        return _one(
            value,
            [
                artifact
                for artifact in self._source.search_artifacts(version)
                if artifact.metadata.get(DatasetKey.NAME) == name
                and str(artifact.metadata.get(DatasetKey.VERSION_HASH, "")).startswith(version)
            ],
        )

    def _find_model(self, value: str) -> Target | None:
        model = _MODEL.fullmatch(value)
        if model is None:
            return None
        name, digest = model.groups()
        return _one(
            value,
            [
                artifact
                for artifact in self._source.search_artifacts(digest)
                if artifact.type == "Model"
                and digest_of_artifact(artifact).startswith(f"sha256:{digest}")
                and (not name or f"/{name}/" in artifact.uri)
            ],
        )

    def _find_artifact(self, value: str) -> Target | None:
        found = self._source.find_artifacts([value])
        if found:
            return Target(artifacts=tuple(found))
        artifact = None if "/" in value else _ask(self._source.get_artifact, value)
        return None if artifact is None else Target(artifacts=(artifact,))


def _ask(read: Callable[[str], T], value: str) -> T | None:
    if not re.fullmatch(r"[A-Za-z0-9-]+", value):
        return None
    try:
        return read(value)
    except InputError:
        return None


def _one(value: str, artifacts: Sequence[Artifact]) -> Target | None:
    """All records of one thing; two things that begin alike are refused."""
    things = sorted({artifact.uri for artifact in artifacts})
    if len(things) > 1:
        named = ", ".join(things[:_MAX_NAMED])
        raise InputError(f"{value!r} names {len(things)} artifacts: {named}; give one's URI.")
    return Target(artifacts=tuple(artifacts)) if artifacts else None
