"""Typed configuration of a training job, and the builders that turn it into a custom resource.

A job runs a training program: one that ships with kubeloop, named, or the user's own image and
command. The program's contract: it reads `--dataset`, takes hyperparameters as `--name value`,
prints `name=value` metric lines, checkpoints to `--checkpoint`, and writes a model package to
`--model` from rank 0.

`PyTorchJobBuilder` serves clusters of today. The Training Operator's successor, TrainJob, becomes a
second builder behind the same `JobBuilder`. This module must stay cheap to import: no torch.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from kubeflow.training import (
    KubeflowOrgV1ElasticPolicy,
    KubeflowOrgV1PyTorchJob,
    KubeflowOrgV1PyTorchJobSpec,
    KubeflowOrgV1ReplicaSpec,
)
from kubeflow.training.constants import constants
from kubernetes.client import (
    V1Container,
    V1EnvFromSource,
    V1EnvVar,
    V1EnvVarSource,
    V1ObjectFieldSelector,
    V1ObjectMeta,
    V1PodSpec,
    V1PodTemplateSpec,
    V1ResourceRequirements,
    V1SecretEnvSource,
)

from kubeloop import __version__
from kubeloop.datasets.stores import OBJECT_STORE_SECRET
from kubeloop.errors import InputError
from kubeloop.registry import Registry
from kubeloop.training.placement import PodConfig, RunPolicyConfig, build_run_policy
from kubeloop.training.pod_values import (
    check_at_least,
    check_dns_label,
    check_keys,
    check_labels,
    check_object_names,
    check_quantity,
    check_variables,
)

Hyperparameter = str | int | float | bool
DEFAULT_IMAGE = f"kubeloop/runtime:{__version__}"
PROGRAMS: Registry[str] = Registry("training program")
"""Program name → module run as `python -m`."""
PROGRAMS.register("image", "kubeloop.training.programs.image")
PROGRAMS.register("text", "kubeloop.training.programs.text")

_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_FLAG = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_RESERVED_FLAGS = frozenset(
    {"code", "dataset", "model", "checkpoint", "variants", "variant_tolerance"}
)
_OWN_PROGRAM = "kubeloop.training.programs.own"
_NO_STRINGS: Mapping[str, str] = MappingProxyType({})
_NO_HYPERPARAMETERS: Mapping[str, Hyperparameter] = MappingProxyType({})


class RestartPolicy(StrEnum):
    """What happens to a replica whose process ended; the Training Operator's words."""

    ALWAYS = "Always"
    ON_FAILURE = "OnFailure"
    NEVER = "Never"
    EXIT_CODE = "ExitCode"


