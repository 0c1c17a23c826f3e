"""A small kubelet for tests: a Pod's one container is a process, its status follows.

It knows no warm start, no probes, no volumes and no restarts, and so shows what the engine does by
itself. Python commands run under the interpreter of the tests.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
import sys
import tempfile
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kubeloop.errors import ConflictError, NotFoundError
from kubeloop.local.api.resources import CONFIG_MAPS, PODS, SECRETS
from kubeloop.local.client import Client, EventType, Manifest


class ProcessKubelet:
    """Runs the Pods of one namespace as processes."""

    def __init__(self, client: Client, *, pods_dir: Path, namespace: str = "default") -> None:
        self._client = client
        self._pods_dir = pods_dir
        self._namespace = namespace
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._watcher: asyncio.Task[None] | None = None
        self.started: list[str] = []
        """Names of all Pods ever started, in order."""

    @property
    def live_processes(self) -> list[int]:
        """Process groups that have not ended."""
        return [item.pid for item in self._processes.values() if item.returncode is None]

    async def __aenter__(self) -> Self:
        self._watcher = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        tasks = [task for task in (self._watcher, *self._tasks.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for process in self._processes.values():
            _kill(process, signal.SIGKILL)
            await process.wait()

    async def lose_all(self, reason: str = "NodeLost") -> None:
        """Kill every process and fail its Pod, as a restart of the machine does."""
        for name, process in list(self._processes.items()):
            if process.returncode is None:
                self._tasks.pop(name).cancel()
                _kill(process, signal.SIGKILL)
                await process.wait()
                await self._report(name, {"phase": "Failed", "reason": reason})

    async def _watch(self) -> None:
        async with aclosing(self._client.watch(PODS, namespace=self._namespace)) as events:  # type: ignore[type-var]  # an async generator
            async for event in events:
                name = event.object["metadata"]["name"]
                if event.type is EventType.DELETED:
                    continue
                if "deletionTimestamp" in event.object["metadata"]:
                    asyncio.get_running_loop().create_task(self._remove(event.object))
                elif name not in self._tasks:
                    self._tasks[name] = asyncio.create_task(self._run(event.object))

    async def _run(self, pod: Manifest) -> None:
        metadata, container = pod["metadata"], pod["spec"]["containers"][0]
        name = metadata["name"]
        # NB: a Pod that no node has taken is gone the moment it is deleted.
        with contextlib.suppress(NotFoundError):
            binding = {"spec": {"nodeName": "node"}}
            await self._client.patch(PODS, name, namespace=self._namespace, body=binding)
        log = self._pods_dir / metadata["uid"] / "logs" / container["name"] / "0.log"
        log.parent.mkdir(parents=True)
        work = tempfile.mkdtemp(dir=self._pods_dir / metadata["uid"])
        environment = await self._environment(pod, work)
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *container.get("command", ()),
                *container.get("args", ()),
                env=environment,
                cwd=work,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._processes[name] = process
        self.started.append(name)
        started = _now()
        status = {"name": container["name"], "restartCount": 0, "ready": True, "image": ""}
        await self._report(
            name,
            {
                "phase": "Running",
                "containerStatuses": [{**status, "state": {"running": {"startedAt": started}}}],
            },
        )
        code = await process.wait()
        code = 128 - code if code < 0 else code
        ended = {"exitCode": code, "startedAt": started, "finishedAt": _now()}
        ended["reason"] = "Error" if code else "Completed"
        await self._report(
            name,
            {
                "phase": "Failed" if code else "Succeeded",
                "containerStatuses": [{**status, "ready": False, "state": {"terminated": ended}}],
            },
        )

    async def _remove(self, pod: Manifest) -> None:
        metadata = pod["metadata"]
        process = self._processes.get(metadata["name"])
        if process is not None:
            _kill(process, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    process.wait(), metadata.get("deletionGracePeriodSeconds", 30)
                )
            _kill(process, signal.SIGKILL)
        with contextlib.suppress(NotFoundError, ConflictError):
            await self._client.delete(
                PODS,
                metadata["name"],
                namespace=self._namespace,
                grace_period_seconds=0,
                uid=metadata["uid"],
            )

    async def _report(self, name: str, status: Manifest) -> None:
        with contextlib.suppress(NotFoundError):
            await self._client.patch(
                PODS, name, namespace=self._namespace, body={"status": status}, subresource="status"
            )

    async def _environment(self, pod: Manifest, work: str) -> dict[str, str]:
        folders = (str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin")
        environment = {"PATH": os.pathsep.join(folders), "HOME": work, "TMPDIR": work}
        for item in pod["spec"]["containers"][0].get("env", ()):
            environment[item["name"]] = item.get("value") or await self._value_from(item, pod)
        return environment

    async def _value_from(self, item: Manifest, pod: Manifest) -> str:
        source: dict[str, Any] = item.get("valueFrom") or {}
        if reference := source.get("secretKeyRef"):
            held = await self._client.get(SECRETS, reference["name"], namespace=self._namespace)
            return base64.b64decode(held["data"][reference["key"]]).decode()
        if reference := source.get("configMapKeyRef"):
            held = await self._client.get(CONFIG_MAPS, reference["name"], namespace=self._namespace)
            return str(held["data"][reference["key"]])
        value: Any = pod
        for key in source.get("fieldRef", {}).get("fieldPath", "").split("."):
            value = value.get(key, {}) if isinstance(value, dict) else {}
        return value if isinstance(value, str) else ""


def _kill(process: asyncio.subprocess.Process, number: int) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
