"""Katib's webhooks: what they fill in, and what they refuse with which words."""

from __future__ import annotations

import asyncio
import copy
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from kubeloop.errors import ApiError
from kubeloop.local.api.resources import CONFIG_MAPS, EXPERIMENTS, TRIALS
from kubeloop.local.client import Client, Manifest
from kubeloop.testing.api import memory_api
from kubeloop.testing.katib_lab import build_experiment, build_pytorch_job
from kubeloop.testing.pods import FakeKubelet

TEMPLATE = "spec.trialTemplate"
PARAMETERS = f"{TEMPLATE}.trialParameters"


def run(scenario: Callable[[Client], Awaitable[None]]) -> None:
    async def main() -> None:
        async with memory_api() as client:
            await scenario(client)

    asyncio.run(main())


def create(experiment: Manifest) -> Manifest:
    stored: list[Manifest] = []

    async def scenario(client: Client) -> None:
        stored.append(await client.create(experiment))

    run(scenario)
    return stored[0]


def refuse(experiment: Manifest) -> str:
    """The text of the webhook's refusal."""
    with pytest.raises(ApiError) as caught:
        create(experiment)
    assert (caught.value.status, caught.value.reason) == (400, "BadRequest")
    prefix = 'admission webhook "validator.experiment.katib.kubeflow.org" denied the request: '
    assert caught.value.message.startswith(prefix)
    return caught.value.message.removeprefix(prefix)


def with_template(**changes: Any) -> Manifest:  # any part of the template
    template = {**build_experiment()["spec"]["trialTemplate"], **changes}
    return build_experiment(
        trialTemplate={key: value for key, value in template.items() if value is not None}
    )


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
            "data for algorithm magic: known are grid, random, tpe",
        ),
        (
            {"earlyStopping": {"algorithmName": "medianstop"}},
            'spec.earlyStopping.algorithmName: Invalid value: "medianstop": unable to get '
            "EarlyStopping config data for algorithm medianstop: the embedded control plane does "
            "not stop trials early",
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
    ("collector", "refusal"),
    [
        ({"collector": {"kind": "Guess"}}, "invalid metrics collector kind: Guess"),
        (
            {
                "collector": {"kind": "File"},
                "source": {"fileSystemPath": {"kind": "File", "path": "rel"}},
            },
            "spec.metricsCollectorSpec.source.fileSystemPath.path: Required value: file path",
        ),
        (
            {
                "collector": {"kind": "File"},
                "source": {
                    "fileSystemPath": {"format": "JSON"},
                    "filter": {"metricsFormat": ["(a)(b)"]},
                },
            },
            "spec.metricsCollectorSpec.source.filter: Invalid value",
        ),
        (
            {
                "collector": {"kind": "TensorFlowEvent"},
                "source": {"fileSystemPath": {"format": "TEXT"}},
            },
            "spec.metricsCollectorSpec.source.fileSystemPath.format: Invalid value",
        ),
        (
            {"collector": {"kind": "PrometheusMetric"}, "source": {"httpGet": {"path": "m"}}},
            "spec.metricsCollectorSpec.source.httpGet.path: Invalid value",
        ),
        (
            {"collector": {"kind": "PrometheusMetric"}, "source": {"httpGet": {"port": "x"}}},
            "spec.metricsCollectorSpec.source.httpGet.port: Invalid value",
        ),
        (
            {"collector": {"kind": "Custom"}},
            "spec.metricsCollectorSpec.collector.customCollector: Required value",
        ),
        (
            {"source": {"filter": {"metricsFormat": ["a=(b)"]}}},
            'metricsFormat: Invalid value: "a=(b)": two top subexpressions are required',
        ),
        (
            {"source": {"filter": {"metricsFormat": ["(a"]}}},
            'metricsFormat: Invalid value: "(a": invalid filter: ',
        ),
        (
            {"collector": {"kind": "File"}},
            "collects metrics from StdOut only; print them as lines such as accuracy=0.97",
        ),
        ({"collector": {"kind": "Push"}}, "collects metrics from StdOut only"),
    ],
)
def test_a_wrong_collector_is_refused(collector: dict[str, Any], refusal: str) -> None:
    assert refusal in refuse(build_experiment(metricsCollectorSpec=collector))


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


async def create_trial(client: Client, **spec: Any) -> Manifest:  # any part of the spec
    return await client.create(
        {
            "apiVersion": TRIALS.api_version,
            "kind": TRIALS.kind,
            "metadata": {"name": "t", "namespace": "default", "labels": {"team": "a"}},
            "spec": {"primaryContainerName": "main", **spec},
        }
    )


def owned_by(owner: Manifest) -> Manifest:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }


def build_pod(*owners: Manifest, container: str = "main") -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "p",
            "namespace": "default",
            "ownerReferences": [owned_by(owner) for owner in owners],
        },
        "spec": {"containers": [{"name": container, "image": "i"}]},
    }


def test_a_pod_owned_through_others_is_labelled_like_its_trial() -> None:
    async def scenario(client: Client) -> None:
        trial = await create_trial(client, metricsCollector={"collector": {"kind": "StdOut"}})
        job = build_pytorch_job()
        metadata = {"name": "t", "namespace": "default", "ownerReferences": [owned_by(trial)]}
        owner = await client.create({**job, "metadata": metadata})

        pod = await client.create(build_pod(owner))

        assert pod["metadata"]["labels"] == {"team": "a", "katib.kubeflow.org/trial": "t"}
        assert pod["spec"]["containers"][0]["env"] == [{"name": "KATIB_TRIAL_NAME", "value": "t"}]
        again = await client.replace(copy.deepcopy(pod))
        assert again["spec"] == pod["spec"]

    run(scenario)


def test_a_trials_pod_without_the_primary_container_is_refused() -> None:
    async def scenario(client: Client) -> None:
        trial = await create_trial(client)

        with pytest.raises(ApiError, match="Unable to find primary container main") as caught:
            await client.create(build_pod(trial, container="other"))
        assert caught.value.status == 400

    run(scenario)


@pytest.mark.parametrize("uid", ["", "another"])
def test_pods_of_nobody_and_of_strangers_are_left_alone(uid: str) -> None:
    async def scenario(client: Client) -> None:
        trial = await create_trial(client)
        pod = build_pod(trial)
        if uid:
            config_map = {"apiVersion": "v1", "kind": "ConfigMap"}
            owner = await client.create({**config_map, "metadata": {"name": "o"}})
            pod = build_pod(owner, container="other")
        else:
            pod["metadata"]["ownerReferences"] = []

        created = await client.create(pod)

        assert "labels" not in created["metadata"]
        assert "env" not in created["spec"]["containers"][0]

    run(scenario)


def test_the_collectors_log_is_only_that_of_primary_pods() -> None:
    async def scenario(client: Client) -> None:
        trial = await create_trial(
            client,
            metricsCollector={"collector": {"kind": "StdOut"}},
            primaryPodLabels={"role": "master"},
        )
        await client.create(build_pod(trial))
        await FakeKubelet(client).run("p")

        with pytest.raises(ApiError, match="container metrics-logger-and-collector is not valid"):
            await client.read_log(
                "p", namespace="default", container="metrics-logger-and-collector"
            )

    run(scenario)
