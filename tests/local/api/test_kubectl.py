"""The real kubectl against a running server, with the kubeconfig alone."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from kubeloop.local.api.resources import CONFIG_MAPS, PODS, PYTORCH_JOBS
from kubeloop.testing.manifests import build_config_map, build_job, build_pod
from kubeloop.testing.servers import RunningApi, running_api
from kubeloop.testing.waiting import wait_until

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")

_DEADLINE_SECONDS = 60.0


class Kubectl:
    """Runs kubectl against one server."""

    def __init__(self, running: RunningApi, folder: Path) -> None:
        self.running = running
        self.folder = folder

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            "kubectl",
            f"--cache-dir={self.folder / 'cache'}",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "KUBECONFIG": str(self.running.kubeconfig),
            },
        )

    async def __call__(self, *arguments: str) -> str:
        process = await self.start(*arguments)
        output, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        return output.decode()

    async def fail(self, *arguments: str) -> str:
        process = await self.start(*arguments)
        _, errors = await process.communicate()
        assert process.returncode != 0
        return errors.decode()

    def write(self, *manifests: object) -> str:
        path = self.folder / "manifests.json"
        items = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        path.write_text(json.dumps(items))
        return str(path)


def run(folder: Path, test: Callable[[Kubectl], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(_DEADLINE_SECONDS), running_api(folder) as running:
            await test(Kubectl(running, folder))

    asyncio.run(limited())


def running_status(*, exit_code: int | None = None) -> dict[str, object]:
    stamp = "2026-01-01T00:00:00Z"
    ended = {"exitCode": exit_code, "reason": "Completed", "startedAt": stamp, "finishedAt": stamp}
    entry = {
        "name": "main",
        "image": "busybox",
        "imageID": "",
        "ready": exit_code is None,
        "restartCount": 0,
        "state": {"running": {"startedAt": stamp}} if exit_code is None else {"terminated": ended},
    }
    phase = "Running" if exit_code is None else "Succeeded"
    return {"phase": phase, "podIP": "127.0.0.1", "containerStatuses": [entry]}


def test_get_prints_the_columns_of_each_kind(tmp_path: Path) -> None:
    async def test(kubectl: Kubectl) -> None:
        async with kubectl.running.client() as client:
            pod = await client.create(build_pod("a", nodeName="laptop"))
            await client.replace_status({**pod, "status": running_status()})
            job = await client.create(build_job("j"))
            conditions = [
                {"type": "Created", "status": "True"},
                {"type": "Running", "status": "True"},
            ]
            await client.replace_status({**job, "status": {"conditions": conditions}})
            await client.create(build_config_map("c", namespace="kubeflow"))
        lines = (await kubectl("get", "pods", "-o", "wide")).splitlines()
        assert lines[0].split()[:5] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
        assert lines[1].split()[:4] == ["a", "1/1", "Running", "0"]
        assert lines[1].split()[5:7] == ["127.0.0.1", "laptop"]
        lines = (await kubectl("get", "pytorchjobs")).splitlines()
        assert lines[0].split() == ["NAME", "STATE", "AGE"]
        assert lines[1].split()[:2] == ["j", "Running"]
        lines = (await kubectl("get", "cm", "-A")).splitlines()
        assert lines[1].split()[:3] == ["kubeflow", "c", "1"]

    run(tmp_path, test)


def test_get_takes_several_kinds_and_short_names(tmp_path: Path) -> None:
    async def test(kubectl: Kubectl) -> None:
        async with kubectl.running.client() as client:
            await client.create(build_pod("a"))
            await client.create(build_job("j"))
        kinds = "pytorchjobs,experiments,trials,isvc,po"
        output = await kubectl("get", kinds, "-o", "name")
        assert output.split() == ["pytorchjob.kubeflow.org/j", "pod/a"]
        assert "pod/a" in await kubectl("get", "all")

    run(tmp_path, test)


def test_get_renders_yaml_and_json(tmp_path: Path) -> None:
    async def test(kubectl: Kubectl) -> None:
        async with kubectl.running.client() as client:
            created = await client.create(build_job("j"))
        assert json.loads(await kubectl("get", "pytorchjob", "j", "-o", "json")) == created
        assert "kind: PyTorchJob" in await kubectl("get", "pytorchjob", "j", "-o", "yaml")
        listed = json.loads(await kubectl("get", "pytorchjobs", "-o", "json"))
        assert listed["items"] == [created]

    run(tmp_path, test)


def test_get_reads_long_lists_in_pages(tmp_path: Path) -> None:
    async def test(kubectl: Kubectl) -> None:
        async with kubectl.running.client() as client:
            for index in range(25):
                await client.create(build_config_map(f"c{index:02}"))
        output = await kubectl("get", "cm", "-o", "name", "--chunk-size=10")
        assert output.split() == [f"configmap/c{index:02}" for index in range(25)]

    run(tmp_path, test)


def test_get_watches(tmp_path: Path) -> None:
    async def test(kubectl: Kubectl) -> None:
        async with kubectl.running.client() as client:
            created = await client.create(build_pod("a", nodeName="laptop"))
            process = await kubectl.start("get", "pods", "-w", "--no-headers")
            assert process.stdout is not None
            assert (await process.stdout.readline()).split()[2] == b"Pending"
            await client.replace_status({**created, "status": running_status()})
            assert (await process.stdout.readline()).split()[2] == b"Running"
            await client.delete(PODS, "a", namespace="default")
            assert (await process.stdout.readline()).split()[2] == b"Terminating"
            process.terminate()
            await process.communicate()

    run(tmp_path, test)


def test_apply_creates_then_changes_then_leaves_alone(tmp_path: Path) -> None:
    async def test(kubectl: Kubectl) -> None:
        job = build_job("j")
        file = kubectl.write(build_config_map("c"), build_pod("p"), job)
        output = await kubectl("apply", "-f", file)
        assert [line.split()[-1] for line in output.splitlines()] == ["created"] * 3
        assert (await kubectl("apply", "-f", file)).count("unchanged") == 3
        pod = build_pod("p", containers=[{"name": "main", "image": "busybox:2"}])
        job["spec"]["runPolicy"] = {"suspend": True}
        file = kubectl.write({**build_config_map("c"), "data": {"other": "x"}}, pod, job)
        assert (await kubectl("apply", "-f", file)).count("configured") == 3
        async with kubectl.running.client() as client:
            config_map = await client.get(CONFIG_MAPS, "c", namespace="default")
            assert config_map["data"] == {"other": "x"}
            stored = await client.get(PODS, "p", namespace="default")
            assert [c["image"] for c in stored["spec"]["containers"]] == ["busybox:2"]

    run(tmp_path, test)


def test_server_side_apply_owns_and_drops_fields(tmp_path: Path) -> None:
    async def test(kubectl: Kubectl) -> None:
        file = kubectl.write({**build_config_map("c"), "data": {"a": "1", "b": "2"}})
        output = await kubectl("apply", "--server-side", "-f", file)
        assert output == "configmap/c serverside-applied\n"
        file = kubectl.write({**build_config_map("c"), "data": {"a": "1"}})
        await kubectl("apply", "--server-side", "-f", file)
        file = kubectl.write({**build_config_map("c"), "data": {"a": "9"}})
        error = await kubectl.fail("apply", "--server-side", "--field-manager=other", "-f", file)
        assert 'conflict with "kubectl"' in error
        async with kubectl.running.client() as client:
            stored = await client.get(CONFIG_MAPS, "c", namespace="default")
        assert stored["data"] == {"a": "1"}

    run(tmp_path, test)


def test_dry_run_on_the_server_stores_nothing(tmp_path: Path) -> None:
    async def test(kubectl: Kubectl) -> None:
        file = kubectl.write(build_config_map("c"))
        output = await kubectl("apply", "--dry-run=server", "-f", file)
        assert output == "configmap/c created (server dry run)\n"
        assert "not found" in await kubectl.fail("get", "cm", "c")

    run(tmp_path, test)


def test_create_commands_work(tmp_path: Path) -> None:
    async def test(kubectl: Kubectl) -> None:
        await kubectl("create", "namespace", "team")
        await kubectl("create", "configmap", "c", "--from-literal=a=b", "-n", "team")
        await kubectl("create", "secret", "generic", "s", "--from-literal=a=b")
        await kubectl("create", "job", "j", "--image=busybox", "--", "echo", "hello")
        await kubectl("create", "deployment", "d", "--image=web", "--replicas=0", "--port=80")
        await kubectl("create", "service", "clusterip", "v", "--tcp=80:8080")
        await kubectl("create", "serviceaccount", "a")
        config_map = json.loads(await kubectl("get", "cm", "c", "-n", "team", "-o", "json"))
        assert config_map["data"] == {"a": "b"}
        secret = json.loads(await kubectl("get", "secret", "s", "-o", "json"))
        assert secret["data"] == {"a": "Yg=="}
        job = json.loads(await kubectl("get", "job", "j", "-o", "json"))
        container = job["spec"]["template"]["spec"]["containers"][0]
        assert container["command"] == ["echo", "hello"]
        deployment = json.loads(await kubectl("get", "deployment", "d", "-o", "json"))
        assert deployment["spec"]["replicas"] == 0
        service = json.loads(await kubectl("get", "service", "v", "-o", "json"))
        assert service["spec"]["ports"][0]["targetPort"] == 8080

    run(tmp_path, test)


def test_patch_label_annotate_and_scale(tmp_path: Path) -> None:
    async def test(kubectl: Kubectl) -> None:
        async with kubectl.running.client() as client:
            await client.create(build_job("j"))
            await client.create(build_pod("p"))
            await kubectl("label", "pytorchjob", "j", "x=y")
            await kubectl("annotate", "pod", "p", "x=y")
            suspend = '{"spec":{"runPolicy":{"suspend":true}}}'
            await kubectl("patch", "pytorchjob", "j", "--type=merge", "-p", suspend)
            image = '{"spec":{"containers":[{"name":"main","image":"other"}]}}'
            await kubectl("patch", "pod", "p", "-p", image)
            await kubectl("scale", "pytorchjob", "j", "--replicas=3")
            job = await client.get(PYTORCH_JOBS, "j", namespace="default")
            assert job["metadata"]["labels"] == {"x": "y"}
            assert job["spec"]["runPolicy"]["suspend"] is True
            assert job["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] == 3
            pod = await client.get(PODS, "p", namespace="default")
            assert pod["metadata"]["annotations"] == {"x": "y"}
            assert pod["spec"]["containers"][0]["image"] == "other"

    run(tmp_path, test)


def test_describe_shows_the_object_and_its_events(tmp_path: Path) -> None:
    async def test(kubectl: Kubectl) -> None:
        async with kubectl.running.client() as client:
            job = await client.create(build_job("j"))
            await client.create(build_pod("p"))
            about = {
                "apiVersion": job["apiVersion"],
                "kind": job["kind"],
                "name": "j",
                "namespace": "default",
                "uid": job["metadata"]["uid"],
            }
            await client.create(
                {
                    "apiVersion": "v1",
                    "kind": "Event",
                    "metadata": {"name": "j.1", "namespace": "default"},
                    "involvedObject": about,
                    "type": "Normal",
                    "reason": "PyTorchJobCreated",
                    "message": "PyTorchJob j is created.",
                    "count": 1,
                }
            )
        output = await kubectl("describe", "pytorchjob", "j")
        assert "PyTorchJobCreated" in output
        assert "PyTorchJob j is created." in output
        assert "Image:" in await kubectl("describe", "pod", "p")

    run(tmp_path, test)


def test_logs_are_read_and_followed(tmp_path: Path) -> None:
    async def test(kubectl: Kubectl) -> None:
        async with kubectl.running.client() as client:
            pod = await client.create(build_pod("p", nodeName="laptop"))
            assert "is waiting to start" in await kubectl.fail("logs", "p")
            pod = await client.replace_status({**pod, "status": running_status()})
            folder = kubectl.running.pods_dir / pod["metadata"]["uid"] / "logs" / "main"
            folder.mkdir(parents=True)
            log = folder / "0.log"
            log.write_text("one\ntwo\nthree\n")
            assert await kubectl("logs", "p", "--tail=2") == "two\nthree\n"
            process = await kubectl.start("logs", "p", "-f")
            assert process.stdout is not None
            assert await process.stdout.readline() == b"one\n"
            with log.open("a") as file:
                file.write("four\n")
            lines = [await process.stdout.readline() for _ in range(3)]
            assert lines == [b"two\n", b"three\n", b"four\n"]
            with log.open("a") as file:
                file.write("last\n")
            await client.replace_status({**pod, "status": running_status(exit_code=0)})
            assert await process.stdout.read() == b"last\n"
            assert await process.wait() == 0

    run(tmp_path, test)


def test_wait_sees_conditions_and_deletions(tmp_path: Path) -> None:
    async def test(kubectl: Kubectl) -> None:
        async with kubectl.running.client() as client:
            job = await client.create(build_job("j"))
            waiter = await kubectl.start(
                "wait", "pytorchjob/j", "--for=condition=Succeeded", "--timeout=30s"
            )
            await wait_until(lambda: _is_watched(kubectl.running))
            status = {"conditions": [{"type": "Succeeded", "status": "True"}]}
            await client.replace_status({**job, "status": status})
            assert b"condition met" in (await waiter.communicate())[0]
            waiter = await kubectl.start("wait", "pytorchjob/j", "--for=delete", "--timeout=30s")
            await wait_until(lambda: _is_watched(kubectl.running))
            await client.delete(PYTORCH_JOBS, "j", namespace="default")
            assert b"condition met" in (await waiter.communicate())[0]

    run(tmp_path, test)


def _is_watched(running: RunningApi) -> bool:
    return bool(running.api.storage.logs[PYTORCH_JOBS]._waiters)


def test_delete_waits_until_the_object_is_gone(tmp_path: Path) -> None:
    async def test(kubectl: Kubectl) -> None:
        async with kubectl.running.client() as client:
            await client.create(build_pod("p", nodeName="laptop"))
            process = await kubectl.start("delete", "pod", "p", "--timeout=30s")

            async def is_dying() -> bool:
                pod = await client.get(PODS, "p", namespace="default")
                return "deletionTimestamp" in pod["metadata"]

            await wait_until(is_dying)
            assert process.returncode is None
            await client.delete(PODS, "p", namespace="default", grace_period_seconds=0)
            assert await process.wait() == 0
            await process.communicate()
            assert "NotFound" in await kubectl.fail("delete", "pod", "p")

    run(tmp_path, test)


def test_identity_and_version_are_told(tmp_path: Path) -> None:
    async def test(kubectl: Kubectl) -> None:
        assert await kubectl("auth", "can-i", "create", "pods") == "yes\n"
        assert "kubeloop" in await kubectl("version")
        resources = await kubectl("api-resources", "--api-group=kubeflow.org", "-o", "name")
        assert "pytorchjobs.kubeflow.org" in resources
        assert "experiments.kubeflow.org" in resources
        assert "PyTorchJob" in await kubectl("explain", "pytorchjob")

    run(tmp_path, test)


def test_errors_name_reason_and_object(tmp_path: Path) -> None:
    async def test(kubectl: Kubectl) -> None:
        error = await kubectl.fail("get", "pod", "nope")
        assert error == 'Error from server (NotFound): pods "nope" not found\n'
        file = kubectl.write({**build_config_map("Bad_Name")})
        error = await kubectl.fail("create", "-f", file)
        assert 'The ConfigMap "Bad_Name" is invalid: metadata.name: Invalid value' in error
        error = await kubectl.fail("create", "configmap", "c", "-n", "nowhere")
        assert 'namespaces "nowhere" not found' in error

    run(tmp_path, test)
