"""Katib's webhook for pods: those of a trial carry its labels and know its name.

On a cluster the webhook also adds a sidecar that collects metrics and passes on the log. Here the
control plane collects them from the log and the files, so there is no sidecar; asking for the
sidecar's log, as Katib's SDK does, gives that of the primary container. A collector of the user's
own is added as it is.

Source: katib v0.19 `webhook/v1beta1/pod/inject_webhook.go`.
"""

from __future__ import annotations

import copy
from pathlib import PurePosixPath

from kubeloop.local.api import refusals
from kubeloop.local.api.admission.base import ObjectReader
from kubeloop.local.api.admission.pods import PodAdmission
from kubeloop.local.api.admission.shell_words import is_shell_script, unquote
from kubeloop.local.api.logs import LOG_ALIAS_ANNOTATION
from kubeloop.local.api.resources import SUGGESTIONS, TRIALS, find_by_kind
from kubeloop.local.client import Manifest
from kubeloop.local.kubelet.pod_files import KEEP_VOLUMES_ANNOTATION
from kubeloop.local.operators.katib.suggestion_volumes import name_volume
from kubeloop.local.operators.katib.terms import (
    CUSTOM,
    EXPERIMENT_LABEL,
    FILE,
    STDOUT,
    TENSORFLOW_EVENT,
    TRIAL_LABEL,
    TRIAL_NAME_VARIABLE,
)

_COLLECTOR = "metrics-logger-and-collector"
_METRICS_VOLUME = "metrics-volume"
_SUGGESTION_VOLUME = "suggestion-volume"
_TRIAL_DIR = "suggestion_trial_dir"
_IN_SHELL = (STDOUT, FILE, TENSORFLOW_EVENT)
"""Collectors that have Katib wrap the program's command."""
_MAX_OWNERS = 5  # a pod's job, its job set, and so on up to the trial


class TrialPodAdmission(PodAdmission):
    """Pods by Kubernetes' rules, and those of trials by Katib's."""

    def __init__(self, read: ObjectReader) -> None:
        """Look up owners with `read`."""
        self._read = read

    def default(self, manifest: Manifest) -> Manifest:
        """Label a trial's pod, and tell its primary container which trial it is."""
        trial = self._find_trial(manifest)
        if trial is not None:
            _inject(manifest, trial, suggestion=self._find_suggestion(trial))
        return super().default(manifest)

    def validate(self, manifest: Manifest, old: Manifest | None) -> None:
        """Refuse what no pod may be, and a trial's pod without its primary container.

        Raises:
            InvalidError: One or more fields are wrong.
            ApiError: 400, the primary container is missing.
        """
        super().validate(manifest, old)
        trial = self._find_trial(manifest) if old is None else None
        if trial is not None and _primary_container(manifest, trial) is None:
            raise refusals.bad_request(
                f"Unable to find primary container {trial['spec'].get('primaryContainerName')} in "
                f"mutated pod containers of trial {trial['metadata']['name']}"
            )

    def _find_suggestion(self, trial: Manifest) -> Manifest | None:
        metadata = trial["metadata"]
        name = (metadata.get("labels") or {}).get(EXPERIMENT_LABEL, "")
        return self._read(SUGGESTIONS, name, namespace=metadata["namespace"]) if name else None

    def _find_trial(self, manifest: Manifest) -> Manifest | None:
        """The trial that owns a pod, directly or through other owners."""
        namespace = manifest["metadata"].get("namespace", "")
        owners = list(manifest["metadata"].get("ownerReferences") or ())
        for _ in range(_MAX_OWNERS):
            if not owners:
                return None
            owner = owners.pop(0)
            resource = find_by_kind(owner.get("apiVersion", ""), owner.get("kind", ""))
            found = resource and self._read(resource, owner.get("name", ""), namespace=namespace)
            if not found or found["metadata"]["uid"] != owner.get("uid"):
                continue
            if resource is TRIALS:
                return found
            owners += found["metadata"].get("ownerReferences") or ()
        return None


