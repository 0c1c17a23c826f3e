"""Entry point of the model server: flags and environment in, a serving process out.

On SIGTERM the server says that it is not ready and goes on answering for a moment, so that whoever
routes to it can look away; then it finishes what it has begun and ends with 0.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from kubeloop import event_loop
from kubeloop.errors import InputError, KubeloopError
from kubeloop.kserve.runtime import VARIANT_VARIABLE
from kubeloop.kserve.server.app import AppConfig, build_app
from kubeloop.kserve.server.dataplane import DataPlane
from kubeloop.kserve.server.metrics import ServerMetrics
from kubeloop.kserve.server.repository import ModelRepository, find_packages

logger = logging.getLogger(__name__)

_DEFAULT_GRACE_SECONDS = 25  # below Kubernetes' default termination grace period of 30 s


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """One server process."""

    model_name: str
    """Name of the model in URLs."""
    model_dir: Path
    """A model package, or a folder of packages."""
    host: str
    """Address to listen on."""
    http_port: int
    """Port to listen on."""
    num_threads: int | None
    """Threads that a prediction computes on; None is torch's default, every core."""
    drain_seconds: float
    """How long requests are still taken after SIGTERM."""
    max_body_bytes: int
    """Longest request body."""
    variant: str
    """Form of the models that is served, such as `int8`; empty: the original."""


def parse_config(arguments: Sequence[str], environment: Mapping[str, str]) -> ServerConfig:
    """Read flags and environment.

    Raises:
        InputError: OMP_NUM_THREADS is no number.
    """
    parser = argparse.ArgumentParser(prog="python -m kubeloop.kserve.server", allow_abbrev=False)
    parser.add_argument("--model_name", default="model", help="name of the model in URLs")
    parser.add_argument("--model_dir", type=Path, default=Path("/mnt/models"))
    parser.add_argument("--http_port", type=int, default=8080)
    parser.add_argument("--host", default=_choose_host(environment), help="address to listen on")
    parser.add_argument("--drain_seconds", type=float, default=0.3)
    parser.add_argument("--max_body_bytes", type=int, default=AppConfig().max_body_bytes)
    parser.add_argument(
        "--variant",
        default=environment.get(VARIANT_VARIABLE, ""),
        help="form of the model that is served, such as onnx or int8; default: the original",
    )
    flags = parser.parse_args(arguments)
    return ServerConfig(
        model_name=flags.model_name,
        model_dir=flags.model_dir,
        host=flags.host,
        http_port=flags.http_port,
        num_threads=_parse_threads(environment.get("OMP_NUM_THREADS", "")),
        drain_seconds=flags.drain_seconds,
        max_body_bytes=flags.max_body_bytes,
        variant=flags.variant,
    )


def _choose_host(environment: Mapping[str, str]) -> str:
    """Every interface in a pod of a cluster; loopback on a laptop, where pods share the host."""
    pod_ip = environment.get("POD_IP", "")
    try:
        on_cluster = bool(pod_ip) and not ipaddress.ip_address(pod_ip).is_loopback
    except ValueError as error:
        raise InputError(f"POD_IP must be an IP address, not {pod_ip!r}.") from error
    return "0.0.0.0" if on_cluster else "127.0.0.1"


def _parse_threads(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise InputError(f"OMP_NUM_THREADS must be a number of threads, not {text!r}.")
    return int(text)


class _Server(uvicorn.Server):
    """uvicorn, except that SIGTERM drains first and the process then ends with 0."""

    def __init__(self, config: uvicorn.Config, *, plane: DataPlane, drain_seconds: float) -> None:
        super().__init__(config)
        self._plane = plane
        self._drain_seconds = drain_seconds

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._drain, loop)
        loop.add_signal_handler(signal.SIGINT, self._stop)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGTERM)
            loop.remove_signal_handler(signal.SIGINT)

    def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        self._plane.begin_draining()
        loop.call_later(self._drain_seconds, self._stop)

    def _stop(self) -> None:
        self.should_exit = True


async def serve(config: ServerConfig) -> None:
    """Load the models and answer until a signal comes."""
    metrics = ServerMetrics()
    folders = find_packages(config.model_dir, model_name=config.model_name)
    repository = ModelRepository(folders, metrics=metrics, variant=config.variant)
    await repository.load_all()
    plane = DataPlane(repository)
    app = build_app(plane, metrics=metrics, config=AppConfig(max_body_bytes=config.max_body_bytes))
    server = _Server(
        uvicorn.Config(
            app,
            host=config.host,
            port=config.http_port,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=_DEFAULT_GRACE_SECONDS,
        ),
        plane=plane,
        drain_seconds=config.drain_seconds,
    )
    try:
        await server.serve()
    finally:
        await repository.close()


def _use_threads(num_threads: int | None) -> None:
    if num_threads is not None:
        import torch

        torch.set_num_threads(num_threads)


def main() -> None:
    """Serve; what cannot be served ends the process with 1 and a sentence on stderr."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        config = parse_config(sys.argv[1:], os.environ)
        _use_threads(config.num_threads)
        event_loop.run(serve(config))
    except KubeloopError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
