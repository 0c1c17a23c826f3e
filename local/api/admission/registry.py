"""The admission hooks of the embedded API server, in one list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kubeloop.local.api.admission.base import Admission, ObjectReader
from kubeloop.local.api.admission.core import (
    ConfigMapAdmission,
    EventAdmission,
    NamespaceAdmission,
    PersistentVolumeClaimAdmission,
    SecretAdmission,
    ServiceAdmission,
)
from kubeloop.local.api.admission.deployments import DeploymentAdmission
from kubeloop.local.api.admission.jobs import JobAdmission
from kubeloop.local.api.admission.katib import ExperimentAdmission
from kubeloop.local.api.admission.katib_pods import TrialPodAdmission
from kubeloop.local.api.admission.serving import InferenceServiceAdmission
from kubeloop.local.api.admission.training import PyTorchJobAdmission
from kubeloop.local.api.resources import Resource


def build_admissions(read: ObjectReader) -> tuple[Admission, ...]:
    """A fresh hook of every kind that has one; `read` reads what the server stores."""
    return (
        ConfigMapAdmission(),
        DeploymentAdmission(),
        EventAdmission(),
        NamespaceAdmission(),
        PersistentVolumeClaimAdmission(),
        TrialPodAdmission(read),
        SecretAdmission(),
        ServiceAdmission(),
        JobAdmission(),
        PyTorchJobAdmission(),
        InferenceServiceAdmission(),
        ExperimentAdmission(read),
    )


def index_admissions(admissions: Iterable[Admission]) -> Mapping[Resource, Admission]:
    """Hooks by kind.

    Raises:
        ValueError: Two hooks are for one kind.
    """
    index: dict[Resource, Admission] = {}
    for admission in admissions:
        if admission.resource in index:
            raise ValueError(
                f"{type(admission).__name__} and {type(index[admission.resource]).__name__} are "
                f"both for {admission.resource.qualified_name}; a kind has one hook"
            )
        index[admission.resource] = admission
    return index
