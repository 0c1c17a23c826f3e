"""Builds an experiment's suggestion, and its trials from what that has suggested.

Source: katib v0.19 `experiment/experiment_util.go`.
"""

from __future__ import annotations

from kubeloop.local.client import Manifest
from kubeloop.local.operators.conditions import conditions_of, find_condition
from kubeloop.local.operators.controller import build_owner_reference
from kubeloop.local.operators.katib.templates import render_trial
from kubeloop.local.operators.katib.terms import (
    END_REACHED,
    EXPERIMENT_LABEL,
    SUCCEEDED,
    TRIAL_FINALIZER,
)


def list_assignments(suggestion: Manifest | None) -> list[Manifest]:
    """What a suggestion has suggested up to now."""
    return list(((suggestion or {}).get("status") or {}).get("suggestions") or [])


def has_ended(suggestion: Manifest) -> bool:
    """Whether the algorithm has nothing new left to suggest."""
    entry = find_condition(conditions_of(suggestion), SUCCEEDED)
    return entry is not None and entry.get("reason") == END_REACHED


def build_trial(experiment: Manifest, assignment: Manifest, *, template_text: str) -> Manifest:
    """One trial.

    Args:
        experiment: The experiment with its defaults.
        assignment: An entry of the suggestion's `status.suggestions`.
        template_text: The trial template's text (`templates.read_template`).

    Raises:
        InputError: The assignment does not fit the template.
    """
    metadata = experiment["metadata"]
    job = render_trial(
        experiment["spec"]["trialTemplate"],
        assignment.get("parameterAssignments") or [],
        text=template_text,
        trial_name=assignment["name"],
        namespace=metadata["namespace"],
    )
    labels = {
        **(metadata.get("labels") or {}),
        **(assignment.get("labels") or {}),
        EXPERIMENT_LABEL: metadata["name"],
    }
    return {
        "apiVersion": experiment["apiVersion"],
        "kind": "Trial",
        "metadata": {
            "name": assignment["name"],
            "namespace": metadata["namespace"],
            "labels": labels,
            "ownerReferences": [build_owner_reference(experiment)],
            "finalizers": [TRIAL_FINALIZER],
        },
        "spec": _build_trial_spec(experiment["spec"], assignment, job=job),
    }


def _build_trial_spec(spec: Manifest, assignment: Manifest, *, job: Manifest) -> Manifest:
    template = spec["trialTemplate"]
    parts = {
        "objective": spec["objective"],
        "parameterAssignments": assignment.get("parameterAssignments"),
        "earlyStoppingRules": assignment.get("earlyStoppingRules"),
        "runSpec": job,
        "retainRun": template.get("retain"),
        "metricsCollector": spec.get("metricsCollectorSpec"),
        "primaryPodLabels": template.get("primaryPodLabels"),
        "primaryContainerName": template.get("primaryContainerName"),
        "successCondition": template.get("successCondition"),
        "failureCondition": template.get("failureCondition"),
        "labels": assignment.get("labels"),
    }
    return {key: value for key, value in parts.items() if value}


def build_suggestion(experiment: Manifest, *, requests: int) -> Manifest:
    """The suggestion of an experiment: of its name, labels and annotations."""
    metadata, spec = experiment["metadata"], experiment["spec"]
    suggestion_metadata = {
        "name": metadata["name"],
        "namespace": metadata["namespace"],
        "ownerReferences": [build_owner_reference(experiment)],
    }
    for part in ("labels", "annotations"):
        if metadata.get(part):
            suggestion_metadata[part] = metadata[part]
    suggestion_spec = {
        "algorithm": spec["algorithm"],
        "requests": requests,
        "resumePolicy": spec.get("resumePolicy"),
        "earlyStopping": spec.get("earlyStopping"),
    }
    return {
        "apiVersion": experiment["apiVersion"],
        "kind": "Suggestion",
        "metadata": suggestion_metadata,
        "spec": {key: value for key, value in suggestion_spec.items() if value is not None},
    }
