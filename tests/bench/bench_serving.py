"""Predictions a second: our model server beside KServe's own, same model, same payload; and our
server with the model as exported, as ONNX and in 8 bits.

All run in one process on one compute thread, answer V1 over keep-alive connections, and are loaded
by turns from here, so that what else the machine does falls on all.
"""

import asyncio
import contextlib
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import torch

from kubeloop.testing.model_packages import add_variants_to, write_package_of
from kubeloop.training.images import ImageClassifier
from kubeloop.training.package import PROGRAM_FILE, open_package
from kubeloop.training.preprocessing import ImagePreprocessing
from kubeloop.training.vision import DEFAULT_ARCHITECTURE, build_backbone

SIDE = 8
NUM_REQUESTS = 600
NUM_ROUNDS = 3
CONNECTIONS = (1, 8)
BUDGET_RATIO = 2.0
START_SECONDS = 60

SERVER = ("-m", "kubeloop.kserve.server", "--model_name=digits")
PEER = """
import sys
from pathlib import Path
import numpy as np
import torch
from kserve import Model, ModelServer
from kubeloop.training.package import open_package

class Peer(Model):
    def load(self):
        package = open_package(Path(sys.argv[1]))
        self.program, self.labels = package.load_model(), package.manifest.labels
        self.ready = True

    def predict(self, payload, headers=None):
        images = np.asarray(payload["instances"], dtype=np.uint8)[..., np.newaxis]
        with torch.inference_mode():
            scores = self.program(torch.from_numpy(images))
        labels = [self.labels[index] for index in scores.argmax(1).tolist()]
        rows = zip(labels, scores.tolist())
        return {"predictions": [
            {"label": label, "probabilities": dict(zip(self.labels, row))} for label, row in rows
        ]}

torch.set_num_threads(1)
peer = Peer("digits")
peer.load()
ModelServer(http_port=int(sys.argv[2]), enable_grpc=False).start([peer])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one round of requests took."""

    requests_per_second: float
    p50_seconds: float
    p99_seconds: float


def write_model(
    folder: Path, *, architecture: str = DEFAULT_ARCHITECTURE, image_size: int = 16
) -> Path:
    """The network that training builds, by default for small images, untrained."""
    torch.manual_seed(0)
    backbone = build_backbone(architecture, num_classes=10, image_size=image_size)
    classifier = ImageClassifier(
        backbone,
        preprocessing=ImagePreprocessing(channels=1, image_size=image_size),
        mean=torch.tensor([100.0]),
        std=torch.tensor([60.0]),
    )
    return write_package_of(folder, classifier.eval(), tuple("0123456789"))


@contextlib.contextmanager
def running(arguments: list[str], port: int) -> Iterator[None]:
    """A server process, from readiness to its end."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{port}/v2/health/ready").status_code == 200:
                    yield
                    return
            assert process.poll() is None, f"{arguments[:2]} ended with {process.returncode}"
            time.sleep(0.1)
        raise TimeoutError(f"{arguments[:2]} was not ready within {START_SECONDS} s")
    finally:
        process.kill()
        process.wait()


async def load(port: int, connections: int) -> Load:
    """Send requests over so many connections, each as soon as the one before is answered."""
    image = [[random.Random(7).randint(0, 255) for _ in range(SIDE)] for _ in range(SIDE)]
    body = json.dumps({"instances": [image]}).encode()
    head = (
        "POST /v1/models/digits:predict HTTP/1.1\r\n"
        f"host: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    request, seconds = head.encode() + body, list[float]()

    async def ask() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(NUM_REQUESTS // connections):
            started = time.perf_counter()
            writer.write(request)
            reply = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert b" 200 " in reply, reply
            length = int(reply.partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            seconds.append(time.perf_counter() - started)
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(connections)))
    total = time.perf_counter() - started
    ranks = statistics.quantiles(seconds, n=100)
    return Load(
        requests_per_second=len(seconds) / total, p50_seconds=ranks[49], p99_seconds=ranks[98]
    )


def find_free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def print_load(name: str, connections: int, result: Load) -> None:
    """One line of the table."""
    print(
        f"{name:<10} {connections} connections  {result.requests_per_second:6.0f} requests/s"
        f"  p50 {result.p50_seconds * 1e3:.1f} ms  p99 {result.p99_seconds * 1e3:.1f} ms"
    )


def compare_peers(model: Path) -> None:
    """Print both servers, and the ratio of each pair of rounds."""
    ours, theirs = find_free_ports(2)
    with (
        running([*SERVER, f"--model_dir={model}", f"--http_port={ours}"], ours),
        running(["-c", PEER, str(model), str(theirs)], theirs),
    ):
        for connections in CONNECTIONS:
            ratios = []
            for _ in range(NUM_ROUNDS):
                mine = asyncio.run(load(ours, connections))
                peer = asyncio.run(load(theirs, connections))
                ratios.append(mine.requests_per_second / peer.requests_per_second)
            print_load("kubeloop", connections, mine)
            print_load("kserve", connections, peer)
            ratio = statistics.median(ratios)
            print(f"kubeloop / kserve                  {ratio:.1f}x (budget {BUDGET_RATIO:g})")


def compare_variants(name: str, model: Path) -> None:
    """Print size and speed of each form of a model, and the ratio to the original's."""
    manifest = open_package(add_variants_to(model)).manifest
    files = {"": PROGRAM_FILE, **{key: spec.file for key, spec in manifest.variants.items()}}
    ports = dict(zip(files, find_free_ports(len(files)), strict=True))
    with contextlib.ExitStack() as stack:
        for variant, port in ports.items():
            flags = [f"--model_dir={model}", f"--http_port={port}", f"--variant={variant}"]
            stack.enter_context(running([*SERVER, *flags], port))
        for connections in CONNECTIONS:
            rounds = [
                {variant: asyncio.run(load(port, connections)) for variant, port in ports.items()}
                for _ in range(NUM_ROUNDS)
            ]
            for variant, file in files.items():
                size = (model / file).stat().st_size / 1e6
                ratio = statistics.median(
                    results[variant].requests_per_second / results[""].requests_per_second
                    for results in rounds
                )
                print(f"{name} {variant or 'original'}: {size:.1f} MB, {ratio:.1f}x the original")
                print_load(variant or "original", connections, rounds[-1][variant])


def main() -> None:
    """Print the comparison with the peer, and those of variants."""
    with tempfile.TemporaryDirectory() as folder:
        model = write_model(Path(folder, "digits"))
        compare_peers(model)
        compare_variants("digits", model)
        compare_variants(
            "resnet18", write_model(Path(folder, "resnet"), architecture="resnet18", image_size=64)
        )


if __name__ == "__main__":
    main()
