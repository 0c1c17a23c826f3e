from datetime import datetime, timedelta
from typing import Any

import pytest

from kubeloop.errors import InvalidError
from kubeloop.local.api.resources import DEPLOYMENTS, EVENTS, PODS
from kubeloop.local.operators.deployment import REVISION_ANNOTATION, DeploymentReconciler
from kubeloop.testing.stage import Stage, play


def deployment(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}, "annotations": {"a": "b"}},
                "spec": {"containers": [{"name": "main", "image": "image:1"}]},
            },
            **spec,
        },
    }


def new_image(image: str) -> dict[str, Any]:
    return {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}


async def settle(stage: Stage) -> None:
    for _ in range(4):
        await stage.step("web")
        await stage.kubelet.finish_deletions()


async def images(stage: Stage) -> list[str]:
    found = await stage.client.list(PODS, namespace="default")
    return sorted(pod["spec"]["containers"][0]["image"] for pod in found.items)


async def conditions(stage: Stage) -> dict[str, tuple[str, str]]:
    status = await stage.status("web")
    return {entry["type"]: (entry["status"], entry["reason"]) for entry in status["conditions"]}


async def newest_creation(stage: Stage) -> datetime:
    found = await stage.client.list(PODS, namespace="default")
    return max(datetime.fromisoformat(pod["metadata"]["creationTimestamp"]) for pod in found.items)


def test_replicas_become_pods_that_carry_the_template() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(deployment(replicas=2))

        await settle(stage)

        found = await stage.client.list(PODS, namespace="default")
        assert len(found.items) == 2
        for pod in found.items:
            assert pod["metadata"]["labels"]["app"] == "web"
            assert pod["metadata"]["labels"]["pod-template-hash"] in pod["metadata"]["name"]
            assert pod["metadata"]["annotations"] == {"a": "b"}
            assert pod["metadata"]["ownerReferences"][0]["kind"] == "Deployment"

    play(DeploymentReconciler, scenario)


def test_status_follows_the_pods() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(deployment(replicas=2))
        await settle(stage)
        assert await conditions(stage) == {
            "Available": ("False", "MinimumReplicasUnavailable"),
            "Progressing": ("True", "ReplicaSetUpdated"),
        }

        await stage.kubelet.run(*await stage.names())
        await settle(stage)

        status = await stage.status("web")
        assert status["observedGeneration"] == 1
        for count in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"):
            assert status[count] == 2
        assert "unavailableReplicas" not in status
        assert await conditions(stage) == {
            "Available": ("True", "MinimumReplicasAvailable"),
            "Progressing": ("True", "NewReplicaSetAvailable"),
        }

    play(DeploymentReconciler, scenario)


def test_update_ends_the_old_pod_only_after_the_new_one_serves() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(deployment())
        await settle(stage)
        await stage.kubelet.run(*await stage.names())
        await settle(stage)
        (old,) = await stage.names()

        await stage.change_spec("web", new_image("image:2"))
        await settle(stage)

        assert await images(stage) == ["image:1", "image:2"]
        assert (await conditions(stage))["Available"][0] == "True"

        await stage.kubelet.run(*(name for name in await stage.names() if name != old))
        await settle(stage)

        assert await images(stage) == ["image:2"]
        assert (await stage.status("web"))["replicas"] == 1

    play(DeploymentReconciler, scenario)


def test_a_broken_update_leaves_the_old_pods_serving_and_is_reported() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(deployment(replicas=2, progressDeadlineSeconds=60))
        await settle(stage)
        await stage.kubelet.run(*await stage.names())
        await settle(stage)
        await stage.change_spec("web", new_image("broken:1"))
        await settle(stage)

        stage.clock.advance(61)
        await settle(stage)

        assert (await images(stage)).count("image:1") == 2
        assert await conditions(stage) == {
            "Available": ("True", "MinimumReplicasAvailable"),
            "Progressing": ("False", "ProgressDeadlineExceeded"),
        }

    play(DeploymentReconciler, scenario)


def test_progress_deadline_is_looked_at_without_any_event() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(deployment(progressDeadlineSeconds=60))

        result = await stage.step("web")

        assert result.requeue_after_seconds == pytest.approx(60, abs=1)

    play(DeploymentReconciler, scenario)


def test_a_pod_that_fails_after_the_rollout_is_replaced_and_no_deadline_passes() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(deployment(progressDeadlineSeconds=60))
        await settle(stage)
        (first,) = await stage.names()
        await stage.kubelet.run(first)
        await settle(stage)

        await stage.kubelet.evict(first)
        stage.clock.now = await newest_creation(stage) + timedelta(seconds=120)
        await settle(stage)

        alive = [name for name in await stage.names() if name != first]
        assert len(alive) == 1
        assert (await conditions(stage))["Progressing"] == ("True", "NewReplicaSetAvailable")
        await stage.kubelet.run(*alive)
        await settle(stage)
        assert await stage.names() == alive

    play(DeploymentReconciler, scenario)


