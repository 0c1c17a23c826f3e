"""Katib's webhook of experiments: what it fills in, and what it refuses with which words."""

from __future__ import annotations

from typing import Any

import pytest

from kubeloop.errors import ApiError
from kubeloop.katib.suggestion import ALGORITHMS
from kubeloop.local.api.resources import EXPERIMENTS
from kubeloop.local.client import Client, Manifest
from kubeloop.testing.katib_admission import create, refuse, run
from kubeloop.testing.katib_lab import build_experiment


def with_space(kind: str = "double", **space: Any) -> Manifest:  # any part of the space
    return build_experiment(
        parameters=[{"name": "learning_rate", "parameterType": kind, "feasibleSpace": space}]
    )


def test_defaults_are_stored() -> None:
    spec = create(build_experiment(parallelTrialCount=None))["spec"]

    assert spec["parallelTrialCount"] == 3
    assert spec["resumePolicy"] == "Never"
    assert spec["objective"]["metricStrategies"] == [{"name": "accuracy", "value": "max"}]
    assert spec["parameters"][0]["feasibleSpace"]["distribution"] == "uniform"
    assert spec["metricsCollectorSpec"] == {"collector": {"kind": "StdOut"}}
    template = spec["trialTemplate"]
    assert template["primaryPodLabels"] == {"training.kubeflow.org/job-role": "master"}
    assert template["successCondition"] == (
        'status.conditions.#(type=="Succeeded")#|#(status=="True")#'
    )
    assert template["failureCondition"] == (
        'status.conditions.#(type=="Failed")#|#(status=="True")#'
    )


def test_counts_without_a_default_stay_unset() -> None:
    spec = create(build_experiment(maxTrialCount=None))["spec"]

    assert "maxTrialCount" not in spec
    assert "maxFailedTrialCount" not in spec


def test_what_the_user_says_is_kept() -> None:
    objective = {
        "type": "minimize",
        "objectiveMetricName": "loss",
        "additionalMetricNames": ["accuracy"],
        "metricStrategies": [{"name": "accuracy", "value": "latest"}],
    }
    spec = create(
        build_experiment(objective=objective, resumePolicy="LongRunning", parallelTrialCount=1)
    )["spec"]

    assert spec["objective"]["metricStrategies"] == [
        {"name": "accuracy", "value": "latest"},
        {"name": "loss", "value": "min"},
    ]
    assert (spec["resumePolicy"], spec["parallelTrialCount"]) == ("LongRunning", 1)


def test_defaulting_twice_changes_nothing() -> None:
    async def scenario(client: Client) -> None:
        first = await client.create(build_experiment())

        assert await client.replace(first) == first

    run(scenario)


@pytest.mark.parametrize("name", ["1digits", "a" * 41, "dig.its"])
def test_a_name_outside_the_rule_is_refused(name: str) -> None:
    assert refuse(build_experiment(name)).startswith(f'metadata.name: Invalid value: "{name}": ')


