"""An API server on HTTPS for tests: own port, own state, the real routes."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from kubeloop.local.api.certificates import prepare_certificate
from kubeloop.local.api.events import EventLogConfig
from kubeloop.local.api.http_client import HttpClient
from kubeloop.local.api.logs import PodLogs
from kubeloop.local.api.proxy import ServiceProxies
from kubeloop.local.api.server import build_app
from kubeloop.local.api.storage import ObjectStorage
from kubeloop.local.api.verbs import ApiServer
from kubeloop.local.serving import bind, serve, url_of
from kubeloop.local.state import Endpoints, render_kubeconfig, write_private
from kubeloop.testing.api import create_namespaces

TOKEN = "token-of-tests"  # noqa: S105  # guards nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningApi:
    """A server that answers, and the files that lead to it."""

    url: str
    kubeconfig: Path
    api: ApiServer
    proxies: ServiceProxies
    pods_dir: Path
    tls: ssl.SSLContext

    def client(self, *, token: str = TOKEN) -> HttpClient:
        """A client of the server; use it as a context manager."""
        return HttpClient(self.url, token=token, verify=self.tls)


@asynccontextmanager
async def running_api(
    folder: Path, *, log_config: EventLogConfig | None = None
) -> AsyncIterator[RunningApi]:
    """Serve an API with the namespaces default and kubeflow; its state is in `folder`."""
    certificate = prepare_certificate(folder / "certificates")
    pods_dir = folder / "pods"
    with ObjectStorage(folder / "objects.db", log_config=log_config) as storage:
        api = ApiServer(storage)
        create_namespaces(api)
        listener = bind(0, what="Kubernetes API", option="--api-port")
        url = url_of(listener, scheme="https")
        kubeconfig = render_kubeconfig(
            Endpoints(
                pid=0,
                started_at="",
                version="",
                api_url=url,
                kfp_url="",
                gateway_url="",
                db_manager_address="",
                namespace="default",
                token=TOKEN,
            ),
            authority=certificate.authority.read_bytes(),
        )
        write_private(folder / "kubeconfig", json.dumps(kubeconfig))
        async with ServiceProxies() as proxies:
            app = build_app(api, token=TOKEN, logs=PodLogs(pods_dir), proxies=proxies)
            async with serve(app, listener, certificate=certificate):
                yield RunningApi(
                    url=url,
                    kubeconfig=folder / "kubeconfig",
                    api=api,
                    proxies=proxies,
                    pods_dir=pods_dir,
                    tls=ssl.create_default_context(cafile=certificate.authority),
                )
                api.close()
