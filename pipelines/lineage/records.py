"""The record of runs, read once: a walk meets the same runs and artifacts again and again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kubeloop.errors import InputError
from kubeloop.pipelines.metadata import Artifact, ArtifactUse, MetadataSource, TaskRecord


class Records:
    """Remembers what it has read; groups are left out, their tasks say the same."""

    def __init__(self, source: MetadataSource) -> None:
        self.source = source
        self._tasks: dict[str, dict[str, TaskRecord]] = {}
        self._uses: dict[str, list[ArtifactUse]] = {}
        self._at: dict[str, list[Artifact]] = {}

    def tasks(self, run_id: str) -> list[TaskRecord]:
        """The tasks of a run; none where its record was deleted."""
        if run_id not in self._tasks:
            try:
                found = self.source.list_tasks(run_id)
            except InputError:
                found = []
            self._tasks[run_id] = {task.task_id: task for task in found if not task.is_group}
        return list(self._tasks[run_id].values())

    def read_uses(self, artifact_ids: Iterable[str]) -> None:
        """Read ahead who made and who took artifacts, in few requests."""
        wanted = [identifier for identifier in artifact_ids if identifier not in self._uses]
        self._uses.update((identifier, []) for identifier in wanted)
        for use in self.source.list_uses(wanted):
            self._uses[use.artifact_id].append(use)

    def makers(self, artifact_id: str) -> list[TaskRecord]:
        """The tasks that made an artifact; those that took it from the cache if none is known.

        A step that ran makes it once, before all who give it too: they took it from the cache. A
        thousand runs may have, and are not read.
        """
        found: list[TaskRecord] = []
        for task in self._users(artifact_id, is_output=True):
            found.append(task)
            if len(found) == 1 and not (task.is_cached or task.is_importer):
                break
        return [task for task in found if not task.is_cached] or found

    def takers(self, artifact_id: str) -> list[TaskRecord]:
        """The tasks that took an artifact."""
        return list(self._users(artifact_id, is_output=False))

    def read_places(self, uris: Iterable[str]) -> None:
        """Read ahead which artifacts are recorded at URIs."""
        wanted = [uri for uri in uris if uri and uri not in self._at]
        self._at.update((uri, []) for uri in wanted)
        for artifact in self.source.find_artifacts(wanted):
            self._at[artifact.uri].append(artifact)

    def at(self, uri: str) -> list[Artifact]:
        """The artifacts recorded at a URI."""
        self.read_places([uri])
        return self._at.get(uri, [])

    def _users(self, artifact_id: str, *, is_output: bool) -> Iterator[TaskRecord]:
        """The tasks that gave or took an artifact, each read when it is asked for."""
        self.read_uses([artifact_id])
        seen: set[str] = set()
        for use in self._uses[artifact_id]:
            if use.is_output == is_output and use.task_id not in seen:
                seen.add(use.task_id)
                self.tasks(use.run_id)
                task = self._tasks[use.run_id].get(use.task_id)
                if task is not None:
                    yield task
