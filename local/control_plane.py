"""Composes the parts of the embedded control plane and owns their lives.

Everything runs in one event loop. On the way down the pod runner goes before the API, so that the
end of every pod is recorded. A part that fails ends the process: half a control plane would lie.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from kubeloop import __version__
from kubeloop.errors import AlreadyExistsError
from kubeloop.local.api.certificates import prepare_certificate
from kubeloop.local.api.logs import PodLogs
from kubeloop.local.api.memory import MemoryClient
from kubeloop.local.api.proxy import ServiceProxies
from kubeloop.local.api.resources import find_by_kind
from kubeloop.local.api.server import build_app
from kubeloop.local.api.storage import ObjectStorage
from kubeloop.local.api.verbs import ApiServer, ensure_namespace
from kubeloop.local.client import Client, Manifest
from kubeloop.local.gateway import Gateway
from kubeloop.local.grpc_front import bind_front, build_proxy_env, name_service, serve_front
from kubeloop.local.kubelet.kubelet import Kubelet, KubeletConfig
from kubeloop.local.kubelet.pod_files import PodFiles
from kubeloop.local.operators.controller import Controller, Reconciler
from kubeloop.local.operators.deployment import DeploymentReconciler
from kubeloop.local.operators.inferenceservice import InferenceServiceReconciler
from kubeloop.local.operators.job import JobReconciler
from kubeloop.local.operators.katib.collecting import MetricsCollector
from kubeloop.local.operators.katib.db_manager import DbManager
from kubeloop.local.operators.katib.experiment import ExperimentReconciler
from kubeloop.local.operators.katib.observations import ObservationStore
from kubeloop.local.operators.katib.suggestion import SuggestionReconciler
from kubeloop.local.operators.katib.trial import TrialReconciler
from kubeloop.local.operators.pytorchjob import PyTorchJobReconciler
from kubeloop.local.pipelines.api import Pipelines, PipelinesConfig
from kubeloop.local.serving import bind, serve, url_of
from kubeloop.local.state import Endpoints, StateFolder

logger = logging.getLogger(__name__)

METRICS_LABEL = {"katib.kubeflow.org/metrics-collector-injection": "enabled"}
KFP_SERVICE = ("kubeflow", "ml-pipeline")
DB_MANAGER = ("katib-db-manager", "kubeflow", 6789)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlaneConfig:
    """What runs where."""

    state: StateFolder
    """Folder of everything that is kept."""
    api_port: int = 0
    """Port of the Kubernetes API on loopback; 0: any free one."""
    kfp_port: int = 0
    """Port of the KFP API; 0: any free one."""
    gateway_port: int = 0
    """Port of the endpoints' gateway; 0: any free one."""
    namespace: str = "default"
    """Namespace of pipelines and of the kubeconfig's context."""
    bootstrap_manifests: tuple[Manifest, ...] = field(default=())
    """Objects that are there from the start; those that exist are replaced."""
    kubelet: KubeletConfig = field(default_factory=KubeletConfig)
    """How pods run."""


async def run_until_signal(config: ControlPlaneConfig) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        KubeloopError: It could not start; the message says why.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end(number: signal.Signals) -> None:
        logger.info("control plane stops: %s", number.name)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end, number)
    async with control_plane(config):
        await stop.wait()
    logger.info("control plane has stopped")


