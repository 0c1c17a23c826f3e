"""The pod runner: binds pods to this machine, runs them as processes, and reports on them.

It is a kubelet and a scheduler for one node, and talks to the control plane through `Client` alone.
What it knows of pods it learns from one watch; what it did it writes into their status. Processes
never outlive it, so a pod that was running when it started again has lost its processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import shutil
from collections.abc import Coroutine
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Self

from kubeloop.errors import AlreadyExistsError, ApiError, TransientError
from kubeloop.local.api.resources import NODES, PODS
from kubeloop.local.client import Client, EventType, Manifest
from kubeloop.local.kubelet.environment import build_shared_env
from kubeloop.local.kubelet.network import HOST_PORTS_ANNOTATION, HostPorts, PodPort
from kubeloop.local.kubelet.node import (
    SHUTDOWN_GRACE_ANNOTATION,
    EventQueue,
    KubeletConfig,
    Node,
    build_node,
)
from kubeloop.local.kubelet.pods import PodRunner
from kubeloop.local.kubelet.process import ProcessRunner
from kubeloop.local.kubelet.requirement_sets import RequirementSets
from kubeloop.local.kubelet.scheduling import NodeResources
from kubeloop.local.kubelet.status import PodFailure, render_unschedulable
from kubeloop.local.kubelet.temporary import TemporaryFolders
from kubeloop.local.operators.conditions import Clock, utc_now

logger = logging.getLogger(__name__)

__all__ = ["Kubelet", "KubeletConfig"]

_RETRY_SECONDS = 0.1
_TERMINAL = ("Succeeded", "Failed")
_SHUTDOWN = PodFailure(
    reason="Terminated",
    message="Pod was terminated in response to imminent node shutdown.",
)


class Kubelet:
    """Runs the pods of one machine."""

    def __init__(
        self,
        client: Client,
        *,
        state: Path,
        config: KubeletConfig | None = None,
        kubeconfig: Path | None = None,
        clock: Clock = utc_now,
    ) -> None:
        """Args:
        client: The control plane.
        state: Folder that holds `pods/<uid>/` and `claims/`; pods' KUBECONFIG too, unless given.
        config: How pods run.
        """
        config = config or KubeletConfig()
        kubeconfig = kubeconfig or state / "kubeconfig"
        env = {**build_shared_env(kubeconfig=kubeconfig), **config.env}
        self.processes = ProcessRunner(config.warm, env=env)
        self._events = EventQueue(client)
        self._node = Node(
            client=client,
            config=config,
            state=state,
            kubeconfig=kubeconfig,
            processes=self.processes,
            resources=NodeResources(config.node),
            ports=HostPorts(config.network),
            events=self._events,
            temporary=TemporaryFolders(state),
            requirement_sets=RequirementSets(
                state / "requirement-sets", config=config.requirement_sets
            ),
            list_pods=self._list_pods,
            clock=clock,
        )
        self._client = client
        self._pods: dict[str, Manifest] = {}
        self._pending: dict[str, str] = {}
        self._runners: dict[str, PodRunner] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._burials: set[asyncio.Task[None]] = set()
        self._to_schedule = asyncio.Event()
        self._group = asyncio.TaskGroup()
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Run in the background; should that fail, the block is cancelled and the error raised."""
        await self._group.__aenter__()
        self._running = self._group.create_task(self.run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._running is not None
        self._running.cancel()
        if isinstance(error, asyncio.CancelledError):  # perhaps because `run` has failed
            await self._group.__aexit__(kind, error, trace)
        else:
            await self._group.__aexit__(None, None, None)

    async def run(self) -> None:
        """Run pods until cancelled, then end them and write down how they ended."""
        self._node.state.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(self._node.requirement_sets.prune)
        with self._node.temporary:
            await self._run()

    async def _run(self) -> None:
        async with self.processes:
            writer = asyncio.create_task(self._events.run())
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._schedule())
                    group.create_task(self._watch())
            finally:
                await self._shut_down()
                await self._events.drain()
                writer.cancel()

    async def _watch(self) -> None:
        await self._register_node()
        while True:
            try:
                listed = await self._client.list(PODS)
                for uid in self._pods.keys() - {pod["metadata"]["uid"] for pod in listed.items}:
                    self._lose(self._pods[uid])
                for pod in listed.items:
                    self._note_ports(pod)
                for pod in listed.items:
                    self._see(pod)
                await self._remove_old_folders()
                watch = self._client.watch(PODS, resource_version=listed.resource_version)
                async with aclosing(watch) as events:  # type: ignore[type-var]  # an async generator
                    async for event in events:
                        if event.type is EventType.DELETED:
                            self._lose(event.object)
                        elif event.type in (EventType.ADDED, EventType.MODIFIED):
                            self._see(event.object)
            except (ApiError, TransientError) as error:
                logger.warning("watch interrupted", extra={"kind": "Pod", "cause": error})
                await asyncio.sleep(_RETRY_SECONDS)

    def _see(self, pod: Manifest) -> None:
        """Take notice of a pod that is there; what to do follows from its state alone."""
        uid = pod["metadata"]["uid"]
        self._pods[uid] = pod
        if runner := self._runners.get(uid):
            runner.update(pod)
            if uid not in self._tasks and runner.is_being_deleted:
                self._keep(uid, self._delete(pod))
            return
        node_name = pod["spec"].get("nodeName")
        is_ours = node_name == self._node.config.node.name
        if (pod.get("status") or {}).get("phase") in _TERMINAL:
            # NB: it ended before this start, so that no runner is left to let it go.
            if is_ours and "deletionTimestamp" in pod["metadata"] and uid not in self._tasks:
                self._keep(uid, self._delete(pod))
            return
        if is_ours:
            self._node.resources.force(pod)
            self._start(pod)
        elif not node_name and not pod["spec"].get("schedulingGates"):
            self._pending.setdefault(uid, "")
            self._to_schedule.set()

    def _lose(self, pod: Manifest) -> None:
        """Clean up after a pod that is gone from the API."""
        uid = pod["metadata"]["uid"]
        self._pods.pop(uid, None)
        self._pending.pop(uid, None)
        runner = self._runners.pop(uid, None)
        if runner is not None:
            runner.stop(grace_seconds=0)
        burial = asyncio.create_task(self._bury(pod))
        self._burials.add(burial)
        burial.add_done_callback(self._burials.discard)

    def _start(self, pod: Manifest) -> None:
        uid = pod["metadata"]["uid"]
        runner = self._runners[uid] = PodRunner(pod, node=self._node)
        runner.update(pod)
        self._keep(uid, self._run_pod(runner))

    def _keep(self, uid: str, work: Coroutine[None, None, None]) -> None:
        task = self._tasks[uid] = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._tasks.pop(uid, None))

    async def _run_pod(self, runner: PodRunner) -> None:
        try:
            await runner.run()
        except Exception as error:  # one pod must not stop the others
            logger.exception("pod runner failed", extra={"uid": runner.uid})
            await runner.give_up(f"{type(error).__name__}: {error}")
        finally:
            self._node.resources.release(runner.uid)
            self._to_schedule.set()
        if runner.is_being_deleted:
            await self._delete(runner.pod)

    async def _delete(self, pod: Manifest) -> None:
        """Let a pod go that has been stopped."""
        metadata = pod["metadata"]
        while True:
            try:
                await self._client.delete(
                    PODS,
                    metadata["name"],
                    namespace=metadata["namespace"],
                    grace_period_seconds=0,
                    uid=metadata["uid"],
                )
            except TransientError as error:
                await asyncio.sleep(error.retry_after_seconds)
            except ApiError:  # it is gone, or another has its name
                return
            else:
                return

    async def _bury(self, pod: Manifest) -> None:
        metadata = pod["metadata"]
        uid, name, namespace = metadata["uid"], metadata["name"], metadata["namespace"]
        if (task := self._tasks.get(uid)) is not None:
            await asyncio.wait([task])
        namesakes = (other["metadata"] for other in self._list_pods(namespace))
        if not any(other["name"] == name for other in namesakes):
            self._node.ports.release(namespace=namespace, pod=name)
        await self._remove_files(uid)

    async def _remove_files(self, uid: str) -> None:
        for folder in (self._node.folder(uid), self._node.work_folders(uid).temporary):
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _schedule(self) -> None:
        """Bind waiting pods, the oldest first; one that does not fit lets others pass."""
        while True:
            await self._to_schedule.wait()
            self._to_schedule.clear()
            for uid in list(self._pending):
                pod = self._pods.get(uid)
                if pod is None or "deletionTimestamp" in pod["metadata"]:
                    continue
                problem = self._node.resources.place(pod)
                if problem:
                    await self._report_unschedulable(pod, problem)
                else:
                    await self._bind(pod)

    async def _bind(self, pod: Manifest) -> None:
        metadata, node_name = pod["metadata"], self._node.config.node.name
        try:
            bound = await self._client.patch(
                PODS,
                metadata["name"],
                namespace=metadata["namespace"],
                body={"metadata": {"uid": metadata["uid"]}, "spec": {"nodeName": node_name}},
            )
        except TransientError:
            self._node.resources.release(metadata["uid"])
            asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._to_schedule.set)
            return
        except ApiError:  # it is gone, or another has its name
            self._node.resources.release(metadata["uid"])
            self._pending.pop(metadata["uid"], None)
            return
        self._pending.pop(metadata["uid"], None)
        message = f"Successfully assigned {metadata['namespace']}/{metadata['name']} to {node_name}"
        self._events.say(bound, "Scheduled", message, component="default-scheduler")
        if metadata["uid"] in self._pods and metadata["uid"] not in self._runners:
            self._start(bound)

    async def _report_unschedulable(self, pod: Manifest, problem: str) -> None:
        metadata = pod["metadata"]
        if self._pending.get(metadata["uid"]) == problem:
            return
        self._pending[metadata["uid"]] = problem
        self._events.say(
            pod, "FailedScheduling", problem, warning=True, component="default-scheduler"
        )
        status = render_unschedulable(pod, message=problem, now=self._node.clock())
        with contextlib.suppress(ApiError, TransientError):
            await self._client.patch(
                PODS,
                metadata["name"],
                namespace=metadata["namespace"],
                body={"metadata": {"uid": metadata["uid"]}, "status": status},
                subresource="status",
            )

    async def _register_node(self) -> None:
        node = build_node(self._node.config.node, self._node.resources, now=self._node.clock())
        with contextlib.suppress(AlreadyExistsError):
            await self._client.create(node)
        name, status = node["metadata"]["name"], {"status": node["status"]}
        await self._client.patch(NODES, name, body=status, subresource="status")

    def _note_ports(self, pod: Manifest) -> None:
        """Keep the host ports that a pod was given before a restart."""
        metadata = pod["metadata"]
        text = (metadata.get("annotations") or {}).get(HOST_PORTS_ANNOTATION)
        if text and (pod.get("status") or {}).get("phase") not in _TERMINAL:
            for port, host_port in json.loads(text).items():
                pod_port = PodPort(
                    namespace=metadata["namespace"], pod=metadata["name"], port=int(port)
                )
                self._node.ports.record(pod_port, int(host_port))

    async def _remove_old_folders(self) -> None:
        """Remove what pods left that went while nobody looked."""
        folder = self._node.state / "pods"
        if folder.is_dir():
            for path in folder.iterdir():
                if path.name not in self._pods:
                    await self._remove_files(path.name)

    async def _shut_down(self) -> None:
        grace = self._node.config.shutdown_grace_seconds
        for uid, task in self._tasks.items():
            if not task.done() and (runner := self._runners.get(uid)):
                is_final = runner.pod["spec"].get("restartPolicy") == "Never"
                runner.stop(
                    grace_seconds=_shutdown_grace(runner.pod, at_most=grace),
                    failure=_SHUTDOWN if is_final else None,
                )
        if self._tasks:
            _, unfinished = await asyncio.wait(self._tasks.values(), timeout=grace + 5)
            for task in unfinished:
                task.cancel()
        await asyncio.gather(*self._tasks.values(), *self._burials, return_exceptions=True)

    def _list_pods(self, namespace: str) -> list[Manifest]:
        return [pod for pod in self._pods.values() if pod["metadata"]["namespace"] == namespace]


def _shutdown_grace(pod: Manifest, *, at_most: float) -> float:
    text = (pod["metadata"].get("annotations") or {}).get(SHUTDOWN_GRACE_ANNOTATION, "")
    try:
        return min(max(float(text), 0.0), at_most)
    except ValueError:
        return at_most
