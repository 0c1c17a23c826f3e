"""Pods that listen, find each other by Services, and are probed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from kubeloop.local.api.resources import PODS
from kubeloop.local.kubelet.network import HOST_PORTS_ANNOTATION
from kubeloop.testing.kubelet import (
    Cluster,
    container_status,
    is_condition_true,
    phase,
    play,
)
from kubeloop.testing.waiting import wait_until

SERVER = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(500 if os.path.exists('sick') and self.path == '/live' else 200)
        self.end_headers()
        self.wfile.write(os.environ['HOSTNAME'].encode())
    def log_message(self, *_): pass
port = int(sys.argv[1].partition('=')[2])
http.server.ThreadingHTTPServer(('127.0.0.1', port), Handler).serve_forever()
"""
CLIENT = "import os, urllib.request as u; print(u.urlopen(os.environ['URL']).read().decode())"


def server(**fields: Any) -> dict[str, Any]:  # fields of a container
    return {
        "name": "main",
        "image": "x",
        "command": ["python", "-c", SERVER],
        "args": ["--port=8080"],
        "ports": [{"containerPort": 8080, "name": "http"}],
        **fields,
    }


def test_pods_on_the_same_port_are_reached_by_their_services(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        for name in ("alpha", "beta"):
            await cluster.client.create(
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": {"name": name, "namespace": "default"},
                    "spec": {
                        "selector": {"app": name},
                        "ports": [{"port": 80, "targetPort": "http"}],
                    },
                }
            )
            probe = {"httpGet": {"port": "http", "path": "/ready"}}
            pod = await cluster.create(f"{name}-0", containers=[server(readinessProbe=probe)])
            pod["metadata"]["labels"] = {"app": name}
            await cluster.client.patch(
                PODS, f"{name}-0", namespace="default", body={"metadata": {"labels": {"app": name}}}
            )
            await cluster.wait(f"{name}-0", lambda pod: is_condition_true(pod, "Ready"))

        for name in ("alpha", "beta"):
            client = {
                "name": "main",
                "image": "x",
                "command": [sys.executable, "-c", CLIENT],
                "env": [{"name": "URL", "value": f"http://{name}.default.svc.cluster.local/x"}],
            }
            done = await cluster.run(f"ask-{name}", containers=[client])
            assert phase(done) == "Succeeded", await cluster.log(f"ask-{name}")
            assert await cluster.log(f"ask-{name}") == f"{name}-0\n"
        pods = [await cluster.get(f"{name}-0") for name in ("alpha", "beta")]
        ports = [json.loads(pod["metadata"]["annotations"][HOST_PORTS_ANNOTATION]) for pod in pods]
        assert ports[0]["8080"] != ports[1]["8080"]

    play(tmp_path, scenario)


def test_pod_is_not_ready_before_its_probe_succeeds(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        probe = {"exec": {"command": ["test", "-e", "ready"]}, "periodSeconds": 1}
        container = {"name": "main", "image": "x", "command": ["sleep", "600"]}
        await cluster.create("slow", containers=[{**container, "readinessProbe": probe}])
        pod = await cluster.wait("slow", lambda pod: phase(pod) == "Running")
        assert not is_condition_true(pod, "Ready")

        work = cluster.state / "pods" / pod["metadata"]["uid"] / "work"
        (work / "ready").touch()
        await cluster.wait("slow", lambda pod: is_condition_true(pod, "Ready"))

        (work / "ready").unlink()
        await cluster.wait("slow", lambda pod: not is_condition_true(pod, "Ready"))
        assert container_status(await cluster.get("slow"))["restartCount"] == 0

    play(tmp_path, scenario)


def test_container_that_fails_its_liveness_probe_is_restarted(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        probe = {
            "httpGet": {"port": 8080, "path": "/live"},
            "periodSeconds": 1,
            "failureThreshold": 1,
        }
        await cluster.create(
            "frail", containers=[server(livenessProbe=probe)], restartPolicy="Always"
        )
        pod = await cluster.wait("frail", lambda pod: phase(pod) == "Running")
        work = cluster.state / "pods" / pod["metadata"]["uid"] / "work"
        (work / "sick").touch()

        pod = await cluster.wait("frail", lambda pod: container_status(pod)["restartCount"] == 1)

        assert container_status(pod)["lastState"]["terminated"]["exitCode"] == 143
        reasons = await cluster.event_reasons("frail")
        assert {"Unhealthy", "Killing"} <= set(reasons)
        (work / "sick").unlink()

    play(tmp_path, scenario)


def test_container_counts_as_started_after_its_startup_probe(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        probe = {"exec": {"command": ["test", "-e", "started"]}, "periodSeconds": 1}
        container = {"name": "main", "image": "x", "command": ["sleep", "600"]}
        await cluster.create("slow", containers=[{**container, "startupProbe": probe}])
        pod = await cluster.wait("slow", lambda pod: phase(pod) == "Running")
        assert not container_status(pod)["started"]

        (cluster.state / "pods" / pod["metadata"]["uid"] / "work" / "started").touch()

        pod = await cluster.wait("slow", lambda pod: container_status(pod)["started"])
        assert container_status(pod)["ready"]

    play(tmp_path, scenario)


def test_worker_finds_its_master_before_the_master_exists(tmp_path: Path) -> None:
    program = """
import os, socket, time
address = (os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT']))
if os.environ['RANK'] == '0':
    with socket.create_server(address) as server:
        connection, _ = server.accept()
        print(connection.recv(100).decode())
else:
    while True:
        try:
            with socket.create_connection(address) as connection:
                connection.sendall(b'hello from rank 1')
            break
        except ConnectionRefusedError:
            time.sleep(0.01)
"""

    def replica(rank: int) -> list[dict[str, Any]]:
        return [
            {
                "name": "pytorch",
                "image": "x",
                "command": ["python", "-c", program],
                "ports": [{"name": "pytorchjob-port", "containerPort": 23456}],
                "env": [
                    {"name": "MASTER_PORT", "value": "23456"},
                    {"name": "MASTER_ADDR", "value": "job-master-0"},
                    {"name": "RANK", "value": str(rank)},
                ],
            }
        ]

    async def scenario(cluster: Cluster) -> None:
        for name in ("job-worker-0", "job-master-0"):
            await cluster.client.create(
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": {"name": name, "namespace": "default"},
                    "spec": {
                        "clusterIP": "None",
                        "selector": {"replica": name},
                        "ports": [{"name": "pytorchjob-port", "port": 23456}],
                    },
                }
            )
        await cluster.create("job-worker-0", containers=replica(1))
        await cluster.wait("job-worker-0", lambda pod: phase(pod) == "Running")

        master = await cluster.run("job-master-0", containers=replica(0))

        assert phase(master) == "Succeeded"
        assert await cluster.log("job-master-0") == "hello from rank 1\n"
        assert phase(await cluster.finish("job-worker-0")) == "Succeeded"

    play(tmp_path, scenario)


def test_host_port_is_taken_back_when_a_pod_is_gone(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        for _ in range(2):
            await cluster.create("web", containers=[server()])
            pod = await cluster.wait("web", lambda pod: phase(pod) == "Running")
            uid = pod["metadata"]["uid"]
            await cluster.client.delete(PODS, "web", namespace="default")
            await cluster.wait_until_gone("web")
            await wait_until(lambda: not (cluster.state / "pods" / uid).exists())  # noqa: B023

    play(tmp_path, scenario)
