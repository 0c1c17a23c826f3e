"""Turns what the record says into links.

A task gave or took an artifact, an artifact lies at a URI, metadata names a training job, a trial
or a source, an endpoint names its model. Nothing is inferred from names; where the record ends, the
node says so.
"""

from __future__ import annotations

from collections.abc import Sequence

from kubeloop.components.provenance import ModelKey, TrialsKey
from kubeloop.kserve.endpoints import Endpoint, EndpointAnnotation
from kubeloop.pipelines.lineage import describing
from kubeloop.pipelines.lineage.graph import LineageKind, LineageNode, Relation
from kubeloop.pipelines.lineage.records import Records
from kubeloop.pipelines.lineage.web import Web
from kubeloop.pipelines.metadata import Artifact, TaskRecord

_LOGS = "executor-logs"
_MAX_SAME_PLACE = 50
"""Other records at one URI that are looked at: a nightly ingest of unchanged data makes many."""


class Linker:
    """Adds nodes and links to a web, reading the record where it must."""

    def __init__(self, records: Records, web: Web, *, endpoints: Sequence[Endpoint]) -> None:
        self._records = records
        self._web = web
        self._endpoints = endpoints
        self._artifacts: dict[str, dict[str, Artifact]] = {}
        self._tasks: dict[str, TaskRecord] = {}

    def add_artifact(self, artifact: Artifact) -> LineageNode:
        """Add an artifact, and the raw data that it names."""
        node = self._web.add(describing.describe_artifact(artifact))
        self._artifacts.setdefault(node.key, {})[artifact.artifact_id] = artifact
        source = describing.describe_source(artifact)
        if source is not None:
            self._web.link(source, node, Relation.INGESTED)
        return node

    def add_task(self, task: TaskRecord) -> LineageNode:
        """Add a task and its run."""
        node = self._web.add(describing.describe_task(task))
        self._tasks[node.key] = task
        self._web.link(describing.describe_run(task.run_id), node, Relation.RAN)
        return node

    def add_endpoint(self, endpoint: Endpoint) -> LineageNode:
        """Add an endpoint and the model that it names."""
        node = self._web.add(describing.describe_endpoint(endpoint))
        uri = describing.model_uri_of(endpoint)
        run_id = endpoint.annotations.get(EndpointAnnotation.RUN_ID, "")
        made = [
            artifact
            for task in (self._records.tasks(run_id) if run_id else ())
            for given in task.output_artifacts.values()
            for artifact in given
            if artifact.uri == uri
        ]
        models = [self.add_artifact(found) for found in made or self._records.at(uri)]
        digest = endpoint.annotations.get(EndpointAnnotation.MODEL_DIGEST, "")
        fitting = [model for model in models if _agree(model.digest, digest)]
        if not uri:
            self._web.note(node.key, "it names no model")
        elif models and not fitting:
            self._web.note(node.key, f"the record knows its model by another digest than {digest}")
        for model in fitting or [describing.describe_unknown_model(endpoint)]:
            if uri:
                self._web.link(model, node, Relation.SERVED)
        return self._web.nodes[node.key]

    def read_makers(self, keys: Sequence[str]) -> None:
        """Link artifacts to the tasks that made them."""
        known = {key: dict(self._artifacts[key]) for key in keys if key in self._artifacts}
        self._records.read_uses(i for artifacts in known.values() for i in artifacts)
        ending = []
        for key, artifacts in known.items():
            makers = [
                self._link_made(task, artifact)
                for artifact in artifacts.values()
                for task in self._records.makers(artifact.artifact_id)
            ]
            if all(task.is_importer for task in makers):
                ending.append(key)
        self._records.read_places(self._web.nodes[key].uri for key in ending)
        for key in ending:
            self._read_makers_elsewhere(key)

    def read_takers(self, keys: Sequence[str]) -> None:
        """Link artifacts to the tasks that took them and the endpoints that serve them."""
        known = [key for key in keys if key in self._artifacts]
        self._records.read_places(self._web.nodes[key].uri for key in known)
        for key in known:
            self._read_importers(key)
        self._records.read_uses(i for key in known for i in self._artifacts[key])
        for key in known:
            for artifact_id in list(self._artifacts[key]):
                for task in self._records.takers(artifact_id):
                    self._web.link(self._web.nodes[key], self.add_task(task), Relation.USED)
            self.link_endpoints(key)

    def read_inputs(self, keys: Sequence[str]) -> None:
        """Link tasks to what they took."""
        for task in [self._tasks[key] for key in keys if key in self._tasks]:
            node = self.add_task(task)
            for artifact in (a for given in task.input_artifacts.values() for a in given):
                self._web.link(self.add_artifact(artifact), node, Relation.USED)

    def read_outputs(self, keys: Sequence[str]) -> None:
        """Link tasks to what they gave, and searches to the models that took their best trial."""
        for task in [self._tasks[key] for key in keys if key in self._tasks]:
            for artifact in products_of(task):
                self._link_made(task, artifact)
                trial = artifact.metadata.get(TrialsKey.TRIAL)
                for other, model in self._outputs_of(task.run_id) if trial else ():
                    if model.metadata.get(ModelKey.TRIAL) == trial:
                        self._link_made(other, model)

    def link_endpoints(self, key: str) -> None:
        """Link an artifact to the endpoints that serve it."""
        node = self._web.nodes[key]
        for endpoint in self._endpoints:
            digest = endpoint.annotations.get(EndpointAnnotation.MODEL_DIGEST, "")
            is_same = describing.model_uri_of(endpoint) == node.uri
            if node.uri and is_same and _agree(digest, node.digest):
                self._web.link(node, describing.describe_endpoint(endpoint), Relation.SERVED)

    def _link_made(self, task: TaskRecord, artifact: Artifact) -> TaskRecord:
        node, maker = self.add_artifact(artifact), self.add_task(task)
        has_run = not (task.is_cached or task.is_importer)
        job = describing.describe_job(artifact) if node.kind is LineageKind.MODEL else None
        if job is not None and has_run:
            self._web.link(maker, job, Relation.STARTED)
            self._web.link(job, node, Relation.TRAINED)
            if (code := describing.describe_code(artifact)) is not None:
                self._web.link(code, job, Relation.USED)
            self._link_trial(task, artifact, job)
        else:
            self._web.link(maker, node, Relation.REUSED if task.is_cached else Relation.MADE)
        if TrialsKey.TRIAL in artifact.metadata and has_run:
            experiment, trial = describing.describe_search(artifact)
            self._web.link(maker, experiment, Relation.STARTED)
            self._web.link(experiment, trial, Relation.RAN)
        return task

    def _link_trial(self, task: TaskRecord, model: Artifact, job: LineageNode) -> None:
        name = str(model.metadata.get(ModelKey.TRIAL, ""))
        if not name:
            return
        for _, table in self._outputs_of(task.run_id):
            if table.metadata.get(TrialsKey.TRIAL) == name:
                for maker in self._records.makers(table.artifact_id):
                    self._link_made(maker, table)
                self._web.link(describing.describe_search(table)[1], job, Relation.TUNED)
                return
        self._web.link(describing.describe_unknown_trial(name), job, Relation.TUNED)

    def _outputs_of(self, run_id: str) -> list[tuple[TaskRecord, Artifact]]:
        return [
            (task, artifact)
            for task in self._records.tasks(run_id)
            for given in task.output_artifacts.values()
            for artifact in given
        ]

    def _read_makers_elsewhere(self, key: str) -> None:
        """Look for what was imported, or came from nowhere, among other records of its URI."""
        others = self._others_at(key)
        importers = [edge.cause for edge in self._web.causes(key) if edge.cause in self._tasks]
        for other in others:
            for task in self._records.makers(other.artifact_id):
                if task.is_importer or task.is_cached:
                    continue
                self._link_made(task, other)
                node = self._web.nodes[describing.describe_artifact(other).key]
                for importer in importers:
                    self._web.link(node, self._web.nodes[importer], Relation.USED)
        made = [edge for edge in self._web.causes(key) if edge.cause not in importers]
        if not made:
            what = "it was imported" if importers else "no task is recorded as its maker"
            self._web.note(key, f"{what}; the record does not say where it comes from")

    def _read_importers(self, key: str) -> None:
        """Find the importers that named, later, what lies at the same URI."""
        node = self._web.nodes[key]
        for other in self._others_at(key):
            makers = self._records.makers(other.artifact_id)
            for task in makers:
                if task.is_importer:
                    self._link_made(task, other)
                    self._web.link(node, self.add_task(task), Relation.USED)

    def _others_at(self, key: str) -> list[Artifact]:
        """Other records at an artifact's URI that do not contradict it."""
        own = self._artifacts[key]
        some = next(iter(own.values()))
        others = [
            other
            for other in self._records.at(some.uri)
            if other.artifact_id not in own
            and _agree(other.digest, some.digest)
            and _agree(describing.digest_of_artifact(other), describing.digest_of_artifact(some))
        ]
        if len(others) > _MAX_SAME_PLACE:
            self._web.note(
                key, f"{len(others)} more records at this URI were not searched for importers"
            )
            return []
        self._records.read_uses(other.artifact_id for other in others)
        return others


def products_of(task: TaskRecord) -> list[Artifact]:
    """What a task gave.

    KFP keeps what a task printed as an artifact, too, and the place of one that it did not write.
    """
    return [
        artifact
        for key, given in task.output_artifacts.items()
        if not key.startswith(_LOGS)
        for artifact in given
        if ModelKey.ABSENT not in artifact.metadata
    ]


def _agree(digest: str, other: str) -> bool:
    """Whether two digests may be of the same content; nothing recorded contradicts nothing."""
    return not digest or not other or digest == other