@pytest.mark.parametrize(
    ("spec", "refusal"),
    [
        (
            {"maxFailedTrialCount": -1},
            "spec.maxFailedTrialCount: Invalid value: -1: should not be less than 0",
        ),
        (
            {"maxTrialCount": 0, "parallelTrialCount": None},
            "spec.maxTrialCount: Invalid value: 0: must be greater than 0",
        ),
        (
            {"parallelTrialCount": 0},
            "spec.parallelTrialCount: Invalid value: 0: must be greater than 0",
        ),
        (
            {"maxFailedTrialCount": 5},
            "spec.maxFailedTrialCount: Invalid value: 5: should be less than or equal to "
            "spec.maxTrialCount",
        ),
        (
            {"parallelTrialCount": 5},
            "spec.parallelTrialCount: Invalid value: 5: should be less than or equal to "
            "spec.maxTrialCount",
        ),
        ({"objective": None}, "spec.objective: Required value: must be specified"),
        (
            {"objective": {"type": "best", "objectiveMetricName": "a"}},
            'spec.objective.type: Invalid value: "best": must be minimize or maximize',
        ),
        (
            {"objective": {"type": "maximize"}},
            "spec.objective.objectiveMetricName: Required value: must be specified",
        ),
        (
            {
                "objective": {
                    "type": "maximize",
                    "objectiveMetricName": "a",
                    "additionalMetricNames": ["a"],
                }
            },
            "spec.objective.additionalMetricNames: Invalid value: ['a']: should not contain "
            "spec.objective.objectiveMetricName",
        ),
        ({"algorithm": None}, "spec.algorithm: Required value: must be specified"),
        (
            {"algorithm": {"algorithmName": "magic"}},
            'spec.algorithm.algorithmName: Invalid value: "magic": unable to get Suggestion config '
            f"data for algorithm magic: known are {', '.join(sorted(ALGORITHMS))}",
        ),
        (
            {"earlyStopping": {"algorithmName": "magic"}},
            'spec.earlyStopping.algorithmName: Invalid value: "magic": unable to get '
            "EarlyStopping config data for algorithm magic: known are medianstop",
        ),
        (
            {"parameters": None, "nasConfig": {"operations": [{"operationType": 3}]}},
            'spec.nasConfig.operations[0].operationType: Invalid value: "integer": '
            'spec.nasConfig.operations[0].operationType in body must be of type string: "integer"',
        ),
        (
            {"resumePolicy": "Always"},
            'spec.resumePolicy: Invalid value: "Always": invalid ResumePolicyType',
        ),
        ({"trialTemplate": None}, "spec.trialTemplate: Required value: must be specified"),
        (
            {"nasConfig": {"graphConfig": {}}},
            'spec: Invalid value: "": only one of spec.parameters and spec.nasConfig can be '
            "specified",
        ),
    ],
)
def test_a_wrong_spec_is_refused_with_field_and_reason(spec: dict[str, Any], refusal: str) -> None:
    text = refuse(build_experiment(**spec))

    assert refusal in text
    assert text == refusal or text.startswith("[")


def test_an_experiment_without_parameters_is_refused() -> None:
    text = refuse(build_experiment(parameters=[]))

    assert "spec: Required value: spec.parameters or spec.nasConfig must be specified" in text


def test_every_fault_is_listed_once() -> None:
    text = refuse(build_experiment(maxFailedTrialCount=-1, resumePolicy="Always"))

    assert text == (
        "[spec.maxFailedTrialCount: Invalid value: -1: should not be less than 0, "
        'spec.resumePolicy: Invalid value: "Always": invalid ResumePolicyType]'
    )


def test_a_wrong_objective_hides_what_comes_after_it() -> None:
    text = refuse(build_experiment(objective=None, resumePolicy="Always"))

    assert text == "spec.objective: Required value: must be specified"


@pytest.mark.parametrize(
    ("experiment", "refusal"),
    [
        (
            with_space("float", min="0", max="1"),
            'spec.parameters[0].parameterType: Invalid value: "float": parameterType: float is not '
            "supported",
        ),
        (
            with_space(min="0", max="1", distribution="beta"),
            'spec.parameters[0].feasibleSpace.distribution: Invalid value: "beta": distribution: '
            "beta is not supported",
        ),
        (
            with_space(),
            "spec.parameters[0].feasibleSpace: Required value: feasibleSpace must be specified",
        ),
        (
            with_space(min="0"),
            "spec.parameters[0].feasibleSpace.max: Required value: feasibleSpace.max or "
            "feasibleSpace.min must be specified for parameterType: double",
        ),
        (
            with_space("int", min="0", max="1", list=["1"]),
            "spec.parameters[0].feasibleSpace.list: Invalid value: ['1']: feasibleSpace.list is "
            "not supported for parameterType: int",
        ),
        (
            with_space("categorical", distribution="uniform"),
            "spec.parameters[0].feasibleSpace.list: Required value: feasibleSpace.list must be "
            "specified for parameterType: categorical",
        ),
    ],
)
def test_a_wrong_search_space_is_refused(experiment: Manifest, refusal: str) -> None:
    assert refuse(experiment) == refusal


