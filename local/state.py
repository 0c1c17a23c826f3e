"""The state folder of a control plane: its files, its lock, and how clients find it.

Only one control plane may use a folder. A lock held by the running process decides that, not a
process id in a file, so that a crash leaves nothing to clean up.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from kubeloop.errors import PermanentError

CONTEXT = "kubeloop"
"""Name of the kubeconfig context."""
_MIN_FREE_BYTES = 64 << 20
_LOCK_SECONDS = 0.3
"""For how long others may look whether a control plane runs while one starts."""
_LOOK_SECONDS = 0.5


class AlreadyRunningError(PermanentError):
    """Another control plane holds the state folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Where a running control plane answers."""

    pid: int
    started_at: str
    version: str
    api_url: str
    kfp_url: str
    gateway_url: str
    db_manager_address: str
    """Host and port of Katib's DB manager, as `KatibClient.get_trial_metrics` takes it."""
    namespace: str
    token: str


@dataclass(frozen=True, slots=True)
class StateFolder:
    """Paths below one folder; nothing is created before `prepare`."""

    root: Path

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def endpoints_file(self) -> Path:
        return self.root / "control-plane.json"

    @property
    def log(self) -> Path:
        return self.root / "control-plane.log"

    @property
    def lock_file(self) -> Path:
        return self.root / "control-plane.lock"

    @property
    def objects(self) -> Path:
        return self.root / "objects.db"

    @property
    def pipelines(self) -> Path:
        return self.root / "pipelines.db"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.db"

    @property
    def pods(self) -> Path:
        return self.root / "pods"

    @property
    def certificates(self) -> Path:
        return self.root / "certificates"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    def prepare(self) -> None:
        """Create the folder, readable by its owner only.

        Raises:
            PermanentError: It cannot be created or written, or its disk is full.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.artifacts.mkdir(exist_ok=True)
            # Logs and volumes may hold secrets, in a folder that others can read.
            self.pods.mkdir(exist_ok=True, mode=0o700)
            self.log.touch(mode=0o600)
            num_free = shutil.disk_usage(self.root).free
        except OSError as error:
            raise self._unusable("create", error) from error
        if num_free < _MIN_FREE_BYTES:
            msg = (
                f"The disk of state folder {self.root} has {num_free >> 20} MiB left, and"
                f" {_MIN_FREE_BYTES >> 20} are needed: free some, or choose another folder with"
                " --state or KUBELOOP_HOME."
            )
            raise PermanentError(msg)

    def _unusable(self, verb: str, error: OSError) -> PermanentError:
        return PermanentError(
            f"Failed to {verb} state folder {self.root}: {error.strerror}; choose another one with"
            " --state or KUBELOOP_HOME."
        )

    @contextlib.contextmanager
    def lock(self) -> Iterator[int]:
        """Hold the folder for this process; gives the descriptor of the lock's file.

        Raises:
            AlreadyRunningError: Another process holds it.
            PermanentError: The folder cannot be written, or is gone when the block fails.
        """
        try:
            descriptor = os.open(self.lock_file, os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise self._unusable("lock", error) from error
        try:
            if not _lock_within(descriptor, seconds=_LOCK_SECONDS):
                running = self.read_endpoints()
                who = f" (pid {running.pid}, {running.api_url})" if running else ""
                msg = (
                    f"A control plane already runs on {self.root}{who}: use it as it is, stop it"
                    " with `kubeloop down`, or start another on its own folder with --state."
                )
                raise AlreadyRunningError(msg)
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            try:
                yield descriptor
            except Exception as error:
                if not self._is_held_by(descriptor):  # it is the cause of whatever went wrong
                    raise self._explain_loss() from error
                raise
        finally:
            os.close(descriptor)

    def find_holder(self) -> int | None:
        """The process that holds the folder's lock, 0 if it does not say; None if none does.

        Raises:
            PermanentError: The folder cannot be read.
        """
        try:
            descriptor = os.open(self.lock_file, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unusable("read", error) from error
        try:
            # NB: shared, so that those who look do not take one another for a control plane.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            written = os.pread(descriptor, 20, 0)
            return int(written) if written.isdigit() else 0
        finally:
            os.close(descriptor)
        return None

    def is_running(self) -> bool:
        """Whether a process holds the folder's lock."""
        return self.find_holder() is not None

    async def watch(self, lock: int) -> None:
        """Look after the folder that `lock` holds, until it is gone.

        Raises:
            PermanentError: It was deleted, moved or replaced by another.
        """
        while self._is_held_by(lock):  # noqa: ASYNC110  # a folder does not say when it goes
            await asyncio.sleep(_LOOK_SECONDS)
        raise self._explain_loss()

    def _is_held_by(self, lock: int) -> bool:
        try:
            return os.path.samestat(os.fstat(lock), self.lock_file.stat())
        except OSError:
            return False

    def _explain_loss(self) -> PermanentError:
        return PermanentError(
            f"State folder {self.root} was deleted, moved or replaced while the control plane ran"
            " on it, so it ends with all that it runs; start afresh with `kubeloop up`, and next"
            " time `kubeloop down` first."
        )

    def read_endpoints(self) -> Endpoints | None:
        """Where the control plane of this folder answers, None before it answers."""
        try:
            return Endpoints(**json.loads(self.endpoints_file.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def read_token(self) -> str:
        """The bearer token, made at first use and kept, so that kubeconfigs stay valid."""
        path = self.root / "token"
        if not path.exists():
            write_private(path, secrets.token_urlsafe(32))
        return path.read_text()

    def publish(self, endpoints: Endpoints, *, authority: Path | None = None) -> None:
        """Tell clients: the kubeconfig, and last the file that says the plane answers.

        Args:
            endpoints: Where the plane answers.
            authority: Certificate (PEM) that clients of the Kubernetes API must trust.
        """
        kubeconfig = render_kubeconfig(
            endpoints, authority=None if authority is None else authority.read_bytes()
        )
        write_private(self.kubeconfig, json.dumps(kubeconfig, indent=2))
        write_private(self.endpoints_file, json.dumps(asdict(endpoints), indent=2))

    def retract(self) -> None:
        """The plane no longer answers."""
        self.endpoints_file.unlink(missing_ok=True)


def _lock_within(descriptor: int, *, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        else:
            return True


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)


def render_kubeconfig(endpoints: Endpoints, *, authority: bytes | None = None) -> dict[str, object]:
    """A kubeconfig with one context; JSON, which is YAML.

    NB: kubectl sends the token to https servers only, so they come with their `authority` (PEM).
    """
    cluster = {"server": endpoints.api_url}
    if authority is not None:
        cluster["certificate-authority-data"] = base64.b64encode(authority).decode()
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": CONTEXT,
        "clusters": [{"name": CONTEXT, "cluster": cluster}],
        "users": [{"name": CONTEXT, "user": {"token": endpoints.token}}],
        "contexts": [
            {
                "name": CONTEXT,
                "context": {
                    "cluster": CONTEXT,
                    "user": CONTEXT,
                    "namespace": endpoints.namespace,
                },
            }
        ],
    }
