"""Builds the pods and services of a PyTorchJob.

Source: training-operator v1.9 `common/pod.go`, `common/service.go`, `pytorch/initcontainer.go`.
"""

from __future__ import annotations

from copy import deepcopy

from kubeloop.local.client import Manifest
from kubeloop.local.operators.controller import build_owner_reference
from kubeloop.local.operators.pytorchjob_environment import build_environment
from kubeloop.local.operators.pytorchjob_spec import (
    CONTAINER_NAME,
    MASTER,
    WORKER,
    has_master,
    replica_specs,
)

OPERATOR_NAME = "pytorchjob-controller"
OPERATOR_NAME_LABEL = "training.kubeflow.org/operator-name"
JOB_NAME_LABEL = "training.kubeflow.org/job-name"
JOB_ROLE_LABEL = "training.kubeflow.org/job-role"
REPLICA_TYPE_LABEL = "training.kubeflow.org/replica-type"
REPLICA_INDEX_LABEL = "training.kubeflow.org/replica-index"
_WAIT_FOR_MASTER = (
    'for try in $(seq 100); do getent hosts "$MASTER_ADDR" && exit 0; echo waiting for master;'
    " sleep 2; done; exit 1"
)


def build_job_labels(job_name: str) -> dict[str, str]:
    """The labels that all pods and services of a job carry."""
    return {OPERATOR_NAME_LABEL: OPERATOR_NAME, JOB_NAME_LABEL: job_name}


def render_selector(job_name: str, *, replica_type: str = "") -> str:
    """The label selector of a job's pods, or of one replica type's; keys are sorted."""
    labels = build_job_labels(job_name)
    if replica_type:
        labels[REPLICA_TYPE_LABEL] = replica_type.lower()
    return ",".join(f"{key}={labels[key]}" for key in sorted(labels))


def render_replica_name(job_name: str, *, replica_type: str, index: int) -> str:
    """The name of a replica's pod and of its service."""
    return f"{job_name}-{replica_type.lower()}-{index}".replace("/", "-")


def replica_index(manifest: Manifest) -> int | None:
    """The index that a pod or service is labelled with, None when it is none."""
    text = (manifest["metadata"].get("labels") or {}).get(REPLICA_INDEX_LABEL, "")
    return int(text) if text.isdecimal() else None


def is_of_type(manifest: Manifest, replica_type: str) -> bool:
    """Whether a pod or service belongs to a replica type."""
    labels = manifest["metadata"].get("labels") or {}
    return bool(labels.get(REPLICA_TYPE_LABEL) == replica_type.lower())


def build_pod(job: Manifest, *, replica_type: str, index: int) -> Manifest:
    """One replica's pod; `job` has its defaults."""
    spec = replica_specs(job)[replica_type]
    template = deepcopy(spec["template"])
    metadata = template.get("metadata") or {}
    pod_spec = template["spec"]
    environment = build_environment(job, replica_type=replica_type, index=index)
    for container in pod_spec["containers"]:
        container["env"] = [*(container.get("env") or []), *environment]
    if has_master(job) and replica_type == WORKER:
        waiting = _build_init_container(job)
        pod_spec["initContainers"] = [*(pod_spec.get("initContainers") or []), waiting]
    policy = spec["restartPolicy"]
    pod_spec["restartPolicy"] = "Never" if policy == "ExitCode" else policy
    labels = {
        **(metadata.get("labels") or {}),
        **_build_replica_labels(job, replica_type=replica_type, index=index),
    }
    if _is_master_role(job, replica_type=replica_type, index=index):
        labels[JOB_ROLE_LABEL] = "master"
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _build_metadata(job, replica_type=replica_type, index=index, labels=labels),
        "spec": pod_spec,
    }
    if annotations := metadata.get("annotations"):
        pod["metadata"]["annotations"] = annotations
    return pod


def build_service(job: Manifest, *, replica_type: str, index: int) -> Manifest:
    """One replica's headless service, by which the others find it."""
    labels = _build_replica_labels(job, replica_type=replica_type, index=index)
    containers = replica_specs(job)[replica_type]["template"]["spec"]["containers"]
    ports = [
        {"name": port["name"], "port": port["containerPort"]}
        for container in containers
        if container["name"] == CONTAINER_NAME
        for port in container.get("ports") or []
        if port.get("name")
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _build_metadata(job, replica_type=replica_type, index=index, labels=labels),
        "spec": {"clusterIP": "None", "selector": dict(labels), "ports": ports},
    }


def _build_init_container(job: Manifest) -> Manifest:
    """What holds a worker back until the master's name resolves.

    Upstream asks `nslookup`, which a laptop may lack; and it names the master in the command, where
    the pod runner would not translate a bare word.
    """
    master = render_replica_name(job["metadata"]["name"], replica_type=MASTER, index=0)
    return {
        "name": "init-pytorch",
        "image": "alpine:3.10",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", _WAIT_FOR_MASTER],
        "env": [{"name": "MASTER_ADDR", "value": master}],
        "resources": {
            "limits": {"cpu": "100m", "memory": "20Mi"},
            "requests": {"cpu": "50m", "memory": "10Mi"},
        },
    }


def _build_metadata(
    job: Manifest, *, replica_type: str, index: int, labels: dict[str, str]
) -> Manifest:
    metadata = job["metadata"]
    return {
        "name": render_replica_name(metadata["name"], replica_type=replica_type, index=index),
        "namespace": metadata["namespace"],
        "labels": labels,
        "ownerReferences": [build_owner_reference(job)],
    }


def _build_replica_labels(job: Manifest, *, replica_type: str, index: int) -> dict[str, str]:
    return {
        **build_job_labels(job["metadata"]["name"]),
        REPLICA_TYPE_LABEL: replica_type.lower(),
        REPLICA_INDEX_LABEL: str(index),
    }


def _is_master_role(job: Manifest, *, replica_type: str, index: int) -> bool:
    if has_master(job):
        return replica_type == MASTER
    return replica_type == WORKER and index == 0
