"""The server as the process that a pod runs."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from kubeloop.errors import InputError
from kubeloop.kserve.server.__main__ import parse_config

RED = [[[250, 10, 10]] * 4] * 3
DEADLINE_SECONDS = 60


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_server(folder: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    port = find_free_port()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "kubeloop.kserve.server",
            "--model_name=colors",
            f"--model_dir={folder}",
            f"--http_port={port}",
            *flags,
        ],
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"},
    )
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


def wait_until_ready(url: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"the server ended: {process.communicate()[1]}")
        try:
            if httpx.get(f"{url}/v2/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.02)
    pytest.fail("the server was not ready in time")


def test_server_drains_on_sigterm_and_ends_with_zero(color_package: Path) -> None:
    with running_server(color_package, "--drain_seconds=1") as (process, url):
        wait_until_ready(url, process)
        with httpx.Client(base_url=url) as client:
            process.send_signal(signal.SIGTERM)
            while client.get("/v2/health/ready").status_code == 200:
                continue

            reply = client.post("/v1/models/colors:predict", json={"instances": [RED]})

        assert reply.json()["predictions"][0]["label"] == "red"
        assert process.wait(DEADLINE_SECONDS) == 0


def test_broken_package_ends_the_process_with_a_sentence(
    copy_package: Callable[[], Path],
) -> None:
    folder = copy_package()
    (folder / "model.pt2").write_bytes(b"x")

    with running_server(folder) as (process, _):
        _, said = process.communicate(timeout=DEADLINE_SECONDS)

    assert process.returncode == 1
    assert said.splitlines()[-1].startswith("error: The model package's file")
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("pod_ip", "host"), [("", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("10.0.0.7", "0.0.0.0")]
)
def test_server_listens_beyond_loopback_only_where_the_pod_has_an_address(
    pod_ip: str, host: str
) -> None:
    assert parse_config([], {"POD_IP": pod_ip} if pod_ip else {}).host == host


def test_threads_come_from_the_environment() -> None:
    assert parse_config([], {"OMP_NUM_THREADS": "3"}).num_threads == 3
    assert parse_config([], {}).num_threads is None
    with pytest.raises(InputError, match="OMP_NUM_THREADS"):
        parse_config([], {"OMP_NUM_THREADS": "many"})