def test_bounds_of_a_choice_are_refused() -> None:
    text = refuse(with_space("discrete", list=["1"], max="2"))

    assert text.endswith(
        "feasibleSpace .max, .min and .step is not supported for parameterType: discrete"
    )


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"maxTrialCount": "3"}, "spec.maxTrialCount"),
        ({"parallelTrialCount": True}, "spec.parallelTrialCount"),
        ({"objective": []}, "spec.objective"),
        ({"objective": {"goal": "high"}}, "spec.objective.goal"),
        ({"parameters": {}}, "spec.parameters"),
        ({"parameters": [None]}, "spec.parameters[0]"),
        (
            {"parameters": [{"name": "a", "feasibleSpace": {"min": 1}}]},
            "spec.parameters[0].feasibleSpace.min",
        ),
        ({"trialTemplate": {"trialSpec": "text"}}, "spec.trialTemplate.trialSpec"),
        ({"algorithm": {"algorithmSettings": [{"name": "a", "value": 1}]}}, "spec.algorithm"),
        ({"metricsCollectorSpec": {"collector": "StdOut"}}, "spec.metricsCollectorSpec.collector"),
    ],
)
def test_a_field_of_the_wrong_type_is_refused_by_name(spec: dict[str, Any], field: str) -> None:
    assert refuse(build_experiment(**spec)).startswith(field)


def test_a_spec_that_is_none_at_all_is_refused() -> None:
    experiment = build_experiment()
    del experiment["spec"]
    assert refuse(experiment) == "spec: Required value: must be specified"
    assert refuse({**experiment, "spec": "text"}).startswith("spec: Invalid value")


def test_the_namespace_must_be_labelled() -> None:
    experiment = build_experiment()
    experiment["metadata"]["namespace"] = "kubeflow"

    assert refuse(experiment) == (
        'Cannot create the Experiment "digits" in namespace "kubeflow": the namespace lacks label '
        '"katib.kubeflow.org/metrics-collector-injection: enabled"'
    )


async def finish(client: Client, *, reason: str, num_trials: int = 4) -> None:
    """Write the status of an experiment that has succeeded."""
    experiment = await client.get(EXPERIMENTS, "digits", namespace="default")
    conditions = [{"type": "Succeeded", "status": "True", "reason": reason}]
    experiment["status"] = {"conditions": conditions, "trials": num_trials}
    await client.replace_status(experiment)


async def edit(client: Client, **spec: Any) -> Manifest:  # any part of the spec
    return await client.patch(EXPERIMENTS, "digits", namespace="default", body={"spec": spec})


def test_only_the_budget_may_change() -> None:
    async def scenario(client: Client) -> None:
        await client.create(build_experiment())

        changed = await edit(client, maxTrialCount=9, parallelTrialCount=3, maxFailedTrialCount=2)
        assert changed["spec"]["maxTrialCount"] == 9
        with pytest.raises(ApiError, match=r"spec: Forbidden: only spec\.parallelTrialCount, spec"):
            await edit(client, algorithm={"algorithmName": "tpe"})

    run(scenario)


def test_metadata_and_status_of_any_experiment_may_change() -> None:
    async def scenario(client: Client) -> None:
        await client.create(build_experiment())
        await finish(client, reason="ExperimentGoalReached")

        labelled = await client.patch(
            EXPERIMENTS, "digits", namespace="default", body={"metadata": {"labels": {"a": "b"}}}
        )
        assert labelled["metadata"]["labels"] == {"a": "b"}

    run(scenario)


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ("Never", "ExperimentMaxTrialsReached"),
        ("LongRunning", "ExperimentGoalReached"),
        ("FromVolume", "ExperimentGoalReached"),
    ],
)
def test_a_finished_experiment_that_cannot_resume_may_not_be_edited(
    policy: str, reason: str
) -> None:
    async def scenario(client: Client) -> None:
        await client.create(build_experiment(resumePolicy=policy))
        await finish(client, reason=reason)

        with pytest.raises(ApiError, match="Experiment can be restarted if it is in succeeded"):
            await edit(client, maxTrialCount=9)

    run(scenario)


def test_a_resumed_experiment_needs_more_trials_than_it_had() -> None:
    async def scenario(client: Client) -> None:
        await client.create(build_experiment(resumePolicy="LongRunning", maxTrialCount=4))
        await finish(client, reason="ExperimentMaxTrialsReached", num_trials=5)

        with pytest.raises(ApiError, match=r"must be greater than status\.trials count"):
            await edit(client, maxTrialCount=5)
        assert (await edit(client, maxTrialCount=6))["spec"]["maxTrialCount"] == 6

    run(scenario)
