import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from kubeloop.errors import PermanentError
from kubeloop.pipelines.metadata import connect_cluster
from kubeloop.pipelines.metadata.clusters import forwarded_port
from kubeloop.testing.metadata_contract import RUN, small_run
from kubeloop.testing.mlmd_server import KfpWriter, MlmdStore, serving_mlmd

PROXY = "/api/v1/namespaces/kubeflow/services/ml-pipeline:http/proxy/apis/v2beta1/"
FORWARDING = 'echo "Forwarding from 127.0.0.1:{port} -> 8080"; exec sleep 60'


@contextmanager
def serving_cluster(answers: dict[str, tuple[int, Any]]) -> Iterator[Any]:
    """A Kubernetes client whose API server answers these paths of the KFP API, else 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.removeprefix(PROXY).partition("?")[0]
            status, body = answers.get(path, (404, {"code": 5, "message": "Not Found"}))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    configuration = SimpleNamespace(
        host=f"http://127.0.0.1:{server.server_port}",
        ssl_ca_cert=None,
        verify_ssl=True,
        cert_file=None,
        key_file=None,
        get_api_key_with_prefix=lambda name: "",
    )
    try:
        yield SimpleNamespace(configuration=configuration)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def mlmd() -> Iterator[str]:
    store = MlmdStore()
    KfpWriter(store).write([small_run()])
    with serving_mlmd(store) as address:
        yield address


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubectl that does what a test writes into it."""
    program = tmp_path / "kubectl"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return program


def children() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if p.name() in ("kubectl", "sleep", "sh")]


@pytest.mark.parametrize("status", [200, 400, 403])
def test_cluster_that_answers_for_tasks_and_artifacts_is_read_natively(status: int) -> None:
    answers = {
        "artifact_tasks": (status, {}),
        "tasks": (200, {"tasks": [{"task_id": "1", "run_id": RUN, "name": "native"}]}),
    }

    with serving_cluster(answers) as cluster, connect_cluster(cluster, context="c") as source:
        assert [task.name for task in source.list_tasks(RUN)] == ["native"]


@pytest.mark.parametrize("status", [404, 405, 501])
def test_cluster_that_does_not_is_read_from_ml_metadata(
    status: int, mlmd: str, kubectl: Path
) -> None:
    kubectl.write_text("#!/bin/sh\n" + FORWARDING.format(port=mlmd.rpartition(":")[2]))
    answers: dict[str, tuple[int, Any]] = {"artifact_tasks": (status, {})}

    with serving_cluster(answers) as cluster, connect_cluster(cluster, context="c") as source:
        assert {task.name for task in source.list_tasks(RUN)} >= {"write", "read"}
        assert children()

    assert children() == []


def test_given_address_of_ml_metadata_is_taken_without_a_port_forward(mlmd: str) -> None:
    with (
        serving_cluster({}) as cluster,
        connect_cluster(cluster, context="c", metadata_address=mlmd) as source,
    ):
        assert source.get_run(RUN).pipeline == "tables"


def test_runs_are_told_as_the_kfp_api_tells_them(mlmd: str) -> None:
    run = {"display_name": "nightly", "state": "CANCELED"}

    with (
        serving_cluster({f"runs/{RUN}": (200, run)}) as cluster,
        connect_cluster(cluster, context="c", metadata_address=mlmd) as source,
    ):
        told = source.get_run(RUN)

    assert (told.name, told.state) == ("nightly", "CANCELED")


def test_missing_kubectl_is_said_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    with (
        pytest.raises(PermanentError, match=r"there is no kubectl.*give --metadata-address"),
        forwarded_port("c"),
    ):
        pass


def test_what_kubectl_says_of_a_failure_is_passed_on(kubectl: Path) -> None:
    kubectl.write_text('#!/bin/sh\necho "error: context \\"c\\" does not exist" >&2\nexit 1\n')

    with (
        pytest.raises(PermanentError, match='context "c" does not exist'),
        forwarded_port("c"),
    ):
        pass
    assert children() == []


def test_port_forward_names_the_service_and_the_context(kubectl: Path, tmp_path: Path) -> None:
    kubectl.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\n' + FORWARDING.format(port=1))

    with forwarded_port("prod") as address:
        assert address == "127.0.0.1:1"

    arguments = (tmp_path / "arguments").read_text()
    assert "port-forward service/metadata-grpc-service :8080 -n kubeflow" in arguments
    assert "--context prod" in arguments
