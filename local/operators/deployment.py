"""Runs apps/v1 Deployments: keeps their pods, and replaces them without a gap on an update.

There are no ReplicaSets in between: pods belong to the Deployment itself and carry the hash of
their template, as they do on a cluster. Where a cluster's events and conditions name a ReplicaSet,
the name is what it would have been.
"""

from __future__ import annotations

from copy import deepcopy
from datetime import datetime
from typing import ClassVar

from kubeloop.errors import NotFoundError
from kubeloop.local.api.resources import DEPLOYMENTS, PODS, Resource
from kubeloop.local.client import Client, Manifest
from kubeloop.local.operators.conditions import Clock, utc_now
from kubeloop.local.operators.controller import (
    Reconciler,
    Request,
    Result,
    build_owner_reference,
    controller_owner,
)
from kubeloop.local.operators.deletion import delete_this
from kubeloop.local.operators.events import record_event
from kubeloop.local.operators.pod_states import is_being_deleted
from kubeloop.local.operators.rollouts import (
    HASH_LABEL,
    Plan,
    Pods,
    build_status,
    hash_template,
    is_complete,
    plan_pods,
    seconds_to_deadline,
    sort_pods,
)

REVISION_ANNOTATION = "deployment.kubernetes.io/revision"
_HASH_ANNOTATION = "kubeloop.dev/pod-template-hash"
_COMPONENT = "deployment-controller"


class DeploymentReconciler(Reconciler):
    """Drives Deployments."""

    resource: ClassVar[Resource] = DEPLOYMENTS
    owns: ClassVar[tuple[Resource, ...]] = (PODS,)

    def __init__(self, client: Client, *, clock: Clock = utc_now) -> None:
        self._client = client
        self._clock = clock

    async def reconcile(self, request: Request) -> Result:
        """Bring one Deployment forward by one pass."""
        try:
            deployment = await self._client.get(
                DEPLOYMENTS, request.name, namespace=request.namespace
            )
        except NotFoundError:
            return Result()
        if is_being_deleted(deployment):
            return Result()
        template_hash = hash_template(deployment["spec"]["template"])
        deployment = await self._note_revision(deployment, template_hash)
        pods = await self._list_pods(deployment, template_hash)
        now = self._clock()
        plan = plan_pods(deployment, pods, now=now)
        if plan.num_new or plan.doomed:
            await self._carry_out(deployment, plan, pods=pods, template_hash=template_hash)
            pods = await self._list_pods(deployment, template_hash)
        deployment = await self._save_status(deployment, pods, now=now)
        if pods.ended and is_complete(deployment, deployment["status"]):
            await self._delete_pods(pods.ended)
        return _look_again(deployment, plan, pods=pods, now=now)

    async def _list_pods(self, deployment: Manifest, template_hash: str) -> Pods:
        metadata = deployment["metadata"]
        found = await self._client.list(PODS, namespace=metadata["namespace"])
        owned = (pod for pod in found.items if _is_controlled(pod, metadata["uid"]))
        return sort_pods(owned, template_hash)

    async def _note_revision(self, deployment: Manifest, template_hash: str) -> Manifest:
        """Count the templates that the Deployment has had, in its annotation."""
        annotations = deployment["metadata"].get("annotations") or {}
        if annotations.get(_HASH_ANNOTATION) == template_hash:
            return deployment
        revision = int(annotations.get(REVISION_ANNOTATION, "0")) + 1
        return await self._client.patch(
            DEPLOYMENTS,
            deployment["metadata"]["name"],
            namespace=deployment["metadata"]["namespace"],
            body={
                "metadata": {
                    "annotations": {
                        REVISION_ANNOTATION: str(revision),
                        _HASH_ANNOTATION: template_hash,
                    }
                }
            },
        )

    async def _carry_out(
        self, deployment: Manifest, plan: Plan, *, pods: Pods, template_hash: str
    ) -> None:
        for _ in range(plan.num_new):
            await self._client.create(_build_pod(deployment, template_hash))
        await self._delete_pods(plan.doomed)
        name = deployment["metadata"]["name"]
        if plan.num_new:
            await self._announce_scale(
                deployment,
                f"Scaled up replica set {name}-{template_hash} to"
                f" {len(pods.new) + plan.num_new} from {len(pods.new)}",
            )
        by_hash: dict[str, int] = {}
        for pod in plan.doomed:
            label = (pod["metadata"].get("labels") or {}).get(HASH_LABEL, "")
            by_hash[label] = by_hash.get(label, 0) + 1
        for label, count in by_hash.items():
            alive = sum(
                (pod["metadata"].get("labels") or {}).get(HASH_LABEL) == label for pod in pods.alive
            )
            await self._announce_scale(
                deployment,
                f"Scaled down replica set {name}-{label} to {alive - count} from {alive}",
            )

    async def _announce_scale(self, deployment: Manifest, message: str) -> None:
        await record_event(
            self._client,
            deployment,
            type="Normal",
            reason="ScalingReplicaSet",
            message=message,
            component=_COMPONENT,
            now=self._clock(),
        )

    async def _delete_pods(self, pods: tuple[Manifest, ...]) -> None:
        for pod in pods:
            await delete_this(self._client, PODS, pod)

    async def _save_status(self, deployment: Manifest, pods: Pods, *, now: datetime) -> Manifest:
        status = build_status(deployment, pods, now=now)
        if status == deployment.get("status"):
            return deployment
        deployment["status"] = status
        return await self._client.replace_status(deployment)


def _is_controlled(pod: Manifest, uid: str) -> bool:
    owner = controller_owner(pod)
    return owner is not None and owner["uid"] == uid


def _build_pod(deployment: Manifest, template_hash: str) -> Manifest:
    template = deepcopy(deployment["spec"]["template"])
    metadata = template.get("metadata") or {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{deployment['metadata']['name']}-{template_hash}-",
            "namespace": deployment["metadata"]["namespace"],
            "labels": {**(metadata.get("labels") or {}), HASH_LABEL: template_hash},
            "annotations": metadata.get("annotations") or {},
            "ownerReferences": [build_owner_reference(deployment)],
        },
        "spec": template["spec"],
    }


def _look_again(deployment: Manifest, plan: Plan, *, pods: Pods, now: datetime) -> Result:
    waits = [plan.wait_seconds, seconds_to_deadline(deployment, now=now)]
    min_ready = deployment["spec"].get("minReadySeconds")
    if min_ready and deployment["status"].get("unavailableReplicas") and pods.alive:
        waits.append(float(min_ready))
    return Result(
        requeue_after_seconds=min((wait for wait in waits if wait is not None), default=None)
    )
