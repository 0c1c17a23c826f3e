"""Where the pods of a job run, and what they share: typed configuration and its Kubernetes form.

Gang scheduling starts the replicas of a job all together or not at all. Volcano is told through the
job's scheduling policy and the pods' scheduler, Kueue through labels of the job, which it starts
suspended. This module must stay cheap to import: no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from kubeflow.training import KubeflowOrgV1RunPolicy, KubeflowOrgV1SchedulingPolicy
from kubernetes.client import (
    V1ConfigMapVolumeSource,
    V1EmptyDirVolumeSource,
    V1LocalObjectReference,
    V1PersistentVolumeClaimVolumeSource,
    V1PodSpec,
    V1SecretVolumeSource,
    V1Toleration,
    V1Volume,
    V1VolumeMount,
)

from kubeloop.errors import InputError
from kubeloop.training.pod_values import (
    check_at_least,
    check_choice,
    check_dns_label,
    check_keys,
    check_labels,
    check_object_names,
    check_quantity,
)

_TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_AFFINITIES = frozenset({"nodeAffinity", "podAffinity", "podAntiAffinity"})
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_NO_STRINGS: Mapping[str, str] = MappingProxyType({})
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_SHARED_MEMORY = "shared-memory"
KUEUE_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
KUEUE_PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"


class CleanPodPolicy(StrEnum):
    """Which pods a finished job leaves; the Training Operator's words."""

    NONE = "None"
    """None is deleted."""
    RUNNING = "Running"
    """Those that still run are deleted."""
    ALL = "All"
    """All are deleted, and their logs with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPolicyConfig:
    """When a job is given up, kept and cleaned up."""

    backoff_limit: int | None = None
    """Restarts in place before the job fails; unset: no limit."""
    active_deadline_seconds: int | None = None
    """Seconds after which a running job is failed; unset: no limit."""
    ttl_seconds_after_finished: int | None = None
    """Seconds after which a finished job is deleted; unset: it is kept."""
    clean_pod_policy: CleanPodPolicy = CleanPodPolicy.NONE
    """Which pods a finished job leaves."""
    suspend: bool = False
    """Create the job without pods, until somebody resumes it."""

    def __post_init__(self) -> None:
        """Refuse what the operator would refuse."""
        for name in ("backoff_limit", "active_deadline_seconds", "ttl_seconds_after_finished"):
            check_at_least(name, getattr(self, name), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Toleration:
    """A taint of nodes that the pods do not mind."""

    key: str = ""
    """Key of the taint; empty: any."""
    value: str = ""
    """Value of the taint; empty: any."""
    effect: str = ""
    """`NoSchedule`, `PreferNoSchedule` or `NoExecute`; empty: any."""
    seconds: int | None = None
    """How long a `NoExecute` taint is minded not; unset: always."""

    def __post_init__(self) -> None:
        """Refuse what no taint has."""
        check_keys("Toleration.key", [self.key] if self.key else [])
        check_choice("Toleration.effect", self.effect, _TAINT_EFFECTS)
        check_at_least("Toleration.seconds", self.seconds, 0)
        if self.seconds is not None and self.effect != "NoExecute":
            raise InputError(
                f"Toleration.seconds is for the effect NoExecute alone, not {self.effect!r}."
            )
        if self.value and not self.key:
            raise InputError(f"Toleration.value {self.value!r} needs a key.")


class VolumeKind(StrEnum):
    """What a volume is made from."""

    CLAIM = "claim"
    """A PersistentVolumeClaim."""
    CONFIG_MAP = "config_map"
    SECRET = "secret"  # noqa: S105  # a kind of volume
    EMPTY = "empty"
    """A folder that lives and dies with the pod; `source` is its size limit, or empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeConfig:
    """A volume of every pod, mounted into the training container."""

    name: str
    mount_path: str
    """Absolute path in the container."""
    kind: VolumeKind
    source: str = ""
    """Name of the claim, config map or secret."""
    read_only: bool = False
    sub_path: str = ""
    """Folder of the volume that is mounted; empty: all of it."""

    def __post_init__(self) -> None:
        """Refuse what Kubernetes would refuse less clearly."""
        check_dns_label("VolumeConfig.name", self.name)
        if not self.mount_path.startswith("/"):
            raise InputError(f"mount_path must be absolute, not {self.mount_path!r}.")
        if self.kind is not VolumeKind.EMPTY and not self.source:
            raise InputError(f"Volume {self.name!r} needs the name of its {self.kind} as source.")
        if self.kind is not VolumeKind.EMPTY:
            check_object_names("VolumeConfig.source", [self.source])
        elif self.source:
            check_quantity("VolumeConfig.source", self.source)
        if self.sub_path.startswith("/") or ".." in self.sub_path.split("/"):
            raise InputError(f"sub_path must stay in the volume, not be {self.sub_path!r}.")