@dataclass(frozen=True, slots=True, kw_only=True)
class ElasticConfig:
    """A job that goes on with fewer workers, and takes in those that come.

    Its workers are equals: there is no master. Whenever one goes or comes, all start anew from the
    newest checkpoint, so give the job a place for those.
    """

    min_workers: int = 1
    """Workers without which the job waits."""
    max_workers: int = 2
    """Workers that take part at most."""
    max_restarts: int = 10
    """Failures of processes, and losses of peers, after which a worker gives up."""

    def __post_init__(self) -> None:
        """Refuse bounds that cannot work."""
        if not 1 <= self.min_workers <= self.max_workers or self.max_restarts < 0:
            raise InputError(
                "min_workers must be at least 1 and at most max_workers, and max_restarts not"
                f" negative, not {self.min_workers!r}, {self.max_workers!r} and"
                f" {self.max_restarts!r}."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJobConfig:
    """One training job: what runs, on which data, on how many processes."""

    name: str
    """Name of the custom resource: a DNS-1035 label; Katib replaces it in a trial template."""
    namespace: str = "default"
    """Namespace of the job."""
    program: str = "image"
    """A program of `PROGRAMS`; ignored where `command` is given."""
    image: str = DEFAULT_IMAGE
    """Container image; the default is kubeloop's own runtime."""
    code_uri: str = ""
    """Archive of the user's own program (see `code.py`), run in place of `program`."""
    command: tuple[str, ...] = ()
    """Command of the user's own program; empty: `program` is run."""
    dataset_uri: str = ""
    """Passed as `--dataset`; empty: not passed."""
    model_uri: str = ""
    """Passed as `--model`: where rank 0 writes the model package; empty: not passed."""
    checkpoint_uri: str = ""
    """Passed as `--checkpoint`: a prefix that outlives a pod; empty: no checkpoints."""
    hyperparameters: Mapping[str, Hyperparameter] = field(
        default_factory=lambda: _NO_HYPERPARAMETERS
    )
    """Passed as `--name value`; a value may be a Katib `${trialParameters.x}` placeholder."""
    variants: tuple[str, ...] = ()
    """Passed as `--variants`: other forms of the model that its package holds, `onnx` or `int8`."""
    variant_tolerance: float = 0.01
    """Passed as `--variant_tolerance`: validation accuracy that a variant may lose."""
    num_workers: int = 1
    """Replicas, the master included."""
    processes_per_worker: int = 1
    """Processes in each replica; above 1 torchrun starts them."""
    cpu: str = "1"
    """CPU request and limit of a replica; also its number of threads."""
    memory: str = "2Gi"
    """Memory request and limit of a replica."""
    num_gpus: int = 0
    """GPUs of a replica (`nvidia.com/gpu`)."""
    env: Mapping[str, str] = field(default_factory=lambda: _NO_STRINGS)
    """Environment of every replica."""
    env_secrets: tuple[str, ...] = (OBJECT_STORE_SECRET,)
    """Secrets whose keys become environment variables where the Secret exists."""
    labels: Mapping[str, str] = field(default_factory=lambda: _NO_STRINGS)
    """Labels of the job and its pods."""
    annotations: Mapping[str, str] = field(default_factory=lambda: _NO_STRINGS)
    """Annotations of the job."""
    run_id: str = ""
    """Pipeline run that the job belongs to, recorded in the model package."""
    restart_policy: RestartPolicy = RestartPolicy.EXIT_CODE
    """ExitCode: a program that fails (1 to 127) fails the job; one that is killed starts again."""
    run_policy: RunPolicyConfig = field(default_factory=RunPolicyConfig)
    """When the job is given up, kept and cleaned up."""
    pod: PodConfig = field(default_factory=PodConfig)
    """Where the pods run and what they share."""
    elastic: ElasticConfig | None = None
    """Let the job lose and gain workers; unset: it has `num_workers` or none."""

    def __post_init__(self) -> None:
        """Refuse what the operator or the program would refuse later, less clearly."""
        if not _DNS_1035.fullmatch(self.name):
            raise InputError(
                f"Job name {self.name!r} is not a DNS-1035 label: use at most 63 lower-case"
                " letters, digits and '-', starting with a letter."
            )
        if not self.command and self.program not in PROGRAMS:
            PROGRAMS[self.program]
        for name, count, least in (
            ("num_workers", self.num_workers, 1),
            ("processes_per_worker", self.processes_per_worker, 1),
            ("num_gpus", self.num_gpus, 0),
        ):
            check_at_least(name, count, least)
        self._check_pod_values()
        elastic = self.elastic
        if elastic and not elastic.min_workers <= self.num_workers <= elastic.max_workers:
            raise InputError(
                f"num_workers must be from {elastic.min_workers} to {elastic.max_workers}, the"
                f" bounds of the elastic job, not {self.num_workers!r}."
            )
        for name, value in self.hyperparameters.items():
            _check_hyperparameter(name, value)

    def _check_pod_values(self) -> None:
        check_dns_label("namespace", self.namespace)
        if not self.image:
            raise InputError("image must name a container image.")
        for name, amount in (("cpu", self.cpu), ("memory", self.memory)):
            check_quantity(name, amount)
        check_variables("env", self.env)
        check_object_names("env_secrets", self.env_secrets)
        check_labels("labels", self.labels)
        check_keys("annotations", self.annotations)

    @property
    def uses_torchrun(self) -> bool:
        """Whether torchrun starts the processes of a replica."""
        return self.elastic is not None or self.processes_per_worker > 1


def _check_hyperparameter(name: str, value: object) -> None:
    if name in _RESERVED_FLAGS:
        raise InputError(
            f"Hyperparameter name {name!r} is taken: --{name} is part of every training program's"
            " contract. (The image program's backbone is its `architecture`.)"
        )
    if not _FLAG.fullmatch(name):
        raise InputError(f"Hyperparameter name {name!r} cannot be a command-line flag.")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"Hyperparameter {name} must be finite, not {value!r}.")
    if not isinstance(value, str | int | float):
        raise InputError(
            f"Hyperparameter {name} must be text, a number or a boolean, not {value!r}."
        )


