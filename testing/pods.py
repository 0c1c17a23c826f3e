"""A kubelet that starts nothing: pods do what a test says, and their statuses follow.

It keeps a kubelet's rules (restart policy, phases, restart counts, readiness, graceful deletion),
so that a controller under test sees the statuses it would see for real.
"""

from __future__ import annotations

from kubeloop.local.api.resources import PODS
from kubeloop.local.client import Client, Manifest
from kubeloop.local.operators.conditions import Clock, format_time, utc_now


class FakeKubelet:
    """Plays the node for the pods of one namespace."""

    def __init__(
        self, client: Client, *, namespace: str = "default", clock: Clock = utc_now
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._clock = clock

    async def run(self, *names: str) -> None:
        """Schedule pods and start their containers."""
        for name in names:
            pod = await self._get(name)
            pod["spec"]["nodeName"] = "node"
            pod = await self._client.replace(pod)
            started = format_time(self._clock())
            pod["status"] = {
                "phase": "Running",
                "startTime": started,
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": started}],
                "containerStatuses": [
                    {
                        "name": container["name"],
                        "restartCount": 0,
                        "ready": True,
                        "state": {"running": {"startedAt": started}},
                    }
                    for container in pod["spec"]["containers"]
                ],
            }
            await self._client.replace_status(pod)

    async def exit(self, name: str, *, code: int = 0) -> None:
        """End all containers of a running pod; its restart policy says what follows."""
        pod = await self._get(name)
        policy = pod["spec"].get("restartPolicy", "Always")
        status = pod["status"]
        if policy == "Always" or (policy == "OnFailure" and code):
            for container in status["containerStatuses"]:
                container["restartCount"] += 1
        else:
            status["phase"] = "Failed" if code else "Succeeded"
            status["conditions"][0]["status"] = "False"
            for container in status["containerStatuses"]:
                container["ready"] = False
                container["state"] = {
                    "terminated": {
                        "exitCode": code,
                        "reason": "Error" if code else "Completed",
                        "finishedAt": format_time(self._clock()),
                    }
                }
        await self._client.replace_status(pod)

    async def evict(self, name: str) -> None:
        """Fail a pod as a whole, without a word about its containers."""
        pod = await self._get(name)
        pod["status"] = {"phase": "Failed", "reason": "Evicted"}
        await self._client.replace_status(pod)

    async def report(self, name: str, status: Manifest) -> None:
        """Write any status."""
        pod = await self._get(name)
        pod["status"] = status
        await self._client.replace_status(pod)

    async def finish_deletions(self) -> None:
        """Stop the pods that are to be deleted, and let them go."""
        for pod in (await self._client.list(PODS, namespace=self._namespace)).items:
            if "deletionTimestamp" in pod["metadata"]:
                await self._client.delete(
                    PODS,
                    pod["metadata"]["name"],
                    namespace=self._namespace,
                    grace_period_seconds=0,
                    uid=pod["metadata"]["uid"],
                )

    async def _get(self, name: str) -> Manifest:
        return await self._client.get(PODS, name, namespace=self._namespace)
