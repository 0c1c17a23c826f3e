"""The lineage page of a run, made from inside of it, by one of its steps.

A step has no kubeconfig on a cluster: it speaks to KFP's services by name, with the service account
that it runs under. On the embedded plane it has one, whose API server leads to the KFP API.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from kubeloop.errors import KubeloopError
from kubeloop.kserve.endpoints import Endpoint, parse_endpoint
from kubeloop.pipelines.lineage.html import render_html
from kubeloop.pipelines.lineage.targets import find_target
from kubeloop.pipelines.lineage.tracing import trace
from kubeloop.pipelines.metadata import MetadataSource, NativeMetadata
from kubeloop.reports import Note, Page, Section, render_page

logger = logging.getLogger(__name__)

_KFP_URL = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
_MLMD_ADDRESS = "metadata-grpc-service.kubeflow.svc.cluster.local:8080"
_TOKEN_VARIABLE = "KF_PIPELINES_SA_TOKEN_PATH"  # noqa: S105  # the variable's name
_TOKEN_FILE = "/var/run/secrets/kubeflow/pipelines/token"  # noqa: S105  # the file's name


def render_report(target: str, *, namespace: str) -> str:
    """Render the lineage of what `target` names, as the record has it now.

    Where it cannot be read the page says why: a run is not worth less for lack of its picture.

    Args:
        target: As `kubeloop lineage` takes it.
        namespace: Where endpoints are looked for.
    """
    try:
        kubernetes, is_inside = _load_kubernetes()
        endpoints = _list_endpoints(kubernetes, namespace)
        with _connect(kubernetes, namespace, is_inside=is_inside) as source:
            found = find_target(target, source, endpoints=endpoints)
            return render_html(trace(found, source, endpoints=endpoints))
    except KubeloopError as error:
        logger.warning("lineage cannot be read", exc_info=error)
        note = Note(text=f"The lineage cannot be read: {error}", level="error")
        return render_page(Page(title="Lineage", sections=[Section(heading=target, parts=[note])]))


def _load_kubernetes() -> tuple[Any, bool]:
    """A client, and whether it runs inside of a cluster."""
    from kubernetes import client, config

    try:
        config.load_incluster_config()
    except config.ConfigException:
        return config.new_client_from_config(), False
    return client.ApiClient(), True


def _connect(kubernetes: Any, namespace: str, *, is_inside: bool) -> MetadataSource:
    if not is_inside:
        return NativeMetadata.through_api_server(kubernetes)
    token = Path(os.environ.get(_TOKEN_VARIABLE, _TOKEN_FILE))
    native = NativeMetadata(
        _KFP_URL,
        token=token.read_text().strip() if token.is_file() else "",
        namespace=namespace if token.is_file() else "",
    )
    try:
        if native.is_served():
            return native
    except KubeloopError:
        native.close()
        raise
    from kubeloop.pipelines.metadata.mlmd import MlmdMetadata

    return MlmdMetadata(_MLMD_ADDRESS, runs=native)


def _list_endpoints(kubernetes: Any, namespace: str) -> list[Endpoint]:
    """The InferenceServices; none where there is no KServe or the step may not read them."""
    from kubernetes.client import ApiException, CustomObjectsApi

    try:
        found = CustomObjectsApi(kubernetes).list_namespaced_custom_object(
            "serving.kserve.io", "v1beta1", namespace, "inferenceservices"
        )
    except ApiException as error:
        if error.status not in (401, 403, 404):
            raise
        return []
    return [parse_endpoint(item) for item in found["items"]]
