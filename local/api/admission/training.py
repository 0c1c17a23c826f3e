"""Refuses PyTorchJobs as Training Operator's webhook and resource definition do.

The webhook's verdict is a plain 403 that lists every fault; a field of the wrong type is the
resource definition's 422 and comes first. One default is the definition's, of `runPolicy.suspend`;
all others exist in the operator alone, and the stored spec stays as written.

Source: training-operator v1.9 `pytorchjob_webhook.go`, `common/util/webhooks.go`, the CRD.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import ClassVar

from kubeloop.errors import ApiError
from kubeloop.local.api.admission.base import Admission
from kubeloop.local.api.admission.shapes import find_wrong_types
from kubeloop.local.api.refusals import (
    FieldError,
    invalid,
    value_forbidden,
    value_invalid,
    value_required,
    value_unsupported,
)
from kubeloop.local.api.resources import PYTORCH_JOBS, Resource
from kubeloop.local.client import Manifest

_WEBHOOK = "validator.pytorchjob.training-operator.kubeflow.org"
_MANAGERS = ("kubeflow.org/training-operator", "kueue.x-k8s.io/multikueue")
_REPLICA_TYPES = ("Master", "Worker")
_CONTAINER_NAME = "pytorch"
_REPLICA_SPECS = "spec.pytorchReplicaSpecs"
_MAX_NAME_LENGTH = 63
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_NAME_RULE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
    "alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', "
    "regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_REPLICA_SCHEMA = {
    "replicas": int,
    "restartPolicy": str,
    "template": {"metadata": dict, "spec": {"containers": [dict]}},
}
_SCHEMA = {
    "nprocPerNode": str,
    "elasticPolicy": {
        "minReplicas": int,
        "maxReplicas": int,
        "maxRestarts": int,
        "nProcPerNode": int,
        "rdzvPort": int,
        "rdzvHost": str,
        "rdzvId": str,
        "rdzvBackend": str,
        "rdzvConf": [dict],
        "standalone": bool,
        "metrics": [dict],
    },
    "runPolicy": {
        "activeDeadlineSeconds": int,
        "backoffLimit": int,
        "cleanPodPolicy": str,
        "managedBy": str,
        "schedulingPolicy": {
            "minAvailable": int,
            "minResources": dict,
            "priorityClass": str,
            "queue": str,
            "scheduleTimeoutSeconds": int,
        },
        "suspend": bool,
        "ttlSecondsAfterFinished": int,
    },
}


class PyTorchJobAdmission(Admission):
    """Validates PyTorchJobs on create and update."""

    resource: ClassVar[Resource] = PYTORCH_JOBS

    def default(self, manifest: Manifest) -> Manifest:
        """Say of a run policy that says nothing of it that the job is not suspended."""
        spec = manifest.get("spec")
        run_policy = spec.get("runPolicy") if isinstance(spec, dict) else None
        if isinstance(run_policy, dict):
            run_policy.setdefault("suspend", False)
        return manifest

    def validate(self, manifest: Manifest, old: Manifest | None) -> None:
        """Refuse a job that the operator could not run.

        Raises:
            InvalidError: A field has the wrong type, or an immutable one changed.
            ApiError: 403, a rule of the webhook is broken.
        """
        name = manifest["metadata"]["name"]
        if wrong := [*_find_wrong_types(manifest)] or [*_find_changed_queue(manifest, old)]:
            raise invalid(PYTORCH_JOBS, name, wrong)
        texts = dict.fromkeys(f"{fault.field}: {fault.message}" for fault in _find_faults(manifest))
        if not texts:
            return
        listed = next(iter(texts)) if len(texts) == 1 else f"[{', '.join(texts)}]"
        raise ApiError(
            f'admission webhook "{_WEBHOOK}" denied the request: {listed}',
            status=403,
            reason="Forbidden",
        )

    def warn(self, manifest: Manifest) -> Iterable[str]:
        """Point from the deprecated field to its successor."""
        elastic = (manifest.get("spec") or {}).get("elasticPolicy") or {}
        if elastic.get("nProcPerNode") is not None:
            yield "spec.elasticPolicy.nProcPerNode is deprecated, use spec.nprocPerNode instead"


def _find_faults(manifest: Manifest) -> Iterator[FieldError]:
    name = manifest["metadata"]["name"]
    spec = manifest.get("spec") or {}
    if rules := ",".join(_find_broken_name_rules(name)):
        yield value_invalid("metadata.name", name, f"should match: {rules}")
    manager = (spec.get("runPolicy") or {}).get("managedBy")
    if manager is not None and manager not in _MANAGERS:
        yield value_unsupported("spec.runPolicy.managedBy", manager, _MANAGERS)
    replica_specs = spec.get("pytorchReplicaSpecs")
    elastic = spec.get("elasticPolicy")
    if elastic is not None:
        if "Worker" not in (replica_specs or {}):
            yield value_required(
                f"{_REPLICA_SPECS}[Worker]", "must be configured if elastic policy is used"
            )
        if elastic.get("nProcPerNode") is not None and spec.get("nprocPerNode") is not None:
            yield value_forbidden(
                "spec.elasticPolicy.nProcPerNode", "must not be used with spec.nprocPerNode"
            )
    if replica_specs is None:
        yield value_required(_REPLICA_SPECS, "must be required")
    for replica_type, replica_spec in (replica_specs or {}).items():
        yield from _find_replica_faults(replica_type, replica_spec or {})


def _find_broken_name_rules(name: str) -> Iterator[str]:
    if len(name) > _MAX_NAME_LENGTH:
        yield f"must be no more than {_MAX_NAME_LENGTH} characters"
    if not _NAME.fullmatch(name):
        yield _NAME_RULE


def _find_replica_faults(replica_type: str, replica_spec: Manifest) -> Iterator[FieldError]:
    path = f"{_REPLICA_SPECS}[{replica_type}]"
    containers_path = f"{path}.template.spec.containers"
    if replica_type not in _REPLICA_TYPES:
        yield value_unsupported(path, replica_type, _REPLICA_TYPES)
    template = replica_spec.get("template") or {}
    containers = (template.get("spec") or {}).get("containers") or []
    if not containers:
        yield value_required(containers_path, "must be specified")
    for index, container in enumerate(containers):
        if not container.get("image"):
            yield value_required(f"{containers_path}[{index}].image", "must be required")
    if all(container.get("name") != _CONTAINER_NAME for container in containers):
        yield value_required(
            containers_path, f"must have at least one container with name {_CONTAINER_NAME}"
        )
    replicas = replica_spec.get("replicas")
    if replica_type == "Master" and replicas != 1:
        yield value_forbidden(f"{path}.replicas", "must be 1")
    elif replica_type != "Master" and replicas is not None and replicas < 1:
        yield value_forbidden(f"{path}.replicas", "must be at least 1")


def _find_changed_queue(manifest: Manifest, old: Manifest | None) -> Iterator[FieldError]:
    queue, old_queue = (
        (((m.get("spec") or {}).get("runPolicy") or {}).get("schedulingPolicy") or {}).get("queue")
        for m in (manifest, old or manifest)
    )
    if None not in (queue, old_queue) and queue != old_queue:
        path = "spec.runPolicy.schedulingPolicy.queue"
        yield value_invalid(path, queue, f"{path} is immutable")


def _find_wrong_types(manifest: Manifest) -> Iterator[FieldError]:
    spec = manifest.get("spec")
    replica_specs = spec.get("pytorchReplicaSpecs") if isinstance(spec, dict) else None
    names = replica_specs if isinstance(replica_specs, dict) else {}
    schema = {**_SCHEMA, "pytorchReplicaSpecs": dict.fromkeys(names, _REPLICA_SCHEMA)}
    yield from find_wrong_types("spec", spec, schema)
