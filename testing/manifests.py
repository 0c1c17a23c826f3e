"""Small objects for tests of anything that talks to the Kubernetes API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubeloop.local.client import Manifest


def build_config_map(name: str, **metadata: Any) -> Manifest:  # any JSON of metadata
    """A small object."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", **metadata},
        "data": {"key": "value"},
    }


def build_pod(name: str, **spec: Any) -> Manifest:  # any JSON of a pod's spec
    """A pod that nothing runs."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "main", "image": "busybox"}], **spec},
    }


def build_job(name: str, *, num_workers: int = 1) -> Manifest:
    """A custom resource with a status."""
    template = {"spec": {"containers": [{"name": "pytorch", "image": "train"}]}}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "pytorchReplicaSpecs": {
                "Master": {"replicas": 1, "template": template},
                "Worker": {"replicas": num_workers, "template": template},
            }
        },
    }


def build_pytorch_job(
    replicas: Mapping[str, int],
    *,
    policy: str = "Never",
    container: Manifest | None = None,
    run_policy: Manifest | None = None,
) -> Manifest:
    """A PyTorchJob `digits` as a user would write it, with `replicas` of each type."""
    containers = [{"name": "pytorch", "image": "kubeloop/runtime", **(container or {})}]
    spec = {"restartPolicy": policy, "template": {"spec": {"containers": containers}}}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "digits", "namespace": "default"},
        "spec": {
            "runPolicy": run_policy or {},
            "pytorchReplicaSpecs": {
                name: {"replicas": count, **spec} for name, count in replicas.items()
            },
        },
    }


def own(manifest: Manifest, owner: Manifest, *, blocks: bool = True) -> Manifest:
    """`manifest` with `owner` as its controller."""
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": blocks,
    }
    manifest["metadata"]["ownerReferences"] = [reference]
    return manifest
