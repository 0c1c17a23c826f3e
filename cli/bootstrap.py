"""What the embedded plane holds from the start, as `manifests/` gives it to a cluster."""

from __future__ import annotations

import base64
import os
from typing import Any

Manifest = dict[str, Any]  # raw JSON of one object


def build_bootstrap_manifests(*, namespace: str) -> list[Manifest]:
    """The serving runtime, and the object store's credentials from this process's environment."""
    from kubeloop.datasets.stores import OBJECT_STORE_SECRET, OBJECT_STORE_VARIABLES
    from kubeloop.kserve.runtime import build_serving_runtime

    found = {name: os.environ[name] for name in OBJECT_STORE_VARIABLES if os.environ.get(name)}
    return [
        build_serving_runtime(),
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": OBJECT_STORE_SECRET, "namespace": namespace},
            "type": "Opaque",
            "data": {
                name: base64.b64encode(found.get(name, "").encode()).decode()
                for name in OBJECT_STORE_VARIABLES
            },
        },
    ]
