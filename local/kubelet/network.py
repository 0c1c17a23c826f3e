"""Lets pods that all live on one host believe in addresses of their own.

Two pods may both listen on port 8080, and find each other by the names of Services; on the host
there is one 8080 and no such name. So each port that a pod declares gets a port of the host, and
what a process is told (environment and arguments) is translated: its own ports, and the names and
ports of Services. Objects in the API stay as upstream writes them.
"""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from kubeloop.errors import TransientError
from kubeloop.local.client import Manifest

LOOPBACK = "127.0.0.1"
HOST_PORTS_ANNOTATION = "kubeloop.dev/host-ports"
_HOST_SUFFIXES = ("_ADDR", "_HOST", "_ADDRESS", "_HOSTNAME")
_SCHEME_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443, "grpc": 80}


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """Where host ports come from."""

    first_port: int = 20000
    """Lowest port given to pods; the range must lie outside the system's ephemeral ports, or
    outgoing connections would now and then sit on a pod's port."""
    last_port: int = 31999
    """Highest port given to pods."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodPort:
    """A port of a pod: what a host port is given for."""

    namespace: str
    pod: str
    port: int


class HostPorts:
    """Hands out host ports, the same one for the same pod port as long as that is possible."""

    def __init__(self, config: NetworkConfig) -> None:
        self._config = config
        self._given: dict[PodPort, int] = {}
        self._taken: set[int] = set()

    def find(self, pod_port: PodPort) -> int:
        """The host port of `pod_port`, which need not exist yet.

        Raises:
            TransientError: All ports are taken.
        """
        if (given := self._given.get(pod_port)) is not None:
            return given
        for port in self._candidates(pod_port):
            if port not in self._taken and _is_free(port):
                self.record(pod_port, port)
                return port
        raise TransientError(
            f"All ports from {self._config.first_port} to {self._config.last_port} are taken"
        )

    def record(self, pod_port: PodPort, host_port: int) -> None:
        """Note that a pod port has a host port already, from before a restart."""
        self._given[pod_port] = host_port
        self._taken.add(host_port)

    def release(self, *, namespace: str, pod: str) -> None:
        """Take back the ports of a pod that is gone."""
        for pod_port in [p for p in self._given if (p.namespace, p.pod) == (namespace, pod)]:
            self._taken.discard(self._given.pop(pod_port))

    def _candidates(self, pod_port: PodPort) -> Iterator[int]:
        """Every port once, from one that depends on the name only."""
        first, last = self._config.first_port, self._config.last_port
        key = f"{pod_port.namespace}/{pod_port.pod}:{pod_port.port}".encode()
        start = int.from_bytes(hashlib.sha256(key).digest()[:4], "big") % (last - first + 1)
        yield from range(first + start, last + 1)
        yield from range(first, first + start)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAddress:
    """Where a Service is on the host."""

    name: str
    namespace: str
    ports: Mapping[int, int]
    """Port of the Service to host port."""

    def list_names(self, *, namespace: str) -> list[str]:
        """Names by which a pod in `namespace` may call it."""
        qualified = f"{self.name}.{self.namespace}"
        names = [qualified, f"{qualified}.svc", f"{qualified}.svc.cluster.local"]
        return [self.name, *names] if namespace == self.namespace else names


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """How to tell one pod about the network."""

    own_ports: Mapping[int, int]
    """Declared container port to host port."""
    services: Mapping[str, ServiceAddress]
    """By every name that the pod may use."""

    def translate_env(self, env: Mapping[str, str]) -> dict[str, str]:
        """Translate values; pairs such as MASTER_ADDR and MASTER_PORT go together."""
        pairs = dict(self._translate_pairs(env))
        return {
            name: pairs[name] if name in pairs else self._translate(value)
            for name, value in env.items()
        }

    def translate_words(self, words: Sequence[str]) -> list[str]:
        """Translate a command's words."""
        return [self._translate(word) for word in words]

    def _translate_pairs(self, env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        for name, value in env.items():
            suffix = next((suffix for suffix in _HOST_SUFFIXES if name.endswith(suffix)), None)
            service = self.services.get(value)
            if suffix is None or service is None:
                continue
            yield name, LOOPBACK
            port_name = f"{name.removesuffix(suffix)}_PORT"
            port = env.get(port_name, "")
            if port.isdecimal() and int(port) in service.ports:
                yield port_name, str(service.ports[int(port)])

    def _translate(self, text: str) -> str:
        return self._translate_own_port(self._translate_services(text))

    def _translate_own_port(self, text: str) -> str:
        found = re.fullmatch(r"(.*[=:])?(\d+)", text, re.DOTALL)
        if found is None or int(found[2]) not in self.own_ports:
            return text
        return f"{found[1] or ''}{self.own_ports[int(found[2])]}"

    def _translate_services(self, text: str) -> str:
        if not any(name in text for name in self.services):
            return text
        names = "|".join(re.escape(name) for name in sorted(self.services, key=len, reverse=True))
        pattern = rf"((?:\b([a-z]+)://)|(?<![\w./-]))({names})(?::(\d+))?(?![\w.-]|:\d)"
        return re.sub(pattern, self._address, text)

    def _address(self, found: re.Match[str]) -> str:
        prefix, scheme, name, port = found.groups()
        ports = self.services[name].ports
        if port is not None:
            host_port = ports.get(int(port))
        elif scheme:
            host_port = ports.get(_SCHEME_PORTS.get(scheme, 80), _only(ports))
        else:  # a bare word is taken for a name only if it is a qualified one
            host_port = ports.get(80, _only(ports)) if "." in name else None
        return found[0] if host_port is None else f"{prefix}{LOOPBACK}:{host_port}"


def list_declared_ports(pod: Manifest) -> dict[int, int | None]:
    """Declared ports of a pod's containers, each with the host port its spec fixes, if any."""
    spec = pod["spec"]
    containers = [*(spec.get("initContainers") or ()), *spec["containers"]]
    declared: dict[int, int | None] = {}
    for container in containers:
        for port in container.get("ports") or ():
            number = int(port["containerPort"])
            declared[number] = number if spec.get("hostNetwork") else port.get("hostPort")
    return declared


def assign_host_ports(pod: Manifest, ports: HostPorts) -> dict[int, int]:
    """Host ports of all that a pod declares."""
    metadata = pod["metadata"]
    return {
        number: fixed
        or ports.find(PodPort(namespace=metadata["namespace"], pod=metadata["name"], port=number))
        for number, fixed in list_declared_ports(pod).items()
    }


def locate_service(
    service: Manifest, *, pods: Sequence[Manifest], ports: HostPorts
) -> ServiceAddress:
    """Where a Service's ports are on the host.

    The first ready pod that it selects is meant, or the first. When there is none yet, it is taken
    to be a pod of the Service's own name, as the Training Operator names them.
    """
    metadata, spec = service["metadata"], service.get("spec") or {}
    namespace = metadata["namespace"]
    target = _choose_pod(spec.get("selector") or {}, pods)
    located = {}
    for entry in spec.get("ports") or ():
        wanted = entry.get("targetPort", entry["port"])
        number = _resolve_port(wanted, target) if target else _as_number(wanted, entry["port"])
        fixed = list_declared_ports(target).get(number) if target else None
        pod_name = target["metadata"]["name"] if target else metadata["name"]
        located[int(entry["port"])] = fixed or ports.find(
            PodPort(namespace=namespace, pod=pod_name, port=number)
        )
    return ServiceAddress(name=metadata["name"], namespace=namespace, ports=located)


def _choose_pod(selector: Mapping[str, str], pods: Sequence[Manifest]) -> Manifest | None:
    if not selector:
        return None
    chosen = [
        pod
        for pod in pods
        if selector.items() <= (pod["metadata"].get("labels") or {}).items()
        and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
    ]
    return next((pod for pod in chosen if _is_ready(pod)), chosen[0] if chosen else None)


def _is_ready(pod: Manifest) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _resolve_port(wanted: int | str, pod: Manifest) -> int:
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or ():
            if port.get("name") == wanted:
                return int(port["containerPort"])
    return _as_number(wanted, 0)


def _as_number(wanted: int | str, fallback: int) -> int:
    return int(wanted) if str(wanted).isdecimal() else int(fallback)


def _only(ports: Mapping[int, int]) -> int | None:
    return next(iter(ports.values())) if len(ports) == 1 else None


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as probe:
        # As servers do, so that connections that a former one left in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