class GangScheduler(StrEnum):
    """Who starts the replicas all together."""

    VOLCANO = "volcano"
    KUEUE = "kueue"


@dataclass(frozen=True, slots=True, kw_only=True)
class GangConfig:
    """Start all replicas together or none."""

    scheduler: GangScheduler
    queue: str
    """Queue of the scheduler; for Kueue a LocalQueue of the namespace."""
    priority_class: str = ""
    """Priority of the job in its queue; for Kueue a WorkloadPriorityClass."""
    min_available: int | None = None
    """Volcano: replicas that must start together; unset: all."""
    timeout_seconds: int | None = None
    """Volcano: how long a gang may wait; unset: for ever."""

    def __post_init__(self) -> None:
        """Refuse what Kueue does not know."""
        check_object_names("queue", [self.queue])
        check_object_names("priority_class", [self.priority_class] if self.priority_class else [])
        check_at_least("min_available", self.min_available, 1)
        check_at_least("timeout_seconds", self.timeout_seconds, 1)
        volcano_only = self.min_available is not None or self.timeout_seconds is not None
        if self.scheduler is GangScheduler.KUEUE and volcano_only:
            raise InputError("min_available and timeout_seconds are Volcano's; Kueue has no such.")

    def render_labels(self) -> dict[str, str]:
        """Return the labels of the job."""
        if self.scheduler is GangScheduler.VOLCANO:
            return {}
        priority = {KUEUE_PRIORITY_LABEL: self.priority_class} if self.priority_class else {}
        return {KUEUE_QUEUE_LABEL: self.queue, **priority}


@dataclass(frozen=True, slots=True, kw_only=True)
class PodConfig:
    """What all pods of a job have beside their container's command and resources."""

    node_selector: Mapping[str, str] = field(default_factory=lambda: _NO_STRINGS)
    """Labels of the nodes that may be used."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints that are not minded."""
    affinity: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    """Kubernetes' `affinity` as a manifest."""
    priority_class: str = ""
    """PriorityClass of the pods; empty: the cluster's default."""
    gang: GangConfig | None = None
    """Start all replicas together; unset: each as soon as it fits."""
    volumes: tuple[VolumeConfig, ...] = ()
    """Volumes of every pod."""
    shared_memory: str = ""
    """Size of /dev/shm, through which data loaders hand batches over; empty: the runtime's 64Mi."""
    service_account: str = ""
    """Service account of the pods; empty: the namespace's default."""
    image_pull_policy: str = ""
    """`Always`, `IfNotPresent` or `Never`; empty: Kubernetes' default."""
    image_pull_secrets: tuple[str, ...] = ()
    """Secrets for the registry that the image comes from."""
    termination_grace_seconds: int | None = None
    """Time between SIGTERM and SIGKILL, for the last checkpoint; unset: Kubernetes' 30."""

    def __post_init__(self) -> None:
        """Refuse what Kubernetes would refuse, and volumes that are in each other's way."""
        check_labels("node_selector", self.node_selector)
        if unknown := self.affinity.keys() - _AFFINITIES:
            raise InputError(
                f"affinity has {sorted(unknown)}; it may have {', '.join(sorted(_AFFINITIES))}."
            )
        for name in ("priority_class", "service_account"):
            check_object_names(name, [getattr(self, name)] if getattr(self, name) else [])
        check_object_names("image_pull_secrets", self.image_pull_secrets)
        check_choice("image_pull_policy", self.image_pull_policy, _PULL_POLICIES)
        check_at_least("termination_grace_seconds", self.termination_grace_seconds, 0)
        if self.shared_memory:
            check_quantity("shared_memory", self.shared_memory)
        names = [volume.name for volume in self.volumes]
        paths = [volume.mount_path for volume in self.volumes]
        names += [_SHARED_MEMORY] if self.shared_memory else []
        paths += ["/dev/shm"] if self.shared_memory else []  # noqa: S108  # where it is mounted
        for values in (names, paths):
            if twice := sorted({value for value in values if values.count(value) > 1}):
                raise InputError(f"Two volumes are named or mounted as {twice[0]!r}.")

    def build_mounts(self) -> list[V1VolumeMount] | None:
        """Return the mounts of the training container."""
        mounts = [
            V1VolumeMount(
                name=volume.name,
                mount_path=volume.mount_path,
                read_only=volume.read_only or None,
                sub_path=volume.sub_path or None,
            )
            for volume in self.volumes
        ]
        if self.shared_memory:
            mounts.append(V1VolumeMount(name=_SHARED_MEMORY, mount_path="/dev/shm"))  # noqa: S108
        return mounts or None

    def complete(self, spec: V1PodSpec) -> V1PodSpec:
        """Fill in everything that concerns the pod as a whole."""
        spec.node_selector = dict(self.node_selector) or None
        spec.tolerations = [_build_toleration(entry) for entry in self.tolerations] or None
        spec.affinity = dict(self.affinity) or None
        spec.priority_class_name = self.priority_class or None
        spec.service_account_name = self.service_account or None
        spec.image_pull_secrets = [
            V1LocalObjectReference(name=name) for name in self.image_pull_secrets
        ] or None
        spec.termination_grace_period_seconds = self.termination_grace_seconds
        spec.volumes = [_build_volume(volume) for volume in self.volumes]
        if self.shared_memory:
            memory = V1EmptyDirVolumeSource(medium="Memory", size_limit=self.shared_memory)
            spec.volumes.append(V1Volume(name=_SHARED_MEMORY, empty_dir=memory))
        spec.volumes = spec.volumes or None
        if self.gang is not None and self.gang.scheduler is GangScheduler.VOLCANO:
            spec.scheduler_name = GangScheduler.VOLCANO.value
        return spec


