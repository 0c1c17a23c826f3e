"""The kinds the embedded API serves, one entry a kind.

Everything that differs between kinds (names, scope, subresources, printer columns) is data here,
so that the server, discovery, the clients and the operators read it from one table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A printer column: header, JSON type, and a path such as `.status.phase`."""

    name: str
    type: str
    path: str
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One served kind."""

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    has_status: bool = True
    columns: tuple[Column, ...] = field(default=())

    @property
    def api_version(self) -> str:
        """For example `v1` or `batch/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified_name(self) -> str:
        """The name Kubernetes prints in errors: `pods`, `pytorchjobs.kubeflow.org`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


def _core(kind: str, plural: str, **extra: object) -> Resource:
    return Resource(
        group="",
        version="v1",
        kind=kind,
        plural=plural,
        singular=kind.lower(),
        **extra,  # type: ignore[arg-type]  # keyword pass-through
    )


_ALL = ("all",)
_KATIB = ("all", "kubeflow", "katib")

NAMESPACES = _core("Namespace", "namespaces", namespaced=False, short_names=("ns",))
NODES = _core("Node", "nodes", namespaced=False, short_names=("no",))
PODS = _core("Pod", "pods", short_names=("po",), categories=_ALL)
SERVICES = _core("Service", "services", short_names=("svc",), categories=_ALL)
EVENTS = _core("Event", "events", short_names=("ev",), has_status=False)
CONFIG_MAPS = _core("ConfigMap", "configmaps", short_names=("cm",), has_status=False)
SECRETS = _core("Secret", "secrets", has_status=False)
SERVICE_ACCOUNTS = _core("ServiceAccount", "serviceaccounts", short_names=("sa",), has_status=False)
PERSISTENT_VOLUME_CLAIMS = _core(
    "PersistentVolumeClaim", "persistentvolumeclaims", short_names=("pvc",)
)
DEPLOYMENTS = Resource(
    group="apps",
    version="v1",
    kind="Deployment",
    plural="deployments",
    singular="deployment",
    short_names=("deploy",),
    categories=_ALL,
)
JOBS = Resource(
    group="batch", version="v1", kind="Job", plural="jobs", singular="job", categories=_ALL
)
PYTORCH_JOBS = Resource(
    group="kubeflow.org",
    version="v1",
    kind="PyTorchJob",
    plural="pytorchjobs",
    singular="pytorchjob",
)
EXPERIMENTS = Resource(
    group="kubeflow.org",
    version="v1beta1",
    kind="Experiment",
    plural="experiments",
    singular="experiment",
    categories=_KATIB,
)
SUGGESTIONS = Resource(
    group="kubeflow.org",
    version="v1beta1",
    kind="Suggestion",
    plural="suggestions",
    singular="suggestion",
    categories=_KATIB,
)
TRIALS = Resource(
    group="kubeflow.org",
    version="v1beta1",
    kind="Trial",
    plural="trials",
    singular="trial",
    categories=_KATIB,
)
INFERENCE_SERVICES = Resource(
    group="serving.kserve.io",
    version="v1beta1",
    kind="InferenceService",
    plural="inferenceservices",
    singular="inferenceservice",
    short_names=("isvc",),
)
SERVING_RUNTIMES = Resource(
    group="serving.kserve.io",
    version="v1alpha1",
    kind="ServingRuntime",
    plural="servingruntimes",
    singular="servingruntime",
)
CLUSTER_SERVING_RUNTIMES = Resource(
    group="serving.kserve.io",
    version="v1alpha1",
    kind="ClusterServingRuntime",
    plural="clusterservingruntimes",
    singular="clusterservingruntime",
    namespaced=False,
)

RESOURCES: tuple[Resource, ...] = (
    NAMESPACES,
    NODES,
    PODS,
    SERVICES,
    EVENTS,
    CONFIG_MAPS,
    SECRETS,
    SERVICE_ACCOUNTS,
    PERSISTENT_VOLUME_CLAIMS,
    DEPLOYMENTS,
    JOBS,
    PYTORCH_JOBS,
    EXPERIMENTS,
    SUGGESTIONS,
    TRIALS,
    INFERENCE_SERVICES,
    SERVING_RUNTIMES,
    CLUSTER_SERVING_RUNTIMES,
)


def find_by_kind(api_version: str, kind: str) -> Resource | None:
    """The resource of a manifest's apiVersion and kind, None when it is not served."""
    return next((r for r in RESOURCES if r.api_version == api_version and r.kind == kind), None)


def find_by_plural(group: str, version: str, plural: str) -> Resource | None:
    """The resource at a URL's group, version and plural, None when it is not served."""
    return next(
        (r for r in RESOURCES if (r.group, r.version, r.plural) == (group, version, plural)), None
    )


def groups() -> Iterator[tuple[str, str]]:
    """(group, version) pairs served, in table order, each once."""
    yield from dict.fromkeys((r.group, r.version) for r in RESOURCES)
