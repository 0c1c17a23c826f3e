"""`kubeloop up`, `down` and `status`: the embedded control plane as a background process."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from kubeloop import event_loop
from kubeloop.cli.options import (
    DEFAULT_STATE,
    Output,
    OutputOption,
    Session,
    StateOption,
    console,
    print_json,
    require,
)
from kubeloop.errors import PermanentError, TransientError
from kubeloop.interruption import hold_back_interrupts
from kubeloop.local.state import AlreadyRunningError, Endpoints, StateFolder

_PACKAGES = (
    "celpy",
    "cryptography",
    "google_crc32c",
    "grpc",
    "optuna",
    "orjson",
    "re2",
    "starlette",
    "uvicorn",
)
_PLANE = "kubeloop.local.control_plane"
_START_SECONDS = 60.0
_STOP_SECONDS = 60.0

ApiPortOption = Annotated[
    int, typer.Option(min=0, max=65535, help="Port of the Kubernetes API; 0: any free one.")
]
KfpPortOption = Annotated[
    int, typer.Option(min=0, max=65535, help="Port of the KFP API; 0: any free one.")
]
GatewayPortOption = Annotated[
    int, typer.Option(min=0, max=65535, help="Port of the endpoints' gateway; 0: any free one.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(up)
    app.command()(down)
    app.command()(status)


def up(
    *,
    state: StateOption = DEFAULT_STATE,
    api_port: ApiPortOption = 8643,
    kfp_port: KfpPortOption = 8888,
    gateway_port: GatewayPortOption = 8686,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay in this terminal; Ctrl-C stops it.")
    ] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Start the embedded control plane and return when all its APIs answer.

    Examples:
        kubeloop up

        KUBECONFIG=~/.kubeloop/kubeconfig kubectl get pods

        kubeloop up --state /tmp/scratch --api-port 0 --kfp-port 0 --gateway-port 0
    """
    folder = Session.open(state).state
    ports = (api_port, kfp_port, gateway_port)
    if foreground:
        run_in_foreground(folder, ports)
        return
    endpoints, _ = start(folder, ports)
    if output is Output.JSON:
        print_json(_describe(folder, endpoints))
        return
    console.print(f"Kubernetes API  {endpoints.api_url}")
    console.print(f"KFP API         {endpoints.kfp_url}")
    console.print(f"Endpoints       {endpoints.gateway_url}/serving/<namespace>/<name>")
    console.print(f"DB manager      {endpoints.db_manager_address}")
    console.print(f"\nexport KUBECONFIG={folder.kubeconfig}", soft_wrap=True)


def down(*, state: StateOption = DEFAULT_STATE) -> None:
    """Stop the embedded control plane and every process it started; its state is kept.

    Example:
        kubeloop down
    """
    folder = Session.open(state).state
    if stop(folder):
        console.print(f"Stopped. State is kept in {folder.root}.", soft_wrap=True)
    else:
        console.print(f"No control plane runs on {folder.root}.", soft_wrap=True)


def status(*, state: StateOption = DEFAULT_STATE, output: OutputOption = Output.TEXT) -> None:
    """Show whether the control plane runs, where it answers, and what it holds.

    Exits with 1 when it does not run.
    """
    from kubernetes.client import CoreV1Api

    session = Session.open(state)
    description = _describe(session.state, session.endpoints)
    pods = CoreV1Api(session.kubernetes).list_pod_for_all_namespaces().items
    phases: dict[str, int] = {}
    for pod in pods:
        phases[pod.status.phase] = phases.get(pod.status.phase, 0) + 1
    description["pods"] = phases
    if output is Output.JSON:
        print_json(description)
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in description.items():
        shown = (
            ", ".join(f"{n} {phase}" for phase, n in phases.items()) if name == "pods" else value
        )
        table.add_row(name.replace("_", " "), str(shown) or "none")
    console.print(table)


