"""An API server for tests: the real verbs, on storage in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from kubeloop.local.api.admission.base import Admission
from kubeloop.local.api.events import EventLogConfig
from kubeloop.local.api.logs import PodLogs
from kubeloop.local.api.memory import MemoryClient
from kubeloop.local.api.storage import ObjectStorage
from kubeloop.local.api.verbs import ApiServer, ensure_namespace

NAMESPACES = ("default", "kubeflow")
_LABELS = {"default": {"katib.kubeflow.org/metrics-collector-injection": "enabled"}}


@asynccontextmanager
async def memory_api(
    *,
    admissions: Iterable[Admission] | None = None,
    pods_dir: Path | None = None,
    log_config: EventLogConfig | None = None,
) -> AsyncIterator[MemoryClient]:
    """A client of a fresh API server with the namespaces default and kubeflow.

    Args:
        admissions: Hooks by kind; None takes the built-in ones.
        pods_dir: Where `read_log` finds logs, as `<uid>/logs/<container>/<restart count>.log`.
        log_config: How much history watchers can catch up on.
    """
    with ObjectStorage(log_config=log_config) as storage:
        api = ApiServer(storage, admissions=admissions)
        create_namespaces(api)
        yield MemoryClient(api, logs=PodLogs(pods_dir))


def create_namespaces(api: ApiServer) -> None:
    """Create the namespaces that a control plane starts with."""
    for namespace in NAMESPACES:
        ensure_namespace(api, namespace, labels=_LABELS.get(namespace))
