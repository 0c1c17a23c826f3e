"""A PyTorchJob's spec with its defaults, as the controller reads it.

Training Operator has no mutating webhook: the stored spec stays as the user wrote it, and the
defaults exist only in the copy that a reconcile works on.

Source: training-operator v1.9 `pytorch_defaults.go`, `defaulting_utils.go`.
"""

from __future__ import annotations

from copy import deepcopy

from kubeloop.local.client import Manifest

MASTER = "Master"
WORKER = "Worker"
REPLICA_TYPES = (MASTER, WORKER)
CONTAINER_NAME = "pytorch"
PORT_NAME = "pytorchjob-port"
DEFAULT_PORT = 23456


def apply_defaults(job: Manifest) -> Manifest:
    """A copy of `job` with every default filled in."""
    job = deepcopy(job)
    spec = job["spec"]
    run_policy = spec["runPolicy"] = spec.get("runPolicy") or {}
    run_policy.setdefault("cleanPodPolicy", "None")
    spec["pytorchReplicaSpecs"] = _in_proper_case(spec.get("pytorchReplicaSpecs") or {})
    for replica_spec in spec["pytorchReplicaSpecs"].values():
        if replica_spec.get("replicas") is None:
            replica_spec["replicas"] = 1
        replica_spec["restartPolicy"] = replica_spec.get("restartPolicy") or "OnFailure"
        _add_default_port(replica_spec["template"]["spec"]["containers"])
    elastic = spec.get("elasticPolicy")
    if elastic is not None:
        _fill_elastic_bounds(elastic, spec["pytorchReplicaSpecs"])
    if spec.get("nprocPerNode") is None and (elastic or {}).get("nProcPerNode") is None:
        spec["nprocPerNode"] = "auto"
    return job


def replica_specs(job: Manifest) -> dict[str, Manifest]:
    """Replica type to replica spec, the Master first."""
    specs = job["spec"]["pytorchReplicaSpecs"]
    return {name: specs[name] for name in REPLICA_TYPES if name in specs}


def has_master(job: Manifest) -> bool:
    """Whether the job has a Master; if not, its workers are equals."""
    return MASTER in job["spec"]["pytorchReplicaSpecs"]


def count_replicas(job: Manifest) -> int:
    """Number of replicas of all types."""
    return sum(spec["replicas"] for spec in replica_specs(job).values())


def find_port(job: Manifest, replica_type: str) -> int:
    """The port named pytorchjob-port of a replica type's training container."""
    containers = replica_specs(job)[replica_type]["template"]["spec"]["containers"]
    return next(
        (
            int(port["containerPort"])
            for container in containers
            if container["name"] == CONTAINER_NAME
            for port in container.get("ports") or []
            if port.get("name") == PORT_NAME
        ),
        DEFAULT_PORT,
    )


def _in_proper_case(specs: Manifest) -> Manifest:
    proper = {replica_type.lower(): replica_type for replica_type in REPLICA_TYPES}
    return {proper.get(key.lower(), key): value for key, value in specs.items()}


def _add_default_port(containers: list[Manifest]) -> None:
    container = next((c for c in containers if c["name"] == CONTAINER_NAME), containers[0])
    ports = container["ports"] = container.get("ports") or []
    if all(port.get("name") != PORT_NAME for port in ports):
        ports.append({"name": PORT_NAME, "containerPort": DEFAULT_PORT})


def _fill_elastic_bounds(elastic: Manifest, specs: Manifest) -> None:
    bounds = [elastic.get("minReplicas"), elastic.get("maxReplicas")]
    fallback = next(
        (bound for bound in bounds if bound is not None), specs.get(WORKER, {}).get("replicas", 1)
    )
    for key in ("minReplicas", "maxReplicas"):
        if elastic.get(key) is None:
            elastic[key] = fallback
