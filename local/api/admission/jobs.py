"""Defaults and rules of batch/v1 Jobs.

What the Job operator here does not do (indexed completion, pod failure policies, success policies)
is refused rather than ignored: a Job that means one thing on a cluster never means another here.

Source: Kubernetes `pkg/apis/batch/v1/defaults.go`, `pkg/registry/batch/job/strategy.go`,
`pkg/apis/batch/validation`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from kubeloop.local.api.admission.base import Admission
from kubeloop.local.api.refusals import (
    FieldError,
    invalid,
    value_forbidden,
    value_invalid,
    value_required,
)
from kubeloop.local.api.resources import JOBS, Resource
from kubeloop.local.client import Manifest

_DEFAULT_BACKOFF_LIMIT = 6
_COUNTS = (
    "parallelism",
    "completions",
    "backoffLimit",
    "activeDeadlineSeconds",
    "ttlSecondsAfterFinished",
)
_SERVED_VALUES = {
    "completionMode": "NonIndexed",
    "podReplacementPolicy": "TerminatingOrFailed",
    "podFailurePolicy": None,
    "successPolicy": None,
    "backoffLimitPerIndex": None,
    "maxFailedIndexes": None,
}


class JobAdmission(Admission):
    """Defaults and validates Jobs."""

    resource: ClassVar[Resource] = JOBS

    def default(self, manifest: Manifest) -> Manifest:
        """Fill in counts, and a selector made of the job's uid unless the user manages it."""
        spec = manifest.get("spec")
        if not isinstance(spec, dict) or not isinstance(spec.get("template"), dict):
            return manifest
        if spec.get("completions") is None and spec.get("parallelism") is None:
            spec["completions"] = spec["parallelism"] = 1
        defaults = {
            "parallelism": 1,
            "backoffLimit": _DEFAULT_BACKOFF_LIMIT,
            "suspend": False,
            "completionMode": "NonIndexed",
            "podReplacementPolicy": "TerminatingOrFailed",
        }
        for key, value in defaults.items():
            if spec.get(key) is None:
                spec[key] = value
        if not spec.get("manualSelector"):
            _generate_selector(manifest)
        return manifest

    def validate(self, manifest: Manifest, old: Manifest | None) -> None:
        """Refuse a Job that cannot run, or that changes what must not change.

        Raises:
            InvalidError: One or more fields are wrong.
        """
        faults = [*_find_faults(manifest.get("spec") or {})]
        if old is not None and not faults:
            faults = [*_find_changes(manifest["spec"], old["spec"])]
        if faults:
            raise invalid(JOBS, manifest["metadata"]["name"], faults)


def _generate_selector(manifest: Manifest) -> None:
    uid, name = manifest["metadata"]["uid"], manifest["metadata"]["name"]
    spec = manifest["spec"]
    metadata = spec["template"]["metadata"] = spec["template"].get("metadata") or {}
    metadata["labels"] = {
        **(metadata.get("labels") or {}),
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
        "controller-uid": uid,
        "job-name": name,
    }
    selector = spec["selector"] = spec.get("selector") or {}
    selector["matchLabels"] = {
        **(selector.get("matchLabels") or {}),
        "batch.kubernetes.io/controller-uid": uid,
    }


def _find_faults(spec: Manifest) -> Iterator[FieldError]:
    for key in _COUNTS:
        value = spec.get(key)
        if value is not None and (not isinstance(value, int) or value < 0):
            yield value_invalid(f"spec.{key}", value, "must be greater than or equal to 0")
    for key, served in _SERVED_VALUES.items():
        if spec.get(key) not in (None, served):
            accepted = f"only {served!r} is" if served else "it is not"
            yield value_forbidden(
                f"spec.{key}", f"{accepted} served by the embedded control plane; use a cluster"
            )
    template = spec.get("template") or {}
    pod_spec = template.get("spec") or {}
    if not pod_spec.get("containers"):
        yield value_required("spec.template.spec.containers")
    if pod_spec.get("restartPolicy") not in ("OnFailure", "Never"):
        yield value_required(
            "spec.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"'
        )
    selected = (spec.get("selector") or {}).get("matchLabels") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    if not selected:
        yield value_required("spec.selector")
    elif not selected.items() <= labels.items():
        yield value_invalid(
            "spec.template.metadata.labels", labels, "`selector` does not match template `labels`"
        )


def _find_changes(spec: Manifest, old: Manifest) -> Iterator[FieldError]:
    for key in ("completions", "selector", "template", "completionMode"):
        if spec.get(key) != old.get(key):
            yield value_invalid(f"spec.{key}", spec.get(key), "field is immutable")
