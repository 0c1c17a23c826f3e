"""Defaults and rules of Jobs, through the API."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kubeloop.errors import InvalidError
from kubeloop.local.api.resources import JOBS
from kubeloop.local.client import Manifest
from kubeloop.testing.api import memory_api


def build_job(*, policy: str = "Never", **spec: Any) -> Manifest:  # any fields of the spec
    pod_spec = {"restartPolicy": policy, "containers": [{"name": "main", "image": "x"}]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "count", "namespace": "default"},
        "spec": {"template": {"spec": pod_spec}, **spec},
    }


def create(job: Manifest) -> Manifest:
    async def scenario() -> Manifest:
        async with memory_api() as client:
            return await client.create(job)

    return asyncio.run(scenario())


def test_counts_have_defaults() -> None:
    spec = create(build_job())["spec"]

    assert {key: spec[key] for key in ("completions", "parallelism", "backoffLimit")} == {
        "completions": 1,
        "parallelism": 1,
        "backoffLimit": 6,
    }
    assert spec["suspend"] is False
    assert spec["completionMode"] == "NonIndexed"


def test_a_parallel_job_without_completions_keeps_none() -> None:
    spec = create(build_job(parallelism=3))["spec"]

    assert spec["parallelism"] == 3
    assert "completions" not in spec


def test_selector_and_labels_are_made_of_the_uid() -> None:
    job = create(build_job())

    uid = job["metadata"]["uid"]
    assert job["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    assert job["spec"]["template"]["metadata"]["labels"] == {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": "count",
        "controller-uid": uid,
        "job-name": "count",
    }


def test_a_selector_the_user_manages_is_left_alone() -> None:
    job = build_job(manualSelector=True, selector={"matchLabels": {"app": "count"}})
    job["spec"]["template"]["metadata"] = {"labels": {"app": "count"}}

    assert create(job)["spec"]["selector"] == {"matchLabels": {"app": "count"}}


@pytest.mark.parametrize(
    ("job", "text"),
    [
        (
            build_job(policy="Always"),
            'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"',
        ),
        (build_job(completions=-1), "spec.completions: Invalid value: -1: must be greater than"),
        (build_job(completionMode="Indexed"), "spec.completionMode: Forbidden: only 'NonIndexed'"),
        (build_job(podFailurePolicy={"rules": []}), "spec.podFailurePolicy: Forbidden"),
        (
            build_job(manualSelector=True, selector={"matchLabels": {"app": "x"}}),
            "`selector` does not match template `labels`",
        ),
    ],
)
def test_what_cannot_run_is_refused(job: Manifest, text: str) -> None:
    with pytest.raises(InvalidError) as caught:
        create(job)

    assert caught.value.message.startswith('Job.batch "count" is invalid: ')
    assert text in caught.value.message


def test_the_template_cannot_change_but_parallelism_can() -> None:
    async def scenario() -> None:
        async with memory_api() as client:
            await client.create(build_job(completions=4))
            changed = await client.patch(
                JOBS, "count", namespace="default", body={"spec": {"parallelism": 2}}
            )
            assert changed["spec"]["parallelism"] == 2

            changed["spec"]["template"]["spec"]["containers"][0]["image"] = "y"
            with pytest.raises(InvalidError, match=r"spec\.template.*field is immutable"):
                await client.replace(changed)

    asyncio.run(scenario())