def _inject(pod: Manifest, trial: Manifest, *, suggestion: Manifest | None) -> None:
    metadata, trial_metadata = pod["metadata"], trial["metadata"]
    metadata["labels"] = {
        **(metadata.get("labels") or {}),
        **(trial_metadata.get("labels") or {}),
        TRIAL_LABEL: trial_metadata["name"],
    }
    container = _primary_container(pod, trial)
    if container is None:
        return
    environment = container["env"] = container.get("env") or []
    is_new = all(variable.get("name") != TRIAL_NAME_VARIABLE for variable in environment)
    if is_new:
        path = f"metadata.labels['{TRIAL_LABEL}']"
        environment.append(
            {"name": TRIAL_NAME_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": path}}}
        )
    if _is_primary(pod, trial):
        _prepare_collecting(pod, container, trial)
        if is_new:
            _unquote_command(container, trial)
        _mount_suggestion_volume(pod, container, trial, suggestion)


def _prepare_collecting(pod: Manifest, container: Manifest, trial: Manifest) -> None:
    collector_spec = trial["spec"].get("metricsCollector") or {}
    collector = collector_spec.get("collector") or {}
    kind = collector.get("kind")
    annotations = pod["metadata"]["annotations"] = pod["metadata"].get("annotations") or {}
    if kind in (STDOUT, FILE):
        annotations[LOG_ALIAS_ANNOTATION] = f"{_COLLECTOR}={container['name']}"
    containers = [container]
    if kind == CUSTOM and collector.get("customCollector"):
        containers.append(_add_container(pod, collector["customCollector"]))
    place = (collector_spec.get("source") or {}).get("fileSystemPath")
    if place and kind in (FILE, TENSORFLOW_EVENT, CUSTOM):
        annotations[KEEP_VOLUMES_ANNOTATION] = "true"
        path = PurePosixPath(place["path"])
        folder = str(path.parent if place.get("kind") == "File" else path)
        _mount_metrics_volume(pod, containers, folder=folder)


def _unquote_command(container: Manifest, trial: Manifest) -> None:
    """Take off the quotes that are for the shell in which Katib runs the program."""
    collector = (trial["spec"].get("metricsCollector") or {}).get("collector") or {}
    if collector.get("kind") not in _IN_SHELL or is_shell_script(container.get("command") or ()):
        return
    for key in ("command", "args"):
        if container.get(key):
            container[key] = [unquote(word) for word in container[key]]


def _add_container(pod: Manifest, wanted: Manifest) -> Manifest:
    """The container of a name, added unless it is there from the pod's creation."""
    containers: list[Manifest] = pod["spec"]["containers"]
    found = next((c for c in containers if c.get("name") == wanted.get("name")), None)
    if found is None:
        found = copy.deepcopy(wanted)
        containers.append(found)
    return found


def _mount_metrics_volume(pod: Manifest, containers: list[Manifest], *, folder: str) -> None:
    """Have the containers share the folder of the metrics, unless a volume is there already."""
    for container in containers:
        _mount(container, {"name": _METRICS_VOLUME, "mountPath": folder})
    _add_volume(pod, {"name": _METRICS_VOLUME, "emptyDir": {}})


def _mount_suggestion_volume(
    pod: Manifest, container: Manifest, trial: Manifest, suggestion: Manifest | None
) -> None:
    """Give the trial its folder of the volume, if the algorithm's settings say where."""
    folder = _settings_of(suggestion).get(_TRIAL_DIR)
    if suggestion is None or not folder:
        return
    sub_path = f"{suggestion['metadata']['name']}/{trial['metadata']['name']}"
    _mount(container, {"name": _SUGGESTION_VOLUME, "mountPath": folder, "subPath": sub_path})
    claim = {"claimName": name_volume(suggestion)}
    _add_volume(pod, {"name": _SUGGESTION_VOLUME, "persistentVolumeClaim": claim})


def _settings_of(suggestion: Manifest | None) -> dict[str, str]:
    algorithm = ((suggestion or {}).get("spec") or {}).get("algorithm") or {}
    return {s["name"]: s.get("value", "") for s in algorithm.get("algorithmSettings") or ()}


def _mount(container: Manifest, wanted: Manifest) -> None:
    """Add a mount, unless the container has one at its path."""
    mounts = container["volumeMounts"] = container.get("volumeMounts") or []
    paths = [mount.get("mountPath", "").rstrip("/") for mount in mounts]
    if wanted["mountPath"].rstrip("/") not in paths:
        mounts.append(wanted)


def _add_volume(pod: Manifest, wanted: Manifest) -> None:
    volumes = pod["spec"]["volumes"] = pod["spec"].get("volumes") or []
    if all(volume.get("name") != wanted["name"] for volume in volumes):
        volumes.append(wanted)


def _primary_container(pod: Manifest, trial: Manifest) -> Manifest | None:
    name = trial["spec"].get("primaryContainerName")
    containers: list[Manifest] = (pod.get("spec") or {}).get("containers") or []
    return next((c for c in containers if isinstance(c, dict) and c.get("name") == name), None)


def _is_primary(pod: Manifest, trial: Manifest) -> bool:
    wanted = trial["spec"].get("primaryPodLabels") or {}
    return bool(wanted.items() <= (pod["metadata"].get("labels") or {}).items())
