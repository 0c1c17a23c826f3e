"""The two components of kfp-kubernetes that make and delete persistent volume claims.

Their images run nothing: upstream's driver does the work itself when it sees one, and so does the
engine.
"""

from __future__ import annotations

import contextlib

from kubeloop.errors import AlreadyExistsError, InputError, NotFoundError
from kubeloop.local.api.resources import PERSISTENT_VOLUME_CLAIMS
from kubeloop.local.client import Manifest
from kubeloop.local.pipelines.engine.context import EngineContext
from kubeloop.local.pipelines.engine.executor import RUN_LABEL
from kubeloop.local.pipelines.engine.facts import resource_name
from kubeloop.local.pipelines.engine.recording import Recorder
from kubeloop.local.pipelines.engine.tree import Node
from kubeloop.local.pipelines.spec import ir
from kubeloop.local.pipelines.storage.records import Run, TaskState, TaskValues

_CREATE_IMAGE = "argostub/createpvc"
_DELETE_IMAGE = "argostub/deletepvc"


def is_claim_step(node: Node) -> bool:
    """Whether a step makes or deletes a claim instead of running a container."""
    executor = node.component.executor
    return isinstance(executor, ir.ContainerSpec) and executor.image in (
        _CREATE_IMAGE,
        _DELETE_IMAGE,
    )


async def run_claim_step(
    node: Node, *, run: Run, context: EngineContext, recorder: Recorder
) -> None:
    """Make or delete a claim, as the step's image says; doing it again changes nothing.

    Raises:
        InputError: The inputs give no name, or two.
        ApiError: The API refuses the claim.
    """
    executor = node.component.executor
    assert isinstance(executor, ir.ContainerSpec)
    if executor.image == _CREATE_IMAGE:
        claim = _build_claim(node, run=run, namespace=context.namespace)
        with contextlib.suppress(AlreadyExistsError):
            await context.client.create(claim)
        outputs = TaskValues(parameters={"name": claim["metadata"]["name"]})
    else:
        name = str(node.inputs.parameters.get("pvc_name") or "")
        with contextlib.suppress(NotFoundError):
            await context.client.delete(PERSISTENT_VOLUME_CLAIMS, name, namespace=context.namespace)
        outputs = TaskValues()
    recorder.finish(node, TaskState.SUCCEEDED, outputs=outputs)


def _build_claim(node: Node, *, run: Run, namespace: str) -> Manifest:
    given = node.inputs.parameters
    name, suffix = given.get("pvc_name"), given.get("pvc_name_suffix")
    if bool(name) == bool(suffix):
        raise InputError("a claim needs one of pvc_name and pvc_name_suffix")
    spec = {
        "accessModes": given.get("access_modes"),
        "resources": {"requests": {"storage": given.get("size")}},
    }
    if given.get("storage_class_name"):
        spec["storageClassName"] = given["storage_class_name"]
    if given.get("volume_name"):
        spec["volumeName"] = given["volume_name"]
    return {
        "apiVersion": PERSISTENT_VOLUME_CLAIMS.api_version,
        "kind": PERSISTENT_VOLUME_CLAIMS.kind,
        "metadata": {
            "name": name or f"{resource_name(run)}-{suffix}",
            "namespace": namespace,
            "labels": {RUN_LABEL: run.run_id},
            "annotations": given.get("annotations") or {},
        },
        "spec": spec,
    }