def start(
    folder: StateFolder, ports: tuple[int, int, int]
) -> tuple[Endpoints, subprocess.Popen[bytes]]:
    """Start a control plane in a process of its own and wait until it answers.

    Raises:
        AlreadyRunningError: One runs on the folder.
        MissingDependencyError: The extra `local` is not installed.
        PermanentError: It ended while starting; the message holds its last words.
    """
    require(_PACKAGES, what="The embedded control plane", extra="local")
    folder.prepare()
    with folder.lock():
        folder.retract()
    command = [sys.executable, "-X", "faulthandler", "-m", "kubeloop.cli.main"]
    command += ["up", "--foreground"]
    command += ["--state", str(folder.root)]
    for option, port in zip(("--api-port", "--kfp-port", "--gateway-port"), ports, strict=True):
        command += [option, str(port)]
    process = None
    try:
        with hold_back_interrupts(), folder.log.open("ab") as log:
            written = log.tell()
            process = subprocess.Popen(  # noqa: S603  # our own interpreter and arguments
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=folder.root,
            )
        return _wait_until_up(folder, process, after=written), process
    except BaseException:  # Ctrl-C too: a plane that nobody waits for must not stay
        if process is not None:
            _end(process)
        raise


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_up(
    folder: StateFolder, process: subprocess.Popen[bytes], *, after: int
) -> Endpoints:
    deadline = time.monotonic() + _START_SECONDS
    # NB: of two that start at once, the other may answer first.
    while (endpoints := folder.read_endpoints()) is None or endpoints.pid != process.pid:
        if process.poll() is not None:
            msg = (
                f"The control plane ended while starting: {_read_words(folder, after=after)}"
                f" ({_describe_end(process.returncode)}, log: {folder.log})"
            )
            raise PermanentError(msg)
        if time.monotonic() > deadline:
            process.send_signal(signal.SIGABRT)  # has it write down where it is
            process.wait()
            msg = (
                f"The control plane did not answer within {_START_SECONDS:.0f} s, and was ended:"
                f" where it hung is at the end of {folder.log}."
            )
            raise TransientError(msg)
        time.sleep(0.02)
    return endpoints


def stop(folder: StateFolder, *, process: subprocess.Popen[bytes] | None = None) -> bool:
    """Stop the control plane of a folder; False when none runs.

    Args:
        folder: The state folder.
        process: The control plane, if it is a child of ours.

    Raises:
        TransientError: It has not ended in time.
    """
    pid = folder.find_holder()
    if pid is None:
        return False
    if not pid:
        msg = f"A process holds {folder.lock_file} and does not say which: see `lsof`."
        raise PermanentError(msg)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    # NB: the lock goes first, the process a moment later.
    while folder.is_running() or is_alive(pid, process):
        if time.monotonic() > deadline:
            msg = f"The control plane (pid {pid}) has not stopped: see {folder.log}."
            raise TransientError(msg)
        time.sleep(0.02)
    return True


def is_alive(pid: int, process: subprocess.Popen[bytes] | None) -> bool:
    """Whether a process exists and is more than a zombie that nobody waits for."""
    if process is not None:
        return process.poll() is None
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat").read_text()
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc").exists()  # where there is none, `kill` has said it
    return stat.rpartition(")")[2].split()[0] != "Z"


@contextlib.contextmanager
def running(folder: StateFolder, ports: tuple[int, int, int]) -> Iterator[Endpoints]:
    """Use the control plane of a folder, or start one and stop it afterwards."""
    try:
        endpoints, process = start(folder, ports)
    except AlreadyRunningError:
        found = folder.read_endpoints()
        if found is None:
            raise
        yield found
        return
    try:
        yield endpoints
    finally:
        stop(folder, process=process)
        process.wait()


def run_in_foreground(folder: StateFolder, ports: tuple[int, int, int]) -> None:
    """Serve until SIGINT or SIGTERM; what happens is logged with the time."""
    logging.basicConfig(
        force=True, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger(_PLANE).setLevel(logging.INFO)
    from kubeloop.cli.bootstrap import build_bootstrap_manifests
    from kubeloop.local.control_plane import ControlPlaneConfig, run_until_signal

    config = ControlPlaneConfig(
        state=folder,
        api_port=ports[0],
        kfp_port=ports[1],
        gateway_port=ports[2],
        bootstrap_manifests=tuple(build_bootstrap_manifests(namespace="default")),
    )
    event_loop.run(run_until_signal(config))


def _describe(folder: StateFolder, endpoints: Endpoints) -> dict[str, object]:
    description: dict[str, object] = asdict(endpoints)
    del description["token"]
    return {**description, "state": str(folder.root), "kubeconfig": str(folder.kubeconfig)}


def _read_words(folder: StateFolder, *, after: int, num_lines: int = 5) -> str:
    """What a control plane said last: its own error, else the end of its log."""
    with folder.log.open("rb") as file:
        file.seek(after)
        lines = file.read().decode(errors="replace").strip().splitlines()
    told = [number for number, line in enumerate(lines) if line.startswith("Error:")]
    last = lines[told[-1] :] if told else lines[-num_lines:]
    return " ".join(line.strip() for line in last) or "it printed nothing"


def _describe_end(code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (", out of memory?" if name == "SIGKILL" else "")
    return f"exit code {code}"
