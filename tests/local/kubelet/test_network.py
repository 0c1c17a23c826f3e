from __future__ import annotations

import socket
from typing import Any

import pytest

from kubeloop.errors import TransientError
from kubeloop.local.kubelet.network import (
    HostPorts,
    NetworkConfig,
    PodPort,
    ServiceAddress,
    Translation,
    assign_host_ports,
    locate_service,
)


def build_pod(name: str, *ports: dict[str, Any], **fields: Any) -> dict[str, Any]:  # JSON
    return {
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "ports": list(ports)}], **fields},
    }


def build_service(name: str, *ports: dict[str, Any], app: str = "") -> dict[str, Any]:  # JSON
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": app or name}, "ports": list(ports)},
    }


def build_translation(
    own_ports: dict[int, int] | None = None, **services: dict[int, int]
) -> Translation:
    found: dict[str, ServiceAddress] = {}
    for name, ports in services.items():
        located = locate_service(
            build_service(name.replace("_", "-"), *({"port": port} for port in ports)),
            pods=[],
            ports=_fixed(name.replace("_", "-"), ports),
        )
        found |= dict.fromkeys(located.list_names(namespace="default"), located)
    return Translation(own_ports=own_ports or {}, services=found)


def _fixed(pod: str, ports: dict[int, int]) -> HostPorts:
    host_ports = HostPorts(NetworkConfig())
    for port, host_port in ports.items():
        host_ports.record(PodPort(namespace="default", pod=pod, port=port), host_port)
    return host_ports


def test_host_port_depends_on_the_name_only() -> None:
    pod_port = PodPort(namespace="default", pod="web", port=8080)

    first, second = (HostPorts(NetworkConfig()).find(pod_port) for _ in range(2))

    assert first == second
    assert 20000 <= first <= 31999


def test_each_pod_port_has_a_host_port_of_its_own_until_it_is_released() -> None:
    ports = HostPorts(NetworkConfig(first_port=21000, last_port=21003))
    given = [ports.find(PodPort(namespace="default", pod=f"p{i}", port=80)) for i in range(4)]
    assert sorted(given) == [21000, 21001, 21002, 21003]
    extra = PodPort(namespace="default", pod="extra", port=80)
    with pytest.raises(TransientError, match="21000 to 21003"):
        ports.find(extra)

    ports.release(namespace="default", pod="p2")

    assert ports.find(extra) == given[2]


def test_port_that_another_program_listens_on_is_not_given() -> None:
    pod_port = PodPort(namespace="default", pod="web", port=8080)
    expected = HostPorts(NetworkConfig()).find(pod_port)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", expected))
        taken.listen()

        assert HostPorts(NetworkConfig()).find(pod_port) != expected


def test_host_port_that_the_spec_fixes_is_kept() -> None:
    pod = build_pod("web", {"containerPort": 8080, "hostPort": 9000}, {"containerPort": 8081})

    assigned = assign_host_ports(pod, HostPorts(NetworkConfig()))

    assert assigned[8080] == 9000
    assert assigned[8081] >= 20000
    on_host = build_pod("web", {"containerPort": 8080}, hostNetwork=True)
    assert assign_host_ports(on_host, HostPorts(NetworkConfig())) == {8080: 8080}


def test_service_leads_to_the_port_of_the_ready_pod_it_selects() -> None:
    ports = HostPorts(NetworkConfig())
    waiting = build_pod("a", {"containerPort": 8080, "name": "http"})
    ready = build_pod("b", {"containerPort": 8080, "name": "http"})
    ended = build_pod("c", {"containerPort": 8080, "name": "http"})
    for pod in (waiting, ready, ended):
        pod["metadata"]["labels"] = {"app": "web"}
    ready["status"] = {"conditions": [{"type": "Ready", "status": "True"}]}
    ended["status"] = {"phase": "Failed"}
    service = build_service("web", {"port": 80, "targetPort": "http"})

    located = locate_service(service, pods=[ended, waiting, ready], ports=ports)

    assert located.ports == {80: assign_host_ports(ready, ports)[8080]}


def test_service_without_a_pod_leads_where_the_pod_of_its_name_will_be() -> None:
    ports = HostPorts(NetworkConfig())
    located = locate_service(
        build_service("job-master-0", {"port": 23456, "name": "pytorchjob-port"}),
        pods=[],
        ports=ports,
    )

    master = build_pod("job-master-0", {"containerPort": 23456})

    assert located.ports == {23456: assign_host_ports(master, ports)[23456]}


@pytest.mark.parametrize(
    ("text", "translated"),
    [
        ("8080", "20001"),
        ("--http_port=8080", "--http_port=20001"),
        ("0.0.0.0:8080", "0.0.0.0:20001"),
        ("--bind=127.0.0.1:8080", "--bind=127.0.0.1:20001"),
        ("--batch-size=80801", "--batch-size=80801"),
        ("8080 images", "8080 images"),
        ("x8080", "x8080"),
        ("", ""),
    ],
)
def test_own_ports_are_translated_where_a_text_ends_in_one(text: str, translated: str) -> None:
    translation = build_translation({8080: 20001})

    assert translation.translate_words([text]) == [translated]
    assert translation.translate_env({"X": text}) == {"X": translated}


@pytest.mark.parametrize(
    ("text", "translated"),
    [
        ("web:9000", "127.0.0.1:20009"),
        ("web.default:9000", "127.0.0.1:20009"),
        ("web.default.svc:9000", "127.0.0.1:20009"),
        ("--address=web.default.svc.cluster.local:80", "--address=127.0.0.1:20080"),
        ("http://web", "http://127.0.0.1:20080"),
        ("http://web/v1/models?x=1", "http://127.0.0.1:20080/v1/models?x=1"),
        ("see http://web:9000/x and web:80", "see http://127.0.0.1:20009/x and 127.0.0.1:20080"),
        ("web.default", "127.0.0.1:20080"),
        ("web:1234", "web:1234"),
        ("web", "web"),
        ("my-web:9000", "my-web:9000"),
        ("web.example.com:9000", "web.example.com:9000"),
        ("/folder/web:9000", "/folder/web:9000"),
        ("webs:9000", "webs:9000"),
    ],
)
def test_services_are_translated_where_a_text_names_one(text: str, translated: str) -> None:
    translation = build_translation(web={80: 20080, 9000: 20009})

    assert translation.translate_words([text]) == [translated]


def test_address_and_port_variables_are_translated_together() -> None:
    translation = build_translation({23456: 20002}, job_master_0={23456: 20001})

    env = translation.translate_env(
        {
            "MASTER_ADDR": "job-master-0",
            "MASTER_PORT": "23456",
            "PET_MASTER_ADDR": "job-master-0",
            "PET_MASTER_PORT": "23456",
            "PET_RDZV_ENDPOINT": "job-master-0:23456",
            "LISTEN": "23456",
            "WORLD_SIZE": "2",
        }
    )

    assert env == {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "20001",
        "PET_MASTER_ADDR": "127.0.0.1",
        "PET_MASTER_PORT": "20001",
        "PET_RDZV_ENDPOINT": "127.0.0.1:20001",
        "LISTEN": "20002",
        "WORLD_SIZE": "2",
    }