def build_run_policy(
    policy: RunPolicyConfig, gang: GangConfig | None, *, num_replicas: int
) -> KubeflowOrgV1RunPolicy:
    """Return the job's `runPolicy`, with the gang's part in it."""
    scheduling = None
    if gang is not None and gang.scheduler is GangScheduler.VOLCANO:
        scheduling = KubeflowOrgV1SchedulingPolicy(
            queue=gang.queue,
            priority_class=gang.priority_class or None,
            min_available=num_replicas if gang.min_available is None else gang.min_available,
            schedule_timeout_seconds=gang.timeout_seconds,
        )
    is_queued = gang is not None and gang.scheduler is GangScheduler.KUEUE
    return KubeflowOrgV1RunPolicy(
        clean_pod_policy=policy.clean_pod_policy.value,
        backoff_limit=policy.backoff_limit,
        active_deadline_seconds=policy.active_deadline_seconds,
        ttl_seconds_after_finished=policy.ttl_seconds_after_finished,
        # NB: Kueue admits suspended jobs and resumes them itself.
        suspend=True if policy.suspend or is_queued else None,
        scheduling_policy=scheduling,
    )


def _build_toleration(toleration: Toleration) -> V1Toleration:
    return V1Toleration(
        key=toleration.key or None,
        operator="Equal" if toleration.value else "Exists",
        value=toleration.value or None,
        effect=toleration.effect or None,
        toleration_seconds=toleration.seconds,
    )


def _build_volume(volume: VolumeConfig) -> V1Volume:
    match volume.kind:
        case VolumeKind.CLAIM:
            claim = V1PersistentVolumeClaimVolumeSource(
                claim_name=volume.source, read_only=volume.read_only or None
            )
            return V1Volume(name=volume.name, persistent_volume_claim=claim)
        case VolumeKind.CONFIG_MAP:
            source = V1ConfigMapVolumeSource(name=volume.source)
            return V1Volume(name=volume.name, config_map=source)
        case VolumeKind.SECRET:
            return V1Volume(
                name=volume.name, secret=V1SecretVolumeSource(secret_name=volume.source)
            )
        case VolumeKind.EMPTY:
            folder = V1EmptyDirVolumeSource(size_limit=volume.source or None)
            return V1Volume(name=volume.name, empty_dir=folder)