@asynccontextmanager
async def control_plane(config: ControlPlaneConfig) -> AsyncIterator[Endpoints]:
    """Run a control plane until the block is left.

    Raises:
        AlreadyRunningError: One runs on the state folder.
        PermanentError: A port is taken, or the state folder was deleted.
    """
    state = config.state
    state.prepare()
    logger.info("control plane starts on %s", state.root)
    async with AsyncExitStack() as stack:
        lock = stack.enter_context(state.lock())
        state.retract()
        sockets = _bind_all(config, stack)
        endpoints = _describe(config, sockets)
        certificate = prepare_certificate(state.certificates)

        storage = stack.enter_context(ObjectStorage(state.objects))
        api, logs = ApiServer(storage), PodLogs(state.pods)
        client = MemoryClient(api, logs=logs)
        proxies = await stack.enter_async_context(ServiceProxies())
        app = build_app(api, token=endpoints.token, logs=logs, proxies=proxies)
        await stack.enter_async_context(serve(app, sockets.api, certificate=certificate))
        stack.callback(api.close)  # ends watches before the server waits for its connections
        await _bootstrap(api, client, config)
        logger.info("Kubernetes API answers at %s", endpoints.api_url)

        gateway = Gateway(client)
        await stack.enter_async_context(serve(gateway, sockets.gateway))
        observations = stack.enter_context(ObservationStore(state.metrics))
        files = PodFiles(state.root)
        collector = stack.enter_context(MetricsCollector(client, store=observations, files=files))
        reconcilers = [
            *_build_reconcilers(client, gateway_url=endpoints.gateway_url),
            SuggestionReconciler(
                client,
                observations=observations,
                files=files,
                db_manager_address=endpoints.db_manager_address,
            ),
            TrialReconciler(client, observations=observations, collector=collector),
        ]
        pipelines = Pipelines(client, _configure_pipelines(config, endpoints))
        proxies.register(*KFP_SERVICE, target=pipelines.app)
        await stack.enter_async_context(serve(pipelines.app, sockets.kfp))

        manager = await stack.enter_async_context(DbManager(observations))
        services = dict.fromkeys(name_service(*DB_MANAGER), manager.locate)
        front = serve_front(sockets.grpc, default=manager.locate, services=services)
        await stack.enter_async_context(front)

        pods = replace(config.kubelet, env=build_proxy_env(endpoints.db_manager_address))
        kubelet = Kubelet(client, state=state.root, config=pods)
        await stack.enter_async_context(kubelet)
        logger.info("pods can run")
        loops = [
            state.watch(lock),
            gateway.run(),
            *(Controller(client, each).run() for each in reconcilers),
        ]
        await stack.enter_async_context(_running(loops))
        await stack.enter_async_context(pipelines)
        stack.callback(state.retract)
        state.publish(endpoints, authority=certificate.authority)
        logger.info("KFP API answers at %s", endpoints.kfp_url)
        yield endpoints


def _build_reconcilers(client: Client, *, gateway_url: str) -> list[Reconciler]:
    return [
        JobReconciler(client),
        DeploymentReconciler(client),
        PyTorchJobReconciler(client),
        ExperimentReconciler(client),
        InferenceServiceReconciler(client, gateway_url=gateway_url),
    ]


def _configure_pipelines(config: ControlPlaneConfig, endpoints: Endpoints) -> PipelinesConfig:
    return PipelinesConfig(
        pipeline_root=config.state.artifacts,
        store_path=config.state.pipelines,
        namespace=config.namespace,
        token=endpoints.token,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sockets:
    api: socket.socket
    kfp: socket.socket
    gateway: socket.socket
    grpc: socket.socket


def _bind_all(config: ControlPlaneConfig, stack: AsyncExitStack) -> _Sockets:
    """Take all ports before anything starts."""
    sockets = {}
    for field_name, port, what, option in (
        ("api", config.api_port, "Kubernetes API", "--api-port"),
        ("kfp", config.kfp_port, "KFP API", "--kfp-port"),
        ("gateway", config.gateway_port, "gateway", "--gateway-port"),
    ):
        sockets[field_name] = bind(port, what=what, option=option)
        stack.callback(sockets[field_name].close)
    sockets["grpc"] = bind_front()
    stack.callback(sockets["grpc"].close)
    return _Sockets(**sockets)


def _describe(config: ControlPlaneConfig, sockets: _Sockets) -> Endpoints:
    return Endpoints(
        pid=os.getpid(),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
        api_url=url_of(sockets.api, scheme="https"),
        kfp_url=url_of(sockets.kfp),
        gateway_url=url_of(sockets.gateway),
        db_manager_address=url_of(sockets.grpc).removeprefix("http://"),
        namespace=config.namespace,
        token=config.state.read_token(),
    )


async def _bootstrap(api: ApiServer, client: Client, config: ControlPlaneConfig) -> None:
    """Make the namespaces and the objects that are there from the start."""
    ensure_namespace(api, config.namespace, labels=METRICS_LABEL)
    ensure_namespace(api, KFP_SERVICE[0], labels=METRICS_LABEL)  # as Katib's own manifests do
    for manifest in config.bootstrap_manifests:
        try:
            await client.create(manifest)
        except AlreadyExistsError:
            resource = find_by_kind(manifest["apiVersion"], manifest["kind"])
            assert resource is not None
            await client.patch(
                resource,
                manifest["metadata"]["name"],
                namespace=manifest["metadata"].get("namespace"),
                body=manifest,
            )


@asynccontextmanager
async def _running(loops: Sequence[Coroutine[None, None, None]]) -> AsyncIterator[None]:
    """Run endless loops beside the block; one that fails ends the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(loop) for loop in loops]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
