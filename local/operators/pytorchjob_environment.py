"""The environment through which the processes of a PyTorchJob find each other.

`MASTER_*`, `RANK` and `WORLD_SIZE` are read by `torch.distributed`, `PET_*` by torchrun. They name
pods and ports as a cluster does; the pod runner translates both for processes of one host.

Source: training-operator v1.9 `pytorch/envvar.go`, `master.go`, `elastic.go`.
"""

from __future__ import annotations

from kubeloop.local.client import Manifest
from kubeloop.local.operators.pytorchjob_spec import (
    MASTER,
    WORKER,
    count_replicas,
    find_port,
    has_master,
)


def build_environment(job: Manifest, *, replica_type: str, index: int) -> list[Manifest]:
    """What one replica's containers get after the user's own variables, in upstream's order.

    Args:
        job: The job with its defaults.
        replica_type: Master or Worker.
        index: The replica's index within its type.
    """
    spec = job["spec"]
    values = {"PYTHONUNBUFFERED": "1"}
    if has_master(job):
        values |= _describe_master(job, rank=index + 1 if replica_type == WORKER else index)
    if spec.get("nprocPerNode") is not None:
        values["PET_NPROC_PER_NODE"] = spec["nprocPerNode"]
    if spec.get("elasticPolicy") is None:
        values["PET_NNODES"] = str(count_replicas(job))
        return _as_list(values)
    return _as_list(values) + _as_list(_describe_elastic(job))


def _as_list(values: dict[str, str]) -> list[Manifest]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _describe_master(job: Manifest, *, rank: int) -> dict[str, str]:
    port = str(find_port(job, MASTER))
    address = f"{job['metadata']['name']}-master-0"
    return {
        "MASTER_PORT": port,
        "PET_MASTER_PORT": port,
        "MASTER_ADDR": address,
        "PET_MASTER_ADDR": address,
        "WORLD_SIZE": str(count_replicas(job) * _count_processes(job)),
        "RANK": str(rank),
        "PET_NODE_RANK": str(rank),
    }


def _count_processes(job: Manifest) -> int:
    """Processes a replica; words such as auto are resolved inside the process and count one."""
    try:
        return int(job["spec"].get("nprocPerNode") or 1)
    except ValueError:
        return 1


def _describe_elastic(job: Manifest) -> dict[str, str]:
    elastic = job["spec"]["elasticPolicy"]
    host = elastic.get("rdzvHost") or f"{job['metadata']['name']}-worker-0"
    port = elastic.get("rdzvPort") or find_port(job, WORKER)
    values = {
        "PET_RDZV_ENDPOINT": f"{host}:{port}",
        "PET_RDZV_BACKEND": elastic.get("rdzvBackend") or "c10d",
        "PET_NNODES": f"{elastic['minReplicas']}:{elastic['maxReplicas']}",
    }
    optional = {
        "PET_MAX_RESTARTS": elastic.get("maxRestarts"),
        "PET_NPROC_PER_NODE": elastic.get("nProcPerNode"),
        "PET_RDZV_ID": elastic.get("rdzvId"),
    }
    values |= {name: str(value) for name, value in optional.items() if value is not None}
    if pairs := elastic.get("rdzvConf"):
        values["PET_RDZV_CONF"] = ",".join(
            f"{pair.get('key', '')}={pair.get('value', '')}" for pair in pairs
        )
    if elastic.get("standalone"):
        values["PET_STANDALONE"] = ""
    return values
