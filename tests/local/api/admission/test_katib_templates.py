"""Trial templates before Katib's webhook: what it fills in, and refuses with which words."""

from __future__ import annotations

import re
from typing import Any

import pytest

from kubeloop.errors import ApiError
from kubeloop.local.api.resources import CONFIG_MAPS
from kubeloop.local.client import Client, Manifest
from kubeloop.testing.katib_admission import create, refuse, run, with_template
from kubeloop.testing.katib_lab import build_pytorch_job

TEMPLATE = "spec.trialTemplate"
PARAMETERS = f"{TEMPLATE}.trialParameters"


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        (
            {"primaryContainerName": None},
            f"{TEMPLATE}.primaryContainerName: Required value: must be specified",
        ),
        (
            {"primaryContainerName": "main"},
            f'{TEMPLATE}.primaryContainerName: Invalid value: "main": the template has no '
            "container of this name, only ['pytorch']",
        ),
        (
            {"successCondition": "a.@b"},
            f"{TEMPLATE}.successCondition: Invalid value: \"a.@b\": The part '@b' of the path",
        ),
        ({"trialParameters": None}, f"{PARAMETERS}: Required value: must be specified"),
        (
            {"trialSpec": None},
            f"{TEMPLATE}: Required value: successCondition and failureCondition must be specified",
        ),
        (
            {"configMap": {"configMapName": "c"}, "successCondition": "a", "failureCondition": "b"},
            f"{TEMPLATE}: Required value: only one of {TEMPLATE}.trialSpec or {TEMPLATE}.configMap "
            "can be specified",
        ),
        (
            {
                "trialSpec": None,
                "configMap": {"configMapName": "c"},
                "successCondition": "a",
                "failureCondition": "b",
            },
            f"{TEMPLATE}.configMap: Required value: configMapName, configMapNamespace and "
            "templatePath must be specified",
        ),
        (
            {"trialParameters": [{"name": "learningRate"}]},
            f'{PARAMETERS}[0]: Invalid value: "": name and reference must be specified and name '
            "must not contain '{' or '}'",
        ),
        (
            {"trialParameters": [{"name": "learningRate", "reference": "other"}]},
            f'{PARAMETERS}[0].reference: Invalid value: "other": parameter reference other does '
            "not exist in spec.parameters: ['learning_rate']",
        ),
        (
            {"trialParameters": [{"name": "other", "reference": "learning_rate"}]},
            f'{PARAMETERS}[0].name: Invalid value: "other": parameter name: other in '
            f"spec.trialParameters not found in {TEMPLATE}: ",
        ),
        (
            {
                "trialParameters": [
                    {"name": "learningRate", "reference": "learning_rate"},
                    {"name": "learningRate", "reference": "${trialSpec.Name}"},
                ]
            },
            f'{PARAMETERS}[1].name: Invalid value: "learningRate": parameter name learningRate '
            f"can't be duplicated in {PARAMETERS}",
        ),
    ],
)
def test_a_wrong_template_is_refused(changes: dict[str, Any], refusal: str) -> None:
    assert refusal in refuse(with_template(**changes))


def test_a_placeholder_that_nothing_fills_is_refused() -> None:
    job = build_pytorch_job()
    job["metadata"] = {"labels": {"x": "${trialParameters.more}"}}

    assert refuse(with_template(trialSpec=job)) == (
        f'{TEMPLATE}: Invalid value: "": parameters: '
        f"['${{trialParameters.more}}'] in {TEMPLATE} not found in {PARAMETERS}"
    )


def test_a_template_with_a_name_is_refused() -> None:
    job = {**build_pytorch_job(), "metadata": {"name": "mine"}}

    assert refuse(with_template(trialSpec=job)) == (
        f'{TEMPLATE}: Invalid value: "": metadata.name and metadata.namespace in {TEMPLATE} must '
        "be omitted"
    )


@pytest.mark.parametrize("part", ["apiVersion", "kind"])
def test_a_template_of_no_kind_is_refused(part: str) -> None:
    job = build_pytorch_job()
    del job[part]
    conditions = {"successCondition": "a", "failureCondition": "b"}

    assert refuse(with_template(trialSpec=job, **conditions)) == (
        f"{TEMPLATE}: Required value: APIVersion and Kind in {TEMPLATE} must be specified"
    )


def test_a_kind_that_is_not_run_here_is_refused_with_those_that_are() -> None:
    job = {**build_pytorch_job(), "kind": "TFJob"}

    assert refuse(with_template(trialSpec=job)) == (
        f'{TEMPLATE}: Invalid value: "": invalid {TEMPLATE}: TFJob (kubeflow.org/v1) is not run by '
        "the embedded control plane; use one of Job (batch/v1), PyTorchJob (kubeflow.org/v1)"
    )


def test_a_meta_reference_needs_no_search_parameter() -> None:
    job = build_pytorch_job()
    job["metadata"] = {"annotations": {"trial": "${trialParameters.trialName}"}}
    parameters = [
        {"name": "learningRate", "reference": "learning_rate"},
        {"name": "trialName", "reference": "${trialSpec.Name}"},
    ]

    assert create(with_template(trialSpec=job, trialParameters=parameters))["kind"] == "Experiment"


def test_a_template_may_come_from_a_config_map() -> None:
    text = (
        "apiVersion: batch/v1\nkind: Job\nspec:\n  template:\n    spec:\n      containers:\n"
        "      - name: main\n        args: ['--lr=${trialParameters.learningRate}']\n"
    )
    source = {"configMapNamespace": "kubeflow", "configMapName": "t", "templatePath": "job.yaml"}
    conditions = {"successCondition": "status.succeeded", "failureCondition": "status.failed"}
    experiment = with_template(
        trialSpec=None, configMap=source, primaryContainerName="main", **conditions
    )

    async def scenario(client: Client) -> None:
        with pytest.raises(ApiError, match=r"ConfigMap kubeflow/t was not found"):
            await client.create(experiment)
        config_map = {
            "metadata": {"name": "t", "namespace": "kubeflow"},
            "data": {"job.yaml": text},
        }
        await client.create(
            {"apiVersion": CONFIG_MAPS.api_version, "kind": CONFIG_MAPS.kind, **config_map}
        )
        assert (await client.create(experiment))["metadata"]["uid"]

    run(scenario)


@pytest.mark.parametrize(
    "job",
    [
        {**build_pytorch_job(), "metadata": "x"},
        {**build_pytorch_job(), "spec": []},
        {**build_pytorch_job(), "spec": {"pytorchReplicaSpecs": {"Master": "x"}}},
        {**build_pytorch_job(), "kind": 3},
    ],
)
def test_a_template_of_the_wrong_shape_is_refused(job: Manifest) -> None:
    parameters = [{"name": "x", "reference": "${trialSpec.Name}"}]
    job = {**job, "x": "${trialParameters.x}"}
    conditions = {"successCondition": "a", "failureCondition": "b"}

    text = refuse(with_template(trialSpec=job, trialParameters=parameters, **conditions))

    assert re.search(r"in body must be of type (object|string)", text)


def test_a_batch_jobs_conditions_are_its_own() -> None:
    container = {"name": "main", "image": "i", "args": ["${trialParameters.learningRate}"]}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "spec": {"template": {"spec": {"containers": [container]}}},
    }

    template = create(with_template(trialSpec=job, primaryContainerName="main"))["spec"][
        "trialTemplate"
    ]

    assert template["successCondition"] == (
        'status.conditions.#(type=="Complete")#|#(status=="True")#'
    )
    assert "primaryPodLabels" not in template
