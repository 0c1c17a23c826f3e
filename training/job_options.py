"""What a pipeline may say of a training job beside its program, its data and its resources.

A component takes numbers, texts and JSON. Here one JSON object becomes all that the job builder
knows of placement, gangs, volumes, secrets and run policies, checked by name and type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubeloop.datasets.stores import OBJECT_STORE_SECRET
from kubeloop.training.config_values import parse_fields
from kubeloop.training.jobs import TrainingJobConfig

JOB_OPTIONS = (
    "image",
    "env",
    "env_secrets",
    "annotations",
    "pod",
    "run_policy",
    "restart_policy",
    "elastic",
)
"""Fields of `TrainingJobConfig` that may be given."""


def parse_job_options(values: Mapping[str, Any]) -> dict[str, Any]:  # Any: JSON, and fields
    """Return arguments of `TrainingJobConfig`.

    The object store's Secret stays among `env_secrets`; those given come after it.

    Raises:
        InputError: A field is unknown, or its value is not what it takes.
    """
    options = parse_fields(TrainingJobConfig, values, where="job_options", accepted=JOB_OPTIONS)
    if given := options.get("env_secrets"):
        options["env_secrets"] = tuple(dict.fromkeys([OBJECT_STORE_SECRET, *given]))
    return options
