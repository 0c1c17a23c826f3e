"""Katib's webhook for pods: those of a trial carry its labels and know its name.

On a cluster the webhook also adds a sidecar that collects metrics and passes on the log. Here the
log is read over the API, so there is no sidecar; asking for the sidecar's log, as Katib's SDK does,
gives that of the primary container.

Source: katib v0.19 `webhook/v1beta1/pod/inject_webhook.go`.
"""

from __future__ import annotations

from kubeloop.local.api import refusals
from kubeloop.local.api.admission.base import ObjectReader
from kubeloop.local.api.admission.pods import PodAdmission
from kubeloop.local.api.logs import LOG_ALIAS_ANNOTATION
from kubeloop.local.api.resources import TRIALS, find_by_kind
from kubeloop.local.client import Manifest
from kubeloop.local.operators.katib.terms import STDOUT, TRIAL_LABEL, TRIAL_NAME_VARIABLE

_COLLECTOR = "metrics-logger-and-collector"
_MAX_OWNERS = 5  # a pod's job, its job set, and so on up to the trial


class TrialPodAdmission(PodAdmission):
    """Pods by Kubernetes' rules, and those of trials by Katib's."""

    def __init__(self, read: ObjectReader) -> None:
        """Look up owners with `read`."""
        self._read = read

    def default(self, manifest: Manifest) -> Manifest:
        """Label a trial's pod, and tell its primary container which trial it is."""
        manifest = super().default(manifest)
        trial = self._find_trial(manifest)
        if trial is not None:
            _inject(manifest, trial)
        return manifest

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


def _inject(pod: Manifest, trial: Manifest) -> None:
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
    if all(variable.get("name") != TRIAL_NAME_VARIABLE for variable in environment):
        environment.append({"name": TRIAL_NAME_VARIABLE, "value": trial_metadata["name"]})
    collector = (trial["spec"].get("metricsCollector") or {}).get("collector") or {}
    if collector.get("kind") == STDOUT and _is_primary(pod, trial):
        metadata["annotations"] = {
            **(metadata.get("annotations") or {}),
            LOG_ALIAS_ANNOTATION: f"{_COLLECTOR}={container['name']}",
        }


def _primary_container(pod: Manifest, trial: Manifest) -> Manifest | None:
    name = trial["spec"].get("primaryContainerName")
    containers: list[Manifest] = (pod.get("spec") or {}).get("containers") or []
    return next((c for c in containers if isinstance(c, dict) and c.get("name") == name), None)


def _is_primary(pod: Manifest, trial: Manifest) -> bool:
    wanted = trial["spec"].get("primaryPodLabels") or {}
    return bool(wanted.items() <= (pod["metadata"].get("labels") or {}).items())
