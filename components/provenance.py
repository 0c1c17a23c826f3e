"""The words in which components record where things come from.

Written as metadata of KFP artifacts, read by `kubeloop.pipelines.lineage`; an endpoint's own words
are `kubeloop.kserve.endpoints.EndpointAnnotation`. KFP's record changes its form between versions;
artifact metadata survives that.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Any


class DatasetKey(StrEnum):
    """Metadata of a Dataset artifact."""

    NAME = "dataset"
    VERSION_HASH = "version_hash"
    SOURCE_URI = "source_uri"
    SOURCE_DIGEST = "source_digest"
    SCHEMA = "schema"
    """Features of an example and their types."""


class ModelKey(StrEnum):
    """Metadata of a Model artifact."""

    DIGEST = "digest"
    JOB = "training_job"
    JOB_DIGEST = "training_job_digest"
    TRIAL = "trial"
    DATASET_URI = "dataset_uri"
    VERSION_HASH = "dataset_version_hash"
    HYPERPARAMETERS = "hyperparameters"
    RUN_ID = "run_id"
    PROGRAM = "program"
    CODE_URI = "code_uri"
    ABSENT = "absent"
    """Why a step wrote no model, though it has a place for one."""


class TrialsKey(StrEnum):
    """Metadata of the trials table."""

    EXPERIMENT = "experiment"
    TRIAL = "best_trial"
    TRIAL_DIGEST = "best_trial_digest"
    PARAMETERS = "best_parameters"


def digest_of(value: Any) -> str:  # Any: JSON
    """`sha256:…` of the canonical JSON of `value`."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
