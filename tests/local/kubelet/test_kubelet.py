"""Pods from creation to their end, as the API shows them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kubeloop.local.api.resources import CONFIG_MAPS, PODS
from kubeloop.local.kubelet.kubelet import Kubelet, KubeletConfig
from kubeloop.local.kubelet.pod_files import COMPLETE_ANNOTATION
from kubeloop.local.kubelet.warm_parent import WarmConfig
from kubeloop.local.log_times import read_times
from kubeloop.local.operators.conditions import parse_time
from kubeloop.testing.api import memory_api
from kubeloop.testing.kubelet import (
    Cluster,
    build_pod,
    container_status,
    is_condition_true,
    phase,
    play,
)
from kubeloop.testing.processes import is_alive
from kubeloop.testing.waiting import wait_until

COLD = WarmConfig(layers=())


def test_pod_succeeds_with_the_status_that_kubernetes_writes(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        pod = await cluster.run("hello", "sh", "-c", "echo hello; echo $HOSTNAME")

        assert phase(pod) == "Succeeded"
        assert pod["spec"]["nodeName"] == "kubeloop"
        assert await cluster.log("hello") == "hello\nhello\n"
        status = container_status(pod)
        terminated = status["state"]["terminated"]
        assert (terminated["exitCode"], terminated["reason"]) == (0, "Completed")
        assert terminated["containerID"] == status["containerID"]
        assert status["containerID"].startswith("kubeloop://")
        assert (status["ready"], status["restartCount"]) == (False, 0)
        assert is_condition_true(pod, "PodScheduled")
        assert is_condition_true(pod, "Initialized")
        assert not is_condition_true(pod, "Ready")
        assert pod["status"]["podIP"] == "127.0.0.1"
        await wait_until(lambda: _has_events(cluster, "hello", "Created", "Scheduled", "Started"))

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("script", "code", "signal_number"),
    [("exit 3", 3, None), ("kill -9 $$$$", 137, 9), ("kill -15 $$$$", 143, 15)],
)
def test_pod_fails_with_the_exit_code_of_its_container(
    tmp_path: Path, script: str, code: int, signal_number: int | None
) -> None:
    async def scenario(cluster: Cluster) -> None:
        pod = await cluster.run("bad", "sh", "-c", script)

        terminated = container_status(pod)["state"]["terminated"]
        assert phase(pod) == "Failed"
        assert (terminated["exitCode"], terminated["reason"]) == (code, "Error")
        assert terminated.get("signal") == signal_number

    play(tmp_path, scenario)


def test_running_pod_is_ready(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create("server", "sleep", "600")

        pod = await cluster.wait("server", lambda pod: is_condition_true(pod, "Ready"))

        assert phase(pod) == "Running"
        assert container_status(pod)["ready"]
        assert container_status(pod)["started"]
        assert "startedAt" in container_status(pod)["state"]["running"]

    play(tmp_path, scenario)


def test_command_that_does_not_exist_fails_the_pod_and_says_so(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        pod = await cluster.run("bad", "no-such-command")

        terminated = container_status(pod)["state"]["terminated"]
        assert phase(pod) == "Failed"
        assert (terminated["exitCode"], terminated["reason"]) == (128, "StartError")
        assert "no-such-command" in terminated["message"]
        await wait_until(lambda: _has_events(cluster, "bad", "Failed"))

    play(tmp_path, scenario)


def test_container_without_a_command_waits_and_says_why(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create("odd", containers=[{"name": "main", "image": "nginx:1"}])

        pod = await cluster.wait("odd", lambda pod: "waiting" in _state(pod))
        waiting = (await cluster.wait("odd", _has_config_error))["status"]

        assert phase(pod) == "Pending"
        message = waiting["containerStatuses"][0]["state"]["waiting"]["message"]
        assert "'nginx:1'" in message

    play(tmp_path, scenario)


def test_pod_waits_for_its_config_map(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        reference = {"configMapKeyRef": {"name": "settings", "key": "color"}}
        container = {
            "name": "main",
            "image": "x",
            "command": ["sh", "-c", "echo $COLOR"],
            "env": [{"name": "COLOR", "valueFrom": reference}],
        }
        await cluster.create("painter", containers=[container])
        waiting = container_status(await cluster.wait("painter", _has_config_error))

        await cluster.client.create(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "settings", "namespace": "default"},
                "data": {"color": "red"},
            }
        )
        pod = await cluster.finish("painter")

        assert waiting["state"]["waiting"]["message"] == 'configmap "settings" not found'
        assert phase(pod) == "Succeeded"
        assert await cluster.log("painter") == "red\n"

    play(tmp_path, scenario)


def test_when_a_line_was_written_is_noted_to_the_last(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        pod = await cluster.run("hello", "echo", "hello")

        finished = container_status(pod)["state"]["terminated"]["finishedAt"]
        log = cluster.state / "pods" / pod["metadata"]["uid"] / "logs" / "main" / "0.log"
        times = read_times(log)
        assert times.lengths == (len("hello\n"),)
        assert times.times[0] >= parse_time(finished).timestamp()

    play(tmp_path, scenario)


def test_the_last_life_counts_until_the_next_begins(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        settings = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "settings", "namespace": "default"},
            "data": {"color": "red"},
        }
        container = {
            "name": "main",
            "image": "x",
            "command": ["sh", "-c", "echo $COLOR; until [ -e ../go ]; do sleep 0.01; done; exit 1"],
            "env": [
                {
                    "name": "COLOR",
                    "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}},
                }
            ],
        }
        await cluster.client.create(settings)
        pod = await cluster.create("painter", containers=[container], restartPolicy="OnFailure")
        await cluster.wait("painter", lambda pod: "running" in _state(pod))
        await cluster.client.delete(CONFIG_MAPS, "settings", namespace="default")
        (cluster.state / "pods" / pod["metadata"]["uid"] / "go").touch()
        waiting = container_status(await cluster.wait("painter", _has_config_error))

        assert waiting["restartCount"] == 0
        assert waiting["lastState"]["terminated"]["containerID"] == waiting["containerID"]
        assert await cluster.log("painter") == "red\n"

    play(tmp_path, scenario)


def test_volume_is_shared_between_init_and_main_containers(tmp_path: Path) -> None:
    mounts = [{"name": "shared", "mountPath": "/mnt/models"}]

    async def scenario(cluster: Cluster) -> None:
        pod = await cluster.run(
            "loader",
            initContainers=[
                {
                    "name": "fetch",
                    "image": "x",
                    "command": ["sh", "-c", "echo weights > /mnt/models/model"],
                    "volumeMounts": mounts,
                }
            ],
            containers=[
                {
                    "name": "main",
                    "image": "x",
                    "command": ["cat", "/mnt/models/model"],
                    "volumeMounts": mounts,
                }
            ],
            volumes=[{"name": "shared", "emptyDir": {}}],
        )

        assert phase(pod) == "Succeeded"
        assert await cluster.log("loader", "main") == "weights\n"
        assert not Path("/mnt/models/model").exists()

    play(tmp_path, scenario)


def test_init_containers_run_one_after_the_other(tmp_path: Path) -> None:
    script = "date +%s%N > ../$0; sleep 0.05; date +%s%N >> ../$0"

    async def scenario(cluster: Cluster) -> None:
        def build(name: str) -> dict[str, Any]:
            return {"name": name, "image": "x", "command": ["sh", "-c", script, name]}

        pod = await cluster.run(
            "steps", initContainers=[build("one"), build("two")], containers=[build("main")]
        )

        folder = cluster.state / "pods" / pod["metadata"]["uid"]
        times = [(folder / name).read_text().split() for name in ("one", "two", "main")]
        flat = [int(time) for pair in times for time in pair]
        assert flat == sorted(flat)
        assert [entry["name"] for entry in pod["status"]["initContainerStatuses"]] == ["one", "two"]

    play(tmp_path, scenario)


def test_failed_init_container_fails_the_pod(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        broken = {"name": "prepare", "image": "x", "command": ["sh", "-c", "exit 5"]}
        pod = await cluster.run("bad", "true", initContainers=[broken])

        assert phase(pod) == "Failed"
        assert container_status(pod, "prepare")["state"]["terminated"]["exitCode"] == 5
        assert "waiting" in container_status(pod, "main")["state"]
        assert not is_condition_true(pod, "Initialized")

    play(tmp_path, scenario)


def test_containers_of_a_pod_run_side_by_side(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        wait = "echo here > ../{0}; until [ -e ../{1} ]; do sleep 0.01; done"
        containers = [
            {"name": a, "image": "x", "command": ["sh", "-c", wait.format(a, b)]}
            for a, b in (("left", "right"), ("right", "left"))
        ]
        assert phase(await cluster.run("pair", containers=containers)) == "Succeeded"

    play(tmp_path, scenario)


def test_container_is_restarted_on_failure_until_it_succeeds(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        script = "echo x >> ../tries; [ $(wc -l < ../tries) -ge 4 ] && echo done"
        pod = await cluster.run("flaky", "sh", "-c", script, restartPolicy="OnFailure")

        status = container_status(pod)
        assert phase(pod) == "Succeeded"
        assert status["restartCount"] == 3
        assert status["lastState"]["terminated"]["exitCode"] == 1
        assert await cluster.log("flaky") == "done\n"
        await wait_until(lambda: _has_events(cluster, "flaky", "BackOff"))

    play(tmp_path, scenario)


def test_container_that_keeps_failing_waits_longer_and_longer(tmp_path: Path) -> None:
    config = KubeletConfig(warm=COLD, first_backoff_seconds=600)

    async def scenario(cluster: Cluster) -> None:
        await cluster.create("broken", "false", restartPolicy="Always")

        pod = await cluster.wait("broken", lambda pod: _reason(pod) == "CrashLoopBackOff")

        assert container_status(pod)["restartCount"] == 1  # the first restart is at once
        assert container_status(pod)["lastState"]["terminated"]["exitCode"] == 1
        assert phase(pod) == "Running"
        await cluster.client.delete(PODS, "broken", namespace="default")
        await cluster.wait_until_gone("broken")

    play(tmp_path, scenario, config=config)


def test_always_restarts_a_container_that_succeeded(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create("loop", "true", restartPolicy="Always")

        pod = await cluster.wait("loop", lambda pod: _restarts(pod) >= 3)

        assert phase(pod) == "Running"

    play(tmp_path, scenario)


def test_deleted_pod_is_terminated_within_its_grace(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        script = "trap 'echo bye > $0/bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done"
        await cluster.create("polite", "sh", "-c", script, str(tmp_path))
        await wait_until(lambda: _has_logged(cluster, "polite", "ready"))

        await cluster.client.delete(PODS, "polite", namespace="default")
        await cluster.wait_until_gone("polite")

        assert (tmp_path / "bye").read_text() == "bye\n"
        await wait_until(lambda: list((tmp_path / "pods").iterdir()) == [])

    play(tmp_path, scenario)


def test_pod_that_ignores_termination_is_killed_after_its_grace(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        script = "trap '' TERM; echo $$$$; setsid sleep 600 & echo $!; wait; sleep 600"
        await cluster.create("stubborn", "sh", "-c", script)
        await wait_until(lambda: _has_logged(cluster, "stubborn", "\n", count=2))
        pids = [int(line) for line in (await cluster.log("stubborn")).split()]

        await cluster.client.delete(PODS, "stubborn", namespace="default", grace_period_seconds=1)
        await cluster.wait_until_gone("stubborn")

        assert not any(map(is_alive, pids))

    play(tmp_path, scenario)


def test_forced_deletion_kills_at_once(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        script = "trap '' TERM; echo $$$$; while :; do sleep 0.01; done"
        await cluster.create("stubborn", "sh", "-c", script, terminationGracePeriodSeconds=600)
        await wait_until(lambda: _has_logged(cluster, "stubborn", "\n"))
        pid = int(await cluster.log("stubborn"))

        await cluster.client.delete(PODS, "stubborn", namespace="default", grace_period_seconds=0)

        await wait_until(lambda: not is_alive(pid))

    play(tmp_path, scenario)


def test_pod_past_its_deadline_fails(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        pod = await cluster.run("slow", "sleep", "600", activeDeadlineSeconds=1)

        assert phase(pod) == "Failed"
        assert pod["status"]["reason"] == "DeadlineExceeded"

    play(tmp_path, scenario)


def test_many_pods_at_once_all_succeed(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        pods = await asyncio.gather(
            *(cluster.run(f"p{index}", "sh", "-c", f"echo {index}") for index in range(40))
        )
        assert {phase(pod) for pod in pods} == {"Succeeded"}
        assert [await cluster.log(f"p{index}") for index in range(40)] == [
            f"{index}\n" for index in range(40)
        ]

    play(tmp_path, scenario)


def _state(pod: dict[str, Any]) -> dict[str, Any]:
    return dict(container_status(pod).get("state") or {})


def _reason(pod: dict[str, Any]) -> str:
    return str((_state(pod).get("waiting") or {}).get("reason", ""))


def _has_config_error(pod: dict[str, Any]) -> bool:
    return _reason(pod) == "CreateContainerConfigError"


def _restarts(pod: dict[str, Any]) -> int:
    return int(container_status(pod).get("restartCount", 0))


async def _has_events(cluster: Cluster, name: str, *reasons: str) -> bool:
    return set(reasons) <= set(await cluster.event_reasons(name))


async def _has_logged(cluster: Cluster, name: str, text: str, *, count: int = 1) -> bool:
    if phase(await cluster.get(name)) == "Pending":
        return False
    return (await cluster.log(name)).count(text) >= count


def test_a_pod_that_is_completed_ends_and_has_succeeded(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create("trial", "sleep", "600")
        pod = await cluster.wait("trial", lambda pod: phase(pod) == "Running")
        annotations = {COMPLETE_ANNOTATION: "true"}

        await cluster.client.patch(
            PODS,
            "trial",
            namespace="default",
            body={"metadata": {"uid": pod["metadata"]["uid"], "annotations": annotations}},
        )

        pod = await cluster.finish("trial")
        terminated = container_status(pod)["state"]["terminated"]
        assert phase(pod) == "Succeeded"
        assert (terminated["exitCode"], terminated["reason"]) == (0, "Completed")

    play(tmp_path, scenario)


def test_nothing_is_left_of_a_start_that_nobody_noted(tmp_path: Path) -> None:
    async def main() -> None:
        async with memory_api(pods_dir=tmp_path / "pods") as client:
            created = await client.create(
                build_pod("again", **_with_volume({"name": "v", "emptyDir": {}}))
            )
            folder = tmp_path / "pods" / created["metadata"]["uid"]
            for path in (folder / "logs" / "main" / "0.log", folder / "volumes" / "v" / "old"):
                path.parent.mkdir(parents=True)
                path.write_text("old")
            async with Kubelet(client, state=tmp_path, config=KubeletConfig(warm=COLD)) as kubelet:
                cluster = Cluster(client=client, kubelet=kubelet, state=tmp_path)
                await cluster.finish("again")

                assert await cluster.log("again") == "new\n"

    asyncio.run(main())


def _with_volume(volume: Any) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": "i",
        "command": ["sh", "-c", "ls /data; echo new"],
        "volumeMounts": [{"name": volume["name"], "mountPath": "/data"}],
    }
    return {"volumes": [volume], "containers": [container]}
