"""Asks a container how it is: over HTTP, by connecting, or by running a command."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from kubeloop.local.client import Manifest
from kubeloop.local.kubelet.network import LOOPBACK

_EAGER_SECONDS = 0.1
_MAX_HEAD_BYTES = 65536

RunCommand = Callable[[list[str], float], Awaitable[tuple[int, str]]]
"""Runs a command beside the container within some seconds; exit code and output."""


class ProbeKind(Enum):
    """What a probe decides; the values name its field in a container."""

    STARTUP = "startupProbe"
    READINESS = "readinessProbe"
    LIVENESS = "livenessProbe"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """One answer."""

    success: bool
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTarget:
    """Where a container can be asked."""

    container: Manifest
    host_ports: Mapping[int, int]
    run_command: RunCommand


async def watch_probe(
    probe: Manifest,
    target: ProbeTarget,
    *,
    on_success: Callable[[], None],
    on_failure: Callable[[str], None],
    until_success: bool,
) -> None:
    """Probe again and again, and tell when a threshold is reached.

    Until the first success it asks often, so that a container counts as started or ready as soon as
    it is; failures count once a period all the same. Ends by itself only with `until_success`.
    """
    loop = asyncio.get_running_loop()
    await asyncio.sleep(float(probe.get("initialDelaySeconds") or 0))
    period = float(probe.get("periodSeconds") or 10)
    num_successes = num_failures = 0
    has_succeeded = False
    next_count = loop.time() + period
    while True:
        result = await run_probe(probe, target)
        if result.success:
            num_successes, num_failures = num_successes + 1, 0
            if num_successes >= int(probe.get("successThreshold") or 1):
                has_succeeded = True
                on_success()
                if until_success:
                    return
        elif has_succeeded or loop.time() >= next_count:
            next_count = loop.time() + period
            num_successes, num_failures = 0, num_failures + 1
            if num_failures >= int(probe.get("failureThreshold") or 3):
                on_failure(result.message)
        await asyncio.sleep(period if has_succeeded else min(_EAGER_SECONDS, period))


async def run_probe(probe: Manifest, target: ProbeTarget) -> ProbeResult:
    """Ask once."""
    timeout = float(probe.get("timeoutSeconds") or 1)
    try:
        async with asyncio.timeout(timeout):
            if command := probe.get("exec"):
                code, output = await target.run_command(list(command["command"]), timeout)
                return ProbeResult(success=code == 0, message=output)
            if request := probe.get("httpGet"):
                return await _get(request, target)
            address = probe.get("tcpSocket") or probe["grpc"]
            _, writer = await asyncio.open_connection(
                address.get("host") or LOOPBACK, _find_port(address["port"], target)
            )
            writer.close()
            return ProbeResult(success=True)
    except TimeoutError:
        return ProbeResult(success=False, message=f"no answer within {timeout:g} s")
    except OSError as error:
        return ProbeResult(success=False, message=str(error))


async def _get(request: Manifest, target: ProbeTarget) -> ProbeResult:
    host = request.get("host") or LOOPBACK
    port = _find_port(request["port"], target)
    path = "/" + str(request.get("path") or "/").lstrip("/")
    headers = {"Host": f"{host}:{port}", "User-Agent": "kube-probe/kubeloop", "Accept": "*/*"}
    headers |= {entry["name"]: entry["value"] for entry in request.get("httpHeaders") or ()}
    lines = [f"GET {path} HTTP/1.1", *(f"{key}: {value}" for key, value in headers.items())]
    context = _trusting_context() if request.get("scheme") == "HTTPS" else None
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode())
        words = (await reader.readline())[:_MAX_HEAD_BYTES].split(maxsplit=2)
    finally:
        writer.close()
    if len(words) < 2 or not words[1].isdigit():
        return ProbeResult(success=False, message="the answer is no HTTP response")
    status = int(words[1])
    message = f"HTTP probe failed with statuscode: {status}"
    return ProbeResult(success=200 <= status < 400, message=message)


def _find_port(port: int | str, target: ProbeTarget) -> int:
    """The host port of a container port given by number or name."""
    for declared in target.container.get("ports") or ():
        if port in (declared.get("name"), declared["containerPort"]):
            port = declared["containerPort"]
    return target.host_ports.get(int(port), int(port))


def _trusting_context() -> ssl.SSLContext:
    """Kubernetes does not verify what a probe connects to."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