def render_value(value: Hyperparameter) -> str:
    """Write a hyperparameter as its command-line text, without loss."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else repr(value)


def render_command(config: TrainingJobConfig) -> list[str]:
    """Return the command of a replica, before its arguments."""
    if config.command:
        return list(config.command)
    module = _OWN_PROGRAM if config.code_uri else PROGRAMS[config.program]
    if config.code_uri or not config.uses_torchrun:
        return ["python", "-u", "-m", module]
    return ["python", "-u", "-m", "kubeloop.training.launch", "-m", module]


def render_arguments(config: TrainingJobConfig) -> list[str]:
    """Return the arguments that the contract of a training program prescribes."""
    arguments: list[str] = []
    for name, uri in (
        ("code", config.code_uri),
        ("dataset", config.dataset_uri),
        ("model", config.model_uri),
        ("checkpoint", config.checkpoint_uri),
    ):
        if uri:
            arguments += [f"--{name}", uri]
    if config.variants:
        arguments += ["--variants", ",".join(config.variants)]
        arguments += ["--variant_tolerance", render_value(config.variant_tolerance)]
    for name, value in config.hyperparameters.items():
        arguments += [f"--{name}", render_value(value)]
    return arguments


class JobBuilder(ABC):
    """Turns a `TrainingJobConfig` into a custom resource that a training operator runs.

    `build` returns the SDK's typed object; it reads nothing but its argument and may be called any
    number of times with the same result. `kind` and `container` name what a Katib trial template
    needs to know: the custom resource's kind and the container whose output holds the metrics.
    """

    api_version: str
    kind: str
    container: str

    @abstractmethod
    def build(self, config: TrainingJobConfig) -> Any:  # Any: each SDK has its own model classes
        """Build the custom resource.

        Raises:
            InputError: The configuration asks for what this kind of job cannot do.
        """

    @abstractmethod
    def render(self, config: TrainingJobConfig) -> dict[str, Any]:
        """Build the custom resource as a manifest, for templates and `kubectl`."""


class PyTorchJobBuilder(JobBuilder):
    """Builds the Training Operator's PyTorchJob: one Master, the rest Workers."""

    api_version = constants.API_VERSION
    kind = constants.PYTORCHJOB_KIND
    container = constants.PYTORCHJOB_CONTAINER

    def build(self, config: TrainingJobConfig) -> KubeflowOrgV1PyTorchJob:
        """Build the job."""
        elastic = config.elastic
        return KubeflowOrgV1PyTorchJob(
            api_version=self.api_version,
            kind=self.kind,
            metadata=V1ObjectMeta(
                name=config.name,
                namespace=config.namespace,
                labels=_build_job_labels(config),
                annotations=dict(config.annotations) or None,
            ),
            spec=KubeflowOrgV1PyTorchJobSpec(
                nproc_per_node=str(config.processes_per_worker) if config.uses_torchrun else None,
                elastic_policy=_build_elastic_policy(elastic) if elastic else None,
                pytorch_replica_specs=self._build_replicas(config),
                run_policy=build_run_policy(
                    config.run_policy, config.pod.gang, num_replicas=config.num_workers
                ),
            ),
        )

    def render(self, config: TrainingJobConfig) -> dict[str, Any]:
        """Build the job as a manifest."""
        from kubernetes.client import ApiClient

        manifest: dict[str, Any] = ApiClient().sanitize_for_serialization(self.build(config))
        return manifest

    def _build_replicas(self, config: TrainingJobConfig) -> dict[str, KubeflowOrgV1ReplicaSpec]:
        master, worker = constants.REPLICA_TYPE_MASTER, constants.REPLICA_TYPE_WORKER
        if config.elastic is not None:
            return {worker: self._build_replica(config, replicas=config.num_workers)}
        replicas = {master: self._build_replica(config, replicas=1)}
        if config.num_workers > 1:
            replicas[worker] = self._build_replica(config, replicas=config.num_workers - 1)
        return replicas

    def _build_replica(
        self, config: TrainingJobConfig, *, replicas: int
    ) -> KubeflowOrgV1ReplicaSpec:
        return KubeflowOrgV1ReplicaSpec(
            replicas=replicas,
            restart_policy=config.restart_policy.value,
            template=V1PodTemplateSpec(
                metadata=V1ObjectMeta(
                    labels=_build_labels(config),
                    # NB: with Istio's sidecar a finished pod never completes.
                    annotations={constants.ISTIO_SIDECAR_INJECTION: "false"},
                ),
                spec=config.pod.complete(V1PodSpec(containers=[self._build_container(config)])),
            ),
        )

    def _build_container(self, config: TrainingJobConfig) -> V1Container:
        quantities: dict[str, str] = {"cpu": config.cpu, "memory": config.memory}
        if config.num_gpus:
            quantities["nvidia.com/gpu"] = str(config.num_gpus)
        return V1Container(
            name=self.container,
            image=config.image,
            image_pull_policy=config.pod.image_pull_policy or None,
            volume_mounts=config.pod.build_mounts(),
            command=render_command(config),
            args=render_arguments(config),
            env=_build_env(config),
            env_from=[
                V1EnvFromSource(secret_ref=V1SecretEnvSource(name=name, optional=True))
                for name in config.env_secrets
            ]
            or None,
            resources=V1ResourceRequirements(requests=quantities, limits=dict(quantities)),
        )


