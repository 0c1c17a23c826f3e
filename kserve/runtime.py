"""The ClusterServingRuntime that serves model packages with our model server.

One manifest, for the laptop's plane and for a cluster: the plane creates it when it starts, and
`manifests/` holds it rendered. Nothing heavy is imported here, because the CLI reads it.
"""

from __future__ import annotations

from typing import Any

from kubeloop import __version__

RUNTIME_NAME = "kubeloop-modelserver"
MODEL_FORMAT = "kubeloop"
IMAGE = f"kubeloop/runtime:{__version__}"
HTTP_PORT = 8080
VARIANT_VARIABLE = "KUBELOOP_MODEL_VARIANT"
"""Environment of the model server that chooses a variant of the model, such as `int8`."""


def build_serving_runtime(*, image: str = IMAGE) -> dict[str, Any]:  # Any: raw JSON of an object
    """Render the ClusterServingRuntime `kubeloop-modelserver`.

    Args:
        image: Image that carries kubeloop with its `server` and `torch` extras.
    """
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ClusterServingRuntime",
        "metadata": {"name": RUNTIME_NAME},
        "spec": {
            "supportedModelFormats": [
                {"name": MODEL_FORMAT, "version": "1", "autoSelect": True, "priority": 1}
            ],
            "protocolVersions": ["v1", "v2"],
            "annotations": {
                "prometheus.kserve.io/port": str(HTTP_PORT),
                "prometheus.kserve.io/path": "/metrics",
            },
            "containers": [_build_container(image)],
        },
    }


def _build_container(image: str) -> dict[str, Any]:
    return {
        "name": "kserve-container",
        "image": image,
        "command": ["python", "-m", "kubeloop.kserve.server"],
        "args": [
            "--model_name={{.Name}}",
            "--model_dir=/mnt/models",
            f"--http_port={HTTP_PORT}",
        ],
        # The server binds loopback where the pod's address is one, else every interface.
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "ports": [{"name": "http1", "containerPort": HTTP_PORT, "protocol": "TCP"}],
        "readinessProbe": {
            "httpGet": {"path": "/v2/health/ready", "port": HTTP_PORT},
            "periodSeconds": 1,
            "timeoutSeconds": 1,
            "failureThreshold": 3,
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {
            "requests": {"cpu": "1", "memory": "2Gi"},
            "limits": {"cpu": "1", "memory": "2Gi"},
        },
    }
