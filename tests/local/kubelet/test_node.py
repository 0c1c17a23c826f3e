"""What the machine offers to pods, and what becomes of them when the pod runner goes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from kubeloop.local.api.resources import NODES, PODS
from kubeloop.local.kubelet.kubelet import Kubelet, KubeletConfig
from kubeloop.local.kubelet.node import SHUTDOWN_GRACE_ANNOTATION
from kubeloop.local.kubelet.scheduling import NodeConfig
from kubeloop.local.kubelet.warm_parent import WarmConfig
from kubeloop.testing.api import memory_api
from kubeloop.testing.kubelet import (
    Cluster,
    build_pod,
    container_status,
    phase,
    play,
)
from kubeloop.testing.processes import is_alive
from kubeloop.testing.waiting import wait_until

COLD = WarmConfig(layers=())


def test_pod_that_asks_for_too_much_stays_pending_and_others_pass(tmp_path: Path) -> None:
    config = KubeletConfig(warm=COLD, node=NodeConfig(memory_bytes=2**30, num_gpus=1))

    def resources(**requests: str) -> list[dict[str, Any]]:
        return [
            {
                "name": "main",
                "image": "x",
                "command": ["true"],
                "resources": {"requests": requests},
            }
        ]

    async def scenario(cluster: Cluster) -> None:
        await cluster.create("big", containers=resources(memory="2Gi", **{"nvidia.com/gpu": "2"}))
        assert phase(await cluster.run("small", containers=resources(memory="1Gi"))) == "Succeeded"

        pod = await cluster.wait("big", lambda pod: bool(pod["status"].get("conditions")))

        condition = pod["status"]["conditions"][0]
        assert (condition["type"], condition["status"]) == ("PodScheduled", "False")
        assert condition["reason"] == "Unschedulable"
        assert condition["message"] == (
            "0/1 nodes are available: 1 Insufficient memory, 1 Insufficient nvidia.com/gpu."
        )
        await wait_until(lambda: _has_events(cluster, "big", "FailedScheduling"))

    play(tmp_path, scenario, config=config)


def test_pod_starts_when_another_has_made_room(tmp_path: Path) -> None:
    config = KubeletConfig(warm=COLD, node=NodeConfig(memory_bytes=2**30, num_gpus=2))

    async def scenario(cluster: Cluster) -> None:
        container = {
            "name": "main",
            "image": "x",
            "command": ["sh", "-c", "echo $CUDA_VISIBLE_DEVICES; sleep ${0}", "600"],
            "resources": {"limits": {"memory": "600Mi", "nvidia.com/gpu": "1"}},
        }
        await cluster.create("first", containers=[container])
        await cluster.wait("first", lambda pod: phase(pod) == "Running")
        await cluster.create("second", containers=[container])
        await cluster.wait("second", lambda pod: bool(pod["status"].get("conditions")))

        await cluster.client.delete(PODS, "first", namespace="default")
        await cluster.wait("second", lambda pod: phase(pod) == "Running")

        await wait_until(lambda: _has_logged(cluster, "second", "0\n"))

    play(tmp_path, scenario, config=config)


def test_node_is_registered_with_what_it_offers(tmp_path: Path) -> None:
    config = KubeletConfig(warm=COLD, node=NodeConfig(memory_bytes=2**30, num_gpus=0))

    async def scenario(cluster: Cluster) -> None:
        await wait_until(lambda: _has_node(cluster))
        node = await cluster.client.get(NODES, "kubeloop")

        num_cpus = len(os.sched_getaffinity(0))
        assert node["status"]["capacity"]["cpu"] == f"{num_cpus * 1000}m"
        assert node["status"]["allocatable"]["cpu"] == f"{num_cpus * 4000}m"
        assert node["status"]["allocatable"]["memory"] == f"{2**20}Ki"
        assert node["status"]["conditions"][0]["type"] == "Ready"

    play(tmp_path, scenario, config=config)


@pytest.mark.parametrize(
    ("policy", "expected"), [("Never", "Failed"), ("OnFailure", "Running"), ("Always", "Running")]
)
def test_pod_whose_processes_were_lost_is_failed_or_restarted(
    tmp_path: Path, policy: str, expected: str
) -> None:
    async def scenario() -> None:
        async with memory_api(pods_dir=tmp_path / "pods") as client:
            config = KubeletConfig(warm=COLD)
            first = Kubelet(client, state=tmp_path, config=config)
            async with asyncio.timeout(30), first:
                cluster = Cluster(client=client, kubelet=first, state=tmp_path)
                await cluster.create("server", "sleep", "600", restartPolicy=policy)
                await cluster.wait("server", lambda pod: phase(pod) == "Running")
                before = await cluster.get("server")
            before["metadata"].pop("resourceVersion")
            await client.replace_status(before)  # as a kill in the middle leaves it
            second = Kubelet(client, state=tmp_path, config=config)
            async with asyncio.timeout(30), second:
                cluster = Cluster(client=client, kubelet=second, state=tmp_path)
                pod = await cluster.wait(
                    "server", lambda pod: phase(pod) == "Failed" or _restarts(pod) == 1
                )
                assert phase(pod) == expected
                if expected == "Failed":
                    assert pod["status"]["reason"] == "NodeLost"
                else:
                    last = container_status(pod)["lastState"]["terminated"]
                    assert last["reason"] == "ContainerStatusUnknown"

    asyncio.run(scenario())


def test_going_down_ends_all_pods_and_they_resume(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with memory_api(pods_dir=tmp_path / "pods") as client:
            config = KubeletConfig(warm=COLD)
            async with Kubelet(client, state=tmp_path, config=config) as kubelet:
                cluster = Cluster(client=client, kubelet=kubelet, state=tmp_path)
                await cluster.create(
                    "server", "sh", "-c", "echo $$$$; exec sleep 600", restartPolicy="Always"
                )
                await wait_until(lambda: _has_logged(cluster, "server", "\n"))
                pid = int(await cluster.log("server"))
            pod = await cluster.get("server")
            assert not is_alive(pid)
            assert container_status(pod)["state"]["terminated"]["exitCode"] == 143
            async with Kubelet(client, state=tmp_path, config=config) as kubelet:
                cluster = Cluster(client=client, kubelet=kubelet, state=tmp_path)
                await cluster.wait("server", lambda pod: _restarts(pod) == 1)

    asyncio.run(scenario())


def test_going_down_fails_a_pod_that_is_never_restarted_as_node_shutdown_does(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with memory_api(pods_dir=tmp_path / "pods") as client:
            async with Kubelet(client, state=tmp_path, config=KubeletConfig(warm=COLD)) as kubelet:
                cluster = Cluster(client=client, kubelet=kubelet, state=tmp_path)
                await cluster.create("step", "sleep", "600", restartPolicy="Never")
                await cluster.wait("step", lambda pod: phase(pod) == "Running")
            pod = await cluster.get("step")
            assert (phase(pod), pod["status"]["reason"]) == ("Failed", "Terminated")
            assert container_status(pod)["state"]["terminated"]["exitCode"] == 143

    asyncio.run(scenario())


def test_pod_that_ended_while_it_was_deleted_goes_with_the_next_start(tmp_path: Path) -> None:
    async def scenario() -> None:
        config = KubeletConfig(warm=COLD)
        async with memory_api(pods_dir=tmp_path / "pods") as client:
            async with Kubelet(client, state=tmp_path, config=config) as kubelet:
                cluster = Cluster(client=client, kubelet=kubelet, state=tmp_path)
                await cluster.create("step", "sleep", "600")
                running = await cluster.wait("step", lambda pod: phase(pod) == "Running")
            ended = (await cluster.get("step"))["status"]
            # As when it is deleted after the kubelet has looked for the last time.
            running["metadata"].pop("resourceVersion")
            await client.replace_status(running)
            await client.delete(PODS, "step", namespace="default", grace_period_seconds=30)
            deleted = await cluster.get("step")
            await client.replace_status({**deleted, "status": ended})
            async with Kubelet(client, state=tmp_path, config=config) as kubelet:
                cluster = Cluster(client=client, kubelet=kubelet, state=tmp_path)
                await cluster.wait_until_gone("step")

    asyncio.run(scenario())


@pytest.mark.parametrize(("grace_seconds", "code"), [("0", 137), ("5", 143)])
def test_pod_says_how_long_it_wants_when_the_control_plane_goes_down(
    tmp_path: Path, grace_seconds: str, code: int
) -> None:
    async def scenario() -> None:
        pod = build_pod("step", "sleep", "600")
        pod["metadata"]["annotations"] = {SHUTDOWN_GRACE_ANNOTATION: grace_seconds}
        async with memory_api(pods_dir=tmp_path / "pods") as client:
            async with Kubelet(client, state=tmp_path, config=KubeletConfig(warm=COLD)) as kubelet:
                cluster = Cluster(client=client, kubelet=kubelet, state=tmp_path)
                await client.create(pod)
                await cluster.wait("step", lambda pod: phase(pod) == "Running")
            ended = await cluster.get("step")
            assert (phase(ended), ended["status"]["reason"]) == ("Failed", "Terminated")
            assert container_status(ended)["state"]["terminated"]["exitCode"] == code

    asyncio.run(scenario())


def test_fault_of_the_kubelet_ends_what_relies_on_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with memory_api() as client:
            kubelet = Kubelet(client, state=tmp_path, config=KubeletConfig(warm=COLD))

            async def fail(*_: object, **__: object) -> Any:
                raise ZeroDivisionError

            client.list = fail  # type: ignore[method-assign]  # the fault
            async with kubelet:
                await asyncio.sleep(600)

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(scenario())
    assert caught.group_contains(ZeroDivisionError)


def test_error_of_a_user_passes_the_kubelet_unchanged(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        play(tmp_path, scenario)


def test_folders_of_pods_that_went_meanwhile_are_removed(tmp_path: Path) -> None:
    (tmp_path / "pods" / "old" / "logs").mkdir(parents=True)

    async def scenario(cluster: Cluster) -> None:
        await wait_until(lambda: not (tmp_path / "pods" / "old").exists())

    play(tmp_path, scenario)


def _restarts(pod: dict[str, Any]) -> int:
    return int(container_status(pod).get("restartCount", 0))


async def _has_events(cluster: Cluster, name: str, *reasons: str) -> bool:
    return set(reasons) <= set(await cluster.event_reasons(name))


async def _has_node(cluster: Cluster) -> bool:
    nodes = (await cluster.client.list(NODES)).items
    return any("capacity" in (node.get("status") or {}) for node in nodes)


async def _has_logged(cluster: Cluster, name: str, text: str, *, count: int = 1) -> bool:
    if phase(await cluster.get(name)) == "Pending":
        return False
    return (await cluster.log(name)).count(text) >= count
