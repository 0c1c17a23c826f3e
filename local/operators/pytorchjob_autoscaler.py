"""Keeps the autoscaler of an elastic PyTorchJob that names metrics.

The object is upstream's. Nothing on a laptop measures pods for an autoscaler, so that nothing acts
on it there; `kubectl scale` and whoever else writes the `scale` subresource do.

Source: training-operator v1.9 `pytorch/hpa.go`.
"""

from __future__ import annotations

from kubeloop.errors import NotFoundError
from kubeloop.local.api.resources import HORIZONTAL_POD_AUTOSCALERS
from kubeloop.local.client import Client, Manifest
from kubeloop.local.operators.controller import build_owner_reference
from kubeloop.local.operators.deletion import delete_this


async def reconcile_autoscaler(client: Client, job: Manifest) -> None:
    """Create, update or delete the autoscaler of `job`, which has its defaults.

    As upstream, a job whose metrics are taken away keeps the one that it has.
    """
    wanted = _build_autoscaler(job)
    if wanted is None:
        return
    is_suspended = bool(job["spec"]["runPolicy"].get("suspend"))
    metadata = wanted["metadata"]
    try:
        current = await client.get(
            HORIZONTAL_POD_AUTOSCALERS, metadata["name"], namespace=metadata["namespace"]
        )
    except NotFoundError:
        if not is_suspended:
            await client.create(wanted)
        return
    if is_suspended:
        await delete_this(client, HORIZONTAL_POD_AUTOSCALERS, current)
    elif current["spec"] != wanted["spec"]:
        await client.replace({**current, "spec": wanted["spec"]})


def _build_autoscaler(job: Manifest) -> Manifest | None:
    elastic = job["spec"].get("elasticPolicy") or {}
    if elastic.get("metrics") is None:
        return None
    metadata = job["metadata"]
    return {
        "apiVersion": HORIZONTAL_POD_AUTOSCALERS.api_version,
        "kind": HORIZONTAL_POD_AUTOSCALERS.kind,
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "ownerReferences": [build_owner_reference(job)],
        },
        "spec": {
            "scaleTargetRef": {
                "apiVersion": job["apiVersion"],
                "kind": job["kind"],
                "name": metadata["name"],
            },
            "minReplicas": elastic["minReplicas"],
            "maxReplicas": elastic["maxReplicas"],
            "metrics": elastic["metrics"],
        },
    }
