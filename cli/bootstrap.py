"""What the embedded plane holds from the start, as `manifests/` gives it to a cluster."""

from __future__ import annotations

import base64
import os
from typing import Any

Manifest = dict[str, Any]  # raw JSON of one object

_S3_ANNOTATIONS = {
    "serving.kserve.io/s3-endpoint": "S3_ENDPOINT",
    "serving.kserve.io/s3-usehttps": "S3_USE_HTTPS",
    "serving.kserve.io/s3-region": "AWS_REGION",
}
"""Where KServe looks for what is not a credential."""


def build_bootstrap_manifests(*, namespace: str) -> list[Manifest]:
    """The serving runtime, and the object store's credentials from this process's environment.

    The credentials are a Secret that pipeline steps and training jobs take as environment, and that
    the default service account names, which is where KServe's storage initializer looks.
    """
    from kubeloop.datasets.stores import OBJECT_STORE_SECRET, OBJECT_STORE_VARIABLES
    from kubeloop.kserve.runtime import build_serving_runtime

    found = {name: os.environ[name] for name in OBJECT_STORE_VARIABLES if os.environ.get(name)}
    annotations = {key: found[name] for key, name in _S3_ANNOTATIONS.items() if name in found}
    return [
        build_serving_runtime(),
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": OBJECT_STORE_SECRET,
                "namespace": namespace,
                "annotations": annotations,
            },
            "type": "Opaque",
            "data": {
                name: base64.b64encode(found.get(name, "").encode()).decode()
                for name in OBJECT_STORE_VARIABLES
            },
        },
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": namespace},
            "secrets": [{"name": OBJECT_STORE_SECRET}] if found else [],
        },
    ]