def _build_labels(config: TrainingJobConfig) -> dict[str, str] | None:
    labels = dict(config.labels)
    if config.run_id:
        labels["pipeline/runid"] = config.run_id
    return labels or None


def _build_job_labels(config: TrainingJobConfig) -> dict[str, str] | None:
    labels = _build_labels(config) or {}
    return {**labels, **(config.pod.gang.render_labels() if config.pod.gang else {})} or None


def _build_elastic_policy(elastic: ElasticConfig) -> KubeflowOrgV1ElasticPolicy:
    return KubeflowOrgV1ElasticPolicy(
        min_replicas=elastic.min_workers,
        max_replicas=elastic.max_workers,
        max_restarts=elastic.max_restarts,
        rdzv_backend="c10d",
    )


def _build_env(config: TrainingJobConfig) -> list[V1EnvVar]:
    """Provenance first, so that the user's own variables may refer to it."""
    job_name = V1ObjectFieldSelector(field_path=f"metadata.labels['{constants.JOB_NAME_LABEL}']")
    env = [
        V1EnvVar(name="KUBELOOP_JOB_NAME", value_from=V1EnvVarSource(field_ref=job_name)),
        V1EnvVar(name="KUBELOOP_RUN_ID", value=config.run_id),
    ]
    env += [V1EnvVar(name=name, value=value) for name, value in config.env.items()]
    return env


JOB_BUILDERS: Registry[JobBuilder] = Registry("job builder")
JOB_BUILDERS.register(PyTorchJobBuilder.kind, PyTorchJobBuilder())
