"""Which reader a cluster needs: decided by what it answers.

KFP after 2.17 serves its record itself, through the Kubernetes API server's proxy as everything
else. Up to 2.17 it is in ML Metadata, which speaks gRPC only, and that no proxy passes on: it is
reached by a port-forward, or at an address that the user gives.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

from kubeloop.errors import PermanentError, TransientError
from kubeloop.pipelines.metadata.native import NativeMetadata
from kubeloop.pipelines.metadata.source import MetadataSource

_NAMESPACE = "kubeflow"
_SERVICE = "service/metadata-grpc-service"
_PORT = 8080
_FORWARDED = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")
_START_SECONDS = 30.0
_STOP_SECONDS = 5.0


def connect_cluster(
    kubernetes: Any, *, context: str, namespace: str = "", metadata_address: str = ""
) -> MetadataSource:
    """Connect to the record of a cluster's KFP.

    Args:
        kubernetes: A `kubernetes.client.ApiClient` of the cluster, which has no types.
        context: Its kubeconfig context, for the port-forward.
        namespace: Where artifacts are searched; a multi-user KFP needs one.
        metadata_address: `HOST:PORT` of ML Metadata; empty: a port-forward where it is needed.

    Raises:
        TransientError: The cluster does not answer.
        PermanentError: ML Metadata is needed, and no port-forward can be had.
        MissingDependencyError: ML Metadata is needed, and grpcio is not installed.
    """
    with contextlib.ExitStack() as stack:
        native = NativeMetadata.through_api_server(kubernetes, namespace=namespace)
        stack.callback(native.close)
        if not metadata_address and native.is_served():
            stack.pop_all()
            return native
        from kubeloop.pipelines.metadata.mlmd import MlmdMetadata

        address = metadata_address or stack.enter_context(forwarded_port(context))
        return MlmdMetadata(address, runs=native, owned=stack.pop_all())


@contextlib.contextmanager
def forwarded_port(context: str, *, kubectl: str = "kubectl") -> Iterator[str]:
    """Forward a local port to a cluster's ML Metadata service for the time of the context.

    Raises:
        PermanentError: kubectl is missing or refuses.
        TransientError: It does not begin in time.
    """
    program = shutil.which(kubectl)
    if program is None:
        msg = (
            f"The cluster {context!r} keeps KFP's record in ML Metadata, which is reached by a"
            f" port-forward, and there is no {kubectl}: install it, or forward the port yourself"
            f" and give --metadata-address."
        )
        raise PermanentError(msg)
    command = [program, "port-forward", _SERVICE, f":{_PORT}", "-n", _NAMESPACE]
    process = subprocess.Popen(  # noqa: S603  # no shell, own arguments
        [*command, "--context", context, "--address", "127.0.0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    timer = threading.Timer(_START_SECONDS, process.kill)
    timer.start()
    try:
        yield f"127.0.0.1:{_read_port(process, context, timer)}"
    finally:
        timer.cancel()
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _read_port(process: subprocess.Popen[str], context: str, timer: threading.Timer) -> str:
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        found = _FORWARDED.search(line)
        if found is not None:
            timer.cancel()
            return found[1]
        said = line.strip() or said
    if not timer.is_alive():
        msg = f"Failed to forward a port to {_SERVICE} of {context!r}: it took too long."
        raise TransientError(msg)
    msg = f"Failed to forward a port to {_SERVICE} in {_NAMESPACE} of {context!r}: {said}"
    raise PermanentError(msg)