def test_pods_that_keep_failing_are_replaced_ever_more_slowly() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(deployment())
        await stage.step("web")
        waits = []
        for _ in range(4):
            for name in await stage.names():
                await stage.kubelet.evict(name)
            stage.clock.now = await newest_creation(stage)
            waits.append((await stage.step("web")).requeue_after_seconds)
            stage.clock.advance(60)
            await stage.step("web")

        assert waits == [1, 2, 4, 8]

    play(DeploymentReconciler, scenario)


def test_recreate_ends_every_old_pod_first() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(deployment(strategy={"type": "Recreate"}))
        await settle(stage)
        await stage.kubelet.run(*await stage.names())
        await settle(stage)

        await stage.change_spec("web", new_image("image:2"))
        await stage.step("web")

        assert await images(stage) == ["image:1"]
        await settle(stage)
        assert await images(stage) == ["image:2"]

    play(DeploymentReconciler, scenario)


def test_scaling_down_ends_the_pods_that_do_not_serve_first() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(deployment(replicas=3))
        await settle(stage)
        serving = (await stage.names())[1]
        await stage.kubelet.run(serving)
        await settle(stage)

        await stage.change_spec("web", {"replicas": 1})
        await settle(stage)

        assert await stage.names() == [serving]

    play(DeploymentReconciler, scenario)


def test_min_ready_seconds_delays_availability() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(deployment(minReadySeconds=30))
        await settle(stage)
        await stage.kubelet.run(*await stage.names())

        result = await stage.step("web")
        assert "availableReplicas" not in await stage.status("web")
        assert result.requeue_after_seconds is not None
        assert result.requeue_after_seconds <= 30
        stage.clock.advance(31)
        await stage.step("web")
        assert (await stage.status("web"))["availableReplicas"] == 1

    play(DeploymentReconciler, scenario)


def test_a_second_pass_writes_nothing() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(deployment(replicas=2))
        await settle(stage)
        await stage.kubelet.run(*await stage.names())
        await settle(stage)
        before = (await stage.client.list(EVENTS, namespace="default")).resource_version

        await stage.step("web")

        after = (await stage.client.list(EVENTS, namespace="default")).resource_version
        assert after == before

    play(DeploymentReconciler, scenario)


def test_each_template_is_a_revision() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(deployment())
        await settle(stage)
        await stage.change_spec("web", {"replicas": 2})
        await settle(stage)
        await stage.change_spec("web", new_image("image:2"))
        await settle(stage)

        annotations = (await stage.get("web"))["metadata"]["annotations"]
        assert annotations[REVISION_ANNOTATION] == "2"

    play(DeploymentReconciler, scenario)


def test_paused_deployment_starts_no_rollout() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(deployment())
        await settle(stage)
        await stage.change_spec("web", {"paused": True, **new_image("image:2")})

        await settle(stage)

        assert await images(stage) == ["image:1"]
        assert (await conditions(stage))["Progressing"] == ("Unknown", "DeploymentPaused")

    play(DeploymentReconciler, scenario)


def test_deleting_a_deployment_deletes_its_pods() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(deployment(replicas=2))
        await settle(stage)

        await stage.client.delete(DEPLOYMENTS, "web", namespace="default")
        await stage.step("web")
        await stage.kubelet.finish_deletions()

        assert await stage.names() == []

    play(DeploymentReconciler, scenario)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"selector": {"matchLabels": {"app": "other"}}}, "spec.template.metadata.labels"),
        ({"replicas": -1}, "spec.replicas"),
        ({"strategy": {"type": "Sometimes"}}, "spec.strategy.type"),
        (
            {"strategy": {"rollingUpdate": {"maxSurge": "x", "maxUnavailable": 0}}},
            "spec.strategy.rollingUpdate.maxSurge",
        ),
        (
            {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}},
            "spec.strategy.rollingUpdate.maxUnavailable",
        ),
        ({"template": {"metadata": {"labels": {"app": "web"}}}}, "spec.template.spec.containers"),
    ],
)
def test_unusable_deployment_is_refused_with_its_field(spec: dict[str, Any], field: str) -> None:
    async def scenario(stage: Stage) -> None:
        with pytest.raises(InvalidError, match=field.replace(".", r"\.")):
            await stage.client.create(deployment(**spec))

    play(DeploymentReconciler, scenario)


def test_selector_cannot_change() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(deployment())
        stored = await stage.get("web")
        stored["spec"]["selector"]["matchLabels"] = {"app": "b"}
        stored["spec"]["template"]["metadata"]["labels"] = {"app": "b"}

        with pytest.raises(InvalidError, match="field is immutable"):
            await stage.client.replace(stored)

    play(DeploymentReconciler, scenario)
