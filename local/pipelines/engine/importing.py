"""The importer: gives an artifact that exists already a place in the pipeline.

Nothing is copied, only named.
"""

from __future__ import annotations

import asyncio

from kubeloop.errors import InputError
from kubeloop.local.pipelines.engine.context import EngineContext
from kubeloop.local.pipelines.engine.object_stores import parse_location
from kubeloop.local.pipelines.engine.outputs import OutputArtifact, Outputs, digest_uri
from kubeloop.local.pipelines.engine.placeholders import Scope, resolve_text, resolve_value
from kubeloop.local.pipelines.engine.recording import Recorder
from kubeloop.local.pipelines.engine.tree import Node
from kubeloop.local.pipelines.spec import ir
from kubeloop.local.pipelines.storage.records import Artifact, Run, TaskState, TaskValues
from kubeloop.local.pipelines.storage.tables import Query

_OUTPUT = "artifact"


async def import_artifact(
    node: Node, *, run: Run, context: EngineContext, recorder: Recorder
) -> None:
    """Record the artifact that an importer names, or reuse the one recorded before.

    Raises:
        InputError: The URI has no value.
    """
    spec = node.component.executor
    assert isinstance(spec, ir.ImporterSpec)
    scope = Scope(parameters=node.inputs.parameters)
    uri = resolve_text(spec.uri, scope)
    if spec.uri_input:
        uri = node.inputs.parameters.get(spec.uri_input) or ""
    if not isinstance(uri, str) or not uri:
        raise InputError(f"the importer {node.record.name!r} has no URI")
    metadata = resolve_value(dict(spec.metadata), scope)
    name = next(iter(node.component.output_artifacts), _OUTPUT)
    if parse_location(uri):
        digest = await context.stores.digest(uri)
    else:
        digest = await asyncio.to_thread(digest_uri, uri)
    item = OutputArtifact(name=name, spec=spec.artifact, uri=uri, metadata=metadata, digest=digest)
    known = None if spec.reimport else _find(item, run=run, context=context)
    with context.store.transaction():
        if known is None:
            values = recorder.record_outputs(
                node, Outputs(parameters={}, artifacts={name: (item,)})
            )
        else:
            values = TaskValues(artifacts={name: (known.artifact_id,)})
            recorder.relate_outputs(node.record, values)
        recorder.finish(node, TaskState.SUCCEEDED, outputs=values)


def _find(item: OutputArtifact, *, run: Run, context: EngineContext) -> Artifact | None:
    """The newest equal artifact of the same pipeline."""
    query = Query(
        where="uri = ? AND schema_title = ?",
        values=(item.uri, item.spec.schema_title),
        order="created_at DESC",
    )
    for artifact in context.store.artifacts.select(query):
        producer = context.store.runs.get(artifact.run_id)
        if (
            producer is not None
            and producer.pipeline_name == run.pipeline_name
            and artifact.metadata == item.metadata
            and artifact.digest == item.digest
        ):
            return artifact
    return None
