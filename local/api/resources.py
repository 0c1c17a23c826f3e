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
class Scale:
    """Where a kind keeps what the `scale` subresource shows: paths such as `.spec.replicas`."""

    spec_replicas: str
    status_replicas: str
    selector: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Resource:
    """One served kind; an entry of the one table, compared by identity."""

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
    selectable_fields: tuple[str, ...] = ()
    """Field selector paths besides `metadata.name` and `metadata.namespace`."""
    scale: Scale | None = None

    @property
    def api_version(self) -> str:
        """For example `v1` or `batch/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified_name(self) -> str:
        """The name Kubernetes prints in errors: `pods`, `pytorchjobs.kubeflow.org`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified_kind(self) -> str:
        """The kind Kubernetes prints in validation errors: `Pod`, `PyTorchJob.kubeflow.org`."""
        return f"{self.kind}.{self.group}" if self.group else self.kind

    @property
    def is_builtin(self) -> bool:
        """Whether the kind is Kubernetes' own; only those take strategic merge patches."""
        return "." not in self.group or self.group.endswith(".k8s.io")


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

_AGE = Column(name="Age", type="date", path=".metadata.creationTimestamp")
_NEWEST_CONDITION = (
    Column(name="Type", type="string", path=".status.conditions[-1:].type"),
    Column(name="Status", type="string", path=".status.conditions[-1:].status"),
)
_READY = Column(name="Ready", type="string", path=".status.conditions[?(@.type=='Ready')].status")
_URL = Column(name="URL", type="string", path=".status.url")
_TRAFFIC = ".status.components.predictor.traffic"
_RUNTIME_COLUMNS = (
    Column(name="Disabled", type="boolean", path=".spec.disabled"),
    Column(name="ModelType", type="string", path=".spec.supportedModelFormats[*].name"),
    Column(name="Containers", type="string", path=".spec.containers[*].name"),
    _AGE,
)

NAMESPACES = _core(
    "Namespace",
    "namespaces",
    namespaced=False,
    short_names=("ns",),
    selectable_fields=("status.phase",),
)
NODES = _core(
    "Node",
    "nodes",
    namespaced=False,
    short_names=("no",),
    selectable_fields=("spec.unschedulable",),
)
PODS = _core(
    "Pod",
    "pods",
    short_names=("po",),
    categories=_ALL,
    selectable_fields=(
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.phase",
        "status.podIP",
    ),
)
SERVICES = _core("Service", "services", short_names=("svc",), categories=_ALL)
EVENTS = _core(
    "Event",
    "events",
    short_names=("ev",),
    has_status=False,
    selectable_fields=(
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
)
CONFIG_MAPS = _core("ConfigMap", "configmaps", short_names=("cm",), has_status=False)
SECRETS = _core("Secret", "secrets", has_status=False, selectable_fields=("type",))
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
    scale=Scale(
        spec_replicas=".spec.replicas",
        status_replicas=".status.replicas",
        selector=".spec.selector",
    ),
)
JOBS = Resource(
    group="batch", version="v1", kind="Job", plural="jobs", singular="job", categories=_ALL
)
HORIZONTAL_POD_AUTOSCALERS = Resource(
    group="autoscaling",
    version="v2",
    kind="HorizontalPodAutoscaler",
    plural="horizontalpodautoscalers",
    singular="horizontalpodautoscaler",
    short_names=("hpa",),
    categories=_ALL,
)
PYTORCH_JOBS = Resource(
    group="kubeflow.org",
    version="v1",
    kind="PyTorchJob",
    plural="pytorchjobs",
    singular="pytorchjob",
    columns=(
        Column(name="State", type="string", path=".status.conditions[-1:].type"),
        _AGE,
    ),
    scale=Scale(
        spec_replicas=".spec.pytorchReplicaSpecs.Worker.replicas",
        status_replicas=".status.replicaStatuses.Worker.active",
        selector=".status.replicaStatuses.Worker.selector",
    ),
)
EXPERIMENTS = Resource(
    group="kubeflow.org",
    version="v1beta1",
    kind="Experiment",
    plural="experiments",
    singular="experiment",
    categories=_KATIB,
    columns=(*_NEWEST_CONDITION, _AGE),
)
SUGGESTIONS = Resource(
    group="kubeflow.org",
    version="v1beta1",
    kind="Suggestion",
    plural="suggestions",
    singular="suggestion",
    categories=_KATIB,
    columns=(
        *_NEWEST_CONDITION,
        Column(name="Requested", type="string", path=".spec.requests"),
        Column(name="Assigned", type="string", path=".status.suggestionCount"),
        _AGE,
    ),
)
TRIALS = Resource(
    group="kubeflow.org",
    version="v1beta1",
    kind="Trial",
    plural="trials",
    singular="trial",
    categories=_KATIB,
    columns=(*_NEWEST_CONDITION, _AGE),
)
INFERENCE_SERVICES = Resource(
    group="serving.kserve.io",
    version="v1beta1",
    kind="InferenceService",
    plural="inferenceservices",
    singular="inferenceservice",
    short_names=("isvc",),
    columns=(
        _URL,
        _READY,
        Column(name="Prev", type="integer", path=_TRAFFIC + "[?(@.tag=='prev')].percent"),
        Column(
            name="Latest", type="integer", path=_TRAFFIC + "[?(@.latestRevision==true)].percent"
        ),
        Column(
            name="PrevRolledoutRevision",
            type="string",
            path=_TRAFFIC + "[?(@.tag=='prev')].revisionName",
        ),
        Column(
            name="LatestReadyRevision",
            type="string",
            path=_TRAFFIC + "[?(@.latestRevision==true)].revisionName",
        ),
        _AGE,
    ),
)
SERVING_RUNTIMES = Resource(
    group="serving.kserve.io",
    version="v1alpha1",
    kind="ServingRuntime",
    plural="servingruntimes",
    singular="servingruntime",
    columns=_RUNTIME_COLUMNS,
)
CLUSTER_SERVING_RUNTIMES = Resource(
    group="serving.kserve.io",
    version="v1alpha1",
    kind="ClusterServingRuntime",
    plural="clusterservingruntimes",
    singular="clusterservingruntime",
    namespaced=False,
    columns=_RUNTIME_COLUMNS,
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
    HORIZONTAL_POD_AUTOSCALERS,
    PYTORCH_JOBS,
    EXPERIMENTS,
    SUGGESTIONS,
    TRIALS,
    INFERENCE_SERVICES,
    SERVING_RUNTIMES,
    CLUSTER_SERVING_RUNTIMES,
)


_BY_KIND = {(r.api_version, r.kind): r for r in RESOURCES}
_BY_PLURAL = {(r.group, r.version, r.plural): r for r in RESOURCES}


def find_by_kind(api_version: str, kind: str) -> Resource | None:
    """The resource of a manifest's apiVersion and kind, None when it is not served."""
    return _BY_KIND.get((api_version, kind))


def find_by_plural(group: str, version: str, plural: str) -> Resource | None:
    """The resource at a URL's group, version and plural, None when it is not served."""
    return _BY_PLURAL.get((group, version, plural))


def groups() -> Iterator[tuple[str, str]]:
    """(group, version) pairs served, in table order, each once."""
    yield from dict.fromkeys((r.group, r.version) for r in RESOURCES)
