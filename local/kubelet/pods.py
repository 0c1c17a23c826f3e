"""Lives one pod: prepares what it needs, runs its containers in order, and reports its status."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

from kubeloop.errors import ApiError, ConflictError, InputError, NotFoundError, TransientError
from kubeloop.local.api.resources import (
    CONFIG_MAPS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SECRETS,
    SERVICES,
    Resource,
)
from kubeloop.local.client import Manifest
from kubeloop.local.kubelet.containers import ContainerRunner, PodHooks
from kubeloop.local.kubelet.launch import PodContext, build_process_spec
from kubeloop.local.kubelet.network import (
    HOST_PORTS_ANNOTATION,
    ServiceAddress,
    Translation,
    assign_host_ports,
    locate_service,
)
from kubeloop.local.kubelet.node import Node
from kubeloop.local.kubelet.pod_files import COMPLETE_ANNOTATION, KEEP_VOLUMES_ANNOTATION
from kubeloop.local.kubelet.process import ProcessSpec
from kubeloop.local.kubelet.references import (
    MissingReferenceError,
    References,
    list_reference_names,
)
from kubeloop.local.kubelet.status import (
    PodFailure,
    PodRecords,
    Terminated,
    build_records,
    render_status,
)
from kubeloop.local.kubelet.volumes import prepare_volumes
from kubeloop.local.operators.conditions import parse_time

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 0.5
_DEADLINE_GRACE_SECONDS = 5.0


class PodRunner:
    """Runs one pod that is bound to this node, from where its status says it was left."""

    def __init__(self, pod: Manifest, *, node: Node) -> None:
        self.pod = pod
        self._node = node
        self._init = build_records(pod, field="initContainers")
        self._containers = build_records(pod, field="containers")
        status = pod.get("status") or {}
        started_at = status.get("startTime")
        self._started_at = (
            parse_time(started_at).timestamp() if started_at else node.clock().timestamp()
        )
        self._failure: PodFailure | None = None
        self._over = False
        self._active: list[ContainerRunner] = []
        self._stopping = asyncio.Event()
        self._grace_seconds: float | None = None
        self._dirty = asyncio.Event()
        self._published: Manifest | None = None
        self._volumes: dict[str, Path] = {}
        self._host_ports: dict[int, int] = {}

    @property
    def uid(self) -> str:
        """Of the pod."""
        return str(self.pod["metadata"]["uid"])

    @property
    def _default_grace(self) -> float:
        return float(self.pod["spec"].get("terminationGracePeriodSeconds", 30))

    @property
    def is_being_deleted(self) -> bool:
        """Whether the pod is to go."""
        return "deletionTimestamp" in self.pod["metadata"]

    def update(self, pod: Manifest) -> None:
        """Take notice of what others have changed."""
        self.pod["metadata"] = metadata = pod["metadata"]
        if self.is_being_deleted:
            self.stop(grace_seconds=float(metadata.get("deletionGracePeriodSeconds") or 0))
        elif COMPLETE_ANNOTATION in (metadata.get("annotations") or {}) and self._active:
            for runner in self._active:
                runner.stop(grace_seconds=self._default_grace, ends_well=True)

    async def run(self) -> None:
        """Until the pod is over; its last status has been written then."""
        was_running = any(
            isinstance(record.state, Terminated) and record.state.reason == "ContainerStatusUnknown"
            for record in self._containers
        )
        if was_running and self.pod["spec"]["restartPolicy"] == "Never":
            message = "The processes of the pod ended with the control plane that ran them"
            self._failure = PodFailure(reason="NodeLost", message=message)
        else:
            publisher = asyncio.create_task(self._publish_changes())
            deadline = asyncio.create_task(self._watch_deadline())
            try:
                await self._live()
            finally:
                for task in (publisher, deadline):
                    task.cancel()
                await asyncio.gather(publisher, deadline, return_exceptions=True)
        if not self._is_to_resume():
            self._over = True
        await self._publish()
        if self._over and self._failure is None:
            await self.remove_work_files()

    def stop(self, *, grace_seconds: float, failure: PodFailure | None = None) -> None:
        """End the containers and start no more; again: with less grace."""
        if self._grace_seconds is not None and grace_seconds >= self._grace_seconds:
            return
        self._grace_seconds = grace_seconds
        self._failure = self._failure or failure
        self._stopping.set()
        for runner in self._active:
            runner.stop(grace_seconds=grace_seconds)

    async def give_up(self, message: str) -> None:
        """Report the pod as failed, for a fault that is not the pod's."""
        self._failure = PodFailure(reason="PodRunnerError", message=message)
        self._over = True
        with contextlib.suppress(ApiError):
            await self._publish()

    async def remove_work_files(self) -> None:
        """Remove what the processes wrote for themselves; logs stay as long as the pod."""
        folders = self._node.work_folders(self.uid)
        doomed = [folders.work, folders.temporary]
        if KEEP_VOLUMES_ANNOTATION not in (self.pod["metadata"].get("annotations") or {}):
            doomed.append(self._node.volume_space(self.pod).pod)
        for folder in doomed:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _live(self) -> None:
        self._dirty.set()
        if not await self._prepare():
            return
        policy = self.pod["spec"]["restartPolicy"]
        for index, record in enumerate(self._init):
            if not record.has_succeeded:
                await self._run_containers("initContainers", index, policy=_init_policy(policy))
            if not record.has_succeeded:
                return
        await self._run_containers("containers", *range(len(self._containers)), policy=policy)

    async def _run_containers(self, field: str, *indices: int, policy: str) -> None:
        records = self._init if field == "initContainers" else self._containers
        hooks = PodHooks(
            pod=self.pod,
            grace_seconds=self._default_grace,
            build_spec=self._build_spec,
            host_ports=lambda: self._host_ports,
            changed=self._dirty.set,
        )
        self._active = [
            ContainerRunner(
                self.pod["spec"][field][index],
                record=records[index],
                policy=policy,
                node=self._node,
                pod=hooks,
            )
            for index in indices
        ]
        if self._stopping.is_set():
            return
        async with asyncio.TaskGroup() as group:
            for runner in self._active:
                group.create_task(runner.run())
        self._active = []

    async def _prepare(self) -> bool:
        """Make ports, folders and volumes; False if the pod is to stop before all is there."""
        folder = self._node.folder(self.uid)
        if folder.exists() and not any(r.has_run for r in (*self._init, *self._containers)):
            # What a control plane left that was killed before it could note that it had started.
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        while not self._stopping.is_set():
            try:
                self._host_ports = assign_host_ports(self.pod, self._node.ports)
                await self._annotate_ports()
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._node.work_folders(self.uid).create()
                self._volumes = prepare_volumes(
                    self.pod,
                    space=self._node.volume_space(self.pod),
                    references=await self._read_references(),
                    allocatable=self._node.resources.allocatable,
                )
            except (MissingReferenceError, InputError) as error:
                self._node.events.say(
                    self.pod, "FailedMount", f"MountVolume.SetUp failed: {error}", warning=True
                )
            except TransientError as error:
                logger.warning("pod is not prepared", extra={"uid": self.uid, "cause": error})
            else:
                return True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RETRY_SECONDS):
                    await self._stopping.wait()
        return False

    async def _annotate_ports(self) -> None:
        text = json.dumps({str(port): host_port for port, host_port in self._host_ports.items()})
        metadata = self.pod["metadata"]
        annotations = metadata.get("annotations") or {}
        if not self._host_ports or annotations.get(HOST_PORTS_ANNOTATION) == text:
            return
        await self._node.client.patch(
            PODS,
            metadata["name"],
            namespace=metadata["namespace"],
            body={"metadata": {"annotations": {HOST_PORTS_ANNOTATION: text}}},
        )

    async def _build_spec(self, container: Manifest, log: Path) -> ProcessSpec:
        context = PodContext(
            pod=self.pod,
            folders=self._node.work_folders(self.uid),
            shared_env=self._node.shared_env(),
            volumes=self._volumes,
            references=await self._read_references(),
            translation=Translation(
                own_ports=self._host_ports, services=await self._locate_services()
            ),
            allocatable=self._node.resources.allocatable,
            devices=self._node.resources.build_device_env(self.uid),
            requirement_sets=self._node.requirement_sets,
        )
        return build_process_spec(
            container, context=context, images=self._node.config.images, log=log
        )

    async def _locate_services(self) -> Mapping[str, ServiceAddress]:
        """Services of the pod's namespace, by every name."""
        namespace = self.pod["metadata"]["namespace"]
        services = await self._node.client.list(SERVICES, namespace=namespace)
        pods = self._node.list_pods(namespace) if services.items else []
        located: dict[str, ServiceAddress] = {}
        for service in services.items:
            address = locate_service(service, pods=pods, ports=self._node.ports)
            located |= dict.fromkeys(address.list_names(namespace=namespace), address)
        return located

    async def _read_references(self) -> References:
        names = list_reference_names(self.pod)
        return References(
            config_maps=await self._read_all(CONFIG_MAPS, names.config_maps),
            secrets=await self._read_all(SECRETS, names.secrets),
            claims=await self._read_all(PERSISTENT_VOLUME_CLAIMS, names.claims),
        )

    async def _read_all(self, resource: Resource, names: frozenset[str]) -> dict[str, Manifest]:
        found = {}
        for name in names:
            with contextlib.suppress(NotFoundError):
                found[name] = await self._node.client.get(
                    resource, name, namespace=self.pod["metadata"]["namespace"]
                )
        return found

    async def _watch_deadline(self) -> None:
        seconds = self.pod["spec"].get("activeDeadlineSeconds")
        if seconds is None:
            return
        passed = self._node.clock().timestamp() - self._started_at
        await asyncio.sleep(max(0.0, float(seconds) - passed))
        message = "Pod was active on the node longer than the specified deadline"
        self.stop(
            grace_seconds=_DEADLINE_GRACE_SECONDS,
            failure=PodFailure(reason="DeadlineExceeded", message=message),
        )

    def _is_to_resume(self) -> bool:
        """Whether a stop was only this machine's, and the pod goes on with the next start."""
        records = [*self._init, *self._containers]
        return (
            self._stopping.is_set()
            and self._failure is None
            and not self.is_being_deleted
            and not all(record.has_succeeded for record in records)
        )

    async def _publish_changes(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            await self._publish()

    async def _publish(self) -> None:
        """Write the status if it differs from the last that was written."""
        records = PodRecords(
            init=self._init,
            containers=self._containers,
            started_at=self._started_at,
            over=self._over,
            failure=self._failure if self._over else None,
        )
        status = render_status(records, pod=self.pod, now=self._node.clock())
        metadata = self.pod["metadata"]
        while status != self._published:
            try:
                written = await self._node.client.patch(
                    PODS,
                    metadata["name"],
                    namespace=metadata["namespace"],
                    body={"metadata": {"uid": self.uid}, "status": status},
                    subresource="status",
                )
            except (NotFoundError, ConflictError):
                return  # the pod is gone, or another has its name
            except TransientError as error:
                logger.warning("status is not written", extra={"uid": self.uid, "cause": error})
                await asyncio.sleep(error.retry_after_seconds)
            else:
                self._published = status
                self.pod["status"] = written["status"]


def _init_policy(policy: str) -> str:
    return "Never" if policy == "Never" else "OnFailure"
