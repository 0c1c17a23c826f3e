"""The Experiment builder: what it makes, and what it refuses with which field's name."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from kubeflow.katib import V1beta1Experiment
from kubernetes.client import ApiClient

from kubeloop.errors import InputError
from kubeloop.katib.collectors import Push, StdOut
from kubeloop.katib.experiments import (
    CONFIGURATION_ANNOTATION,
    ExperimentConfig,
    MetricStrategy,
    ObjectiveConfig,
    ObjectiveType,
    ResumePolicy,
    build_experiment,
)
from kubeloop.katib.search_space import (
    Categorical,
    Discrete,
    Float,
    Int,
    SearchSpace,
    build_parameters,
    parse_search_space,
)
from kubeloop.katib.templates import TRIAL_NAME, placeholder
from kubeloop.training.jobs import PyTorchJobBuilder, TrainingJobConfig

JOB = {"apiVersion": "batch/v1", "kind": "Job"}
OF_SOME_KIND = {
    "apiVersion": "example.org/v1",
    "kind": "Experiment",
    "spec": {
        "containers": [{"name": "main", "image": "i", "args": ["--learning_rate", "1"]}],
    },
}
HYPERPARAMETERS: dict[str, str | int | float] = {"learning_rate": 0.5, "epochs": 2}


def build_job(**changes: Any) -> object:  # any field of the configuration
    settings: dict[str, Any] = {"name": "trial", "hyperparameters": HYPERPARAMETERS, **changes}
    return PyTorchJobBuilder().build(TrainingJobConfig(**settings))


def configure(**changes: Any) -> ExperimentConfig:  # any field of the configuration
    settings: dict[str, Any] = {
        "name": "digits",
        "job": build_job(),
        "search_space": {"learning_rate": Float(min=0.001, max=0.1, log=True)},
        "objective": ObjectiveConfig(metric="accuracy"),
        **changes,
    }
    return ExperimentConfig(**settings)


def render(**changes: Any) -> dict[str, Any]:  # any field of the configuration
    experiment = build_experiment(configure(**changes))
    assert isinstance(experiment, V1beta1Experiment)
    manifest: dict[str, Any] = ApiClient().sanitize_for_serialization(experiment)
    return manifest


def arguments(manifest: dict[str, Any], replica: str = "Master") -> list[str]:
    job = manifest["spec"]["trialTemplate"]["trialSpec"]
    container = job["spec"]["pytorchReplicaSpecs"][replica]["template"]["spec"]["containers"][0]
    return list(container["args"])


def test_searched_values_become_placeholders_and_others_stay() -> None:
    assert arguments(render()) == [
        "--learning_rate",
        "${trialParameters.learning_rate}",
        "--epochs",
        "2",
    ]


def test_every_replica_gets_the_placeholders() -> None:
    manifest = render(job=build_job(num_workers=3))

    assert arguments(manifest, "Worker") == arguments(manifest, "Master")


@pytest.mark.parametrize(
    "given", [["--learning_rate=0.5"], ["--learning-rate=0.5"], ["--learning-rate", "0.5"]]
)
def test_flags_are_found_however_they_are_spelled(given: list[str]) -> None:
    container = {"name": "main", "image": "i", "args": [*given, "--other", "1"]}
    job: dict[str, Any] = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "spec": {"template": {"spec": {"containers": [container]}}},
    }

    template = render(job=job)["spec"]["trialTemplate"]

    args = template["trialSpec"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert " ".join(args) == re.sub(r"0\.5", placeholder("learning_rate"), " ".join(given)) + (
        " --other 1"
    )
    assert template["primaryContainerName"] == "main"
    assert job["spec"]["template"]["spec"]["containers"][0]["args"][0] == given[0]  # untouched


def test_a_placeholder_that_is_there_stays() -> None:
    job = build_job(hyperparameters={}, env={"LR": placeholder("learning_rate")})

    template = render(job=job)["spec"]["trialTemplate"]

    assert template["trialParameters"] == [{"name": "learning_rate", "reference": "learning_rate"}]


LOSSES = Categorical(values=("cross entropy", "hinge"))


def describe(**changes: Any) -> dict[str, list[str]]:  # any field of the configuration
    """Arguments by replica of a job with words that a shell would take apart."""
    hyperparameters = {"learning_rate": 0.05, "loss": "hinge", "title": "it's $5"}
    job = build_job(hyperparameters=hyperparameters, num_workers=2)
    space = {"learning_rate": Float(min=0.001, max=0.1), "loss": LOSSES}
    manifest = render(job=job, search_space=space, **changes)
    return {replica: arguments(manifest, replica) for replica in ("Master", "Worker")}


def test_words_for_katibs_shell_are_quoted_where_there_is_one() -> None:
    plain = [
        "--learning_rate", placeholder("learning_rate"), "--loss", placeholder("loss"),
        "--title", "it's $5",
    ]  # fmt: skip
    words = describe()

    assert words["Master"] != plain
    assert words["Master"][1:4:2] == [placeholder("learning_rate"), f'"{placeholder("loss")}"']
    script = " ".join(words["Master"]).replace(placeholder("loss"), "cross entropy")
    assert shlex.split(script)[3::2] == ["cross entropy", "it's $5"]
    assert words["Worker"] == plain
    assert describe(collector=Push())["Master"] == plain


def test_a_script_of_a_shell_is_katibs_as_it_is() -> None:
    script = "python train.py --learning_rate $RATE && echo 'done'"
    container = {
        "name": "main",
        "image": "i",
        "command": ["sh", "-c"],
        "args": [script.replace("$RATE", placeholder("learning_rate"))],
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "spec": {"template": {"spec": {"containers": [container]}}},
    }

    template = render(job=job)["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]
    assert template["spec"]["containers"] == [container]


def test_the_trials_name_may_stand_in_the_job() -> None:
    template = render(job=build_job(model_uri=f"/models/{TRIAL_NAME}"))["spec"]["trialTemplate"]

    assert template["trialParameters"] == [
        {"name": "learning_rate", "reference": "learning_rate"},
        {"name": "trialName", "reference": "${trialSpec.Name}"},
    ]


def test_the_template_has_no_name_of_its_own() -> None:
    metadata = render(job=build_job(labels={"a": "b"}))["spec"]["trialTemplate"]["trialSpec"][
        "metadata"
    ]

    assert metadata == {"labels": {"a": "b"}}


def test_the_budget_objective_and_algorithm_are_katibs() -> None:
    manifest = render(
        objective=ObjectiveConfig(
            metric="loss",
            type=ObjectiveType.MINIMIZE,
            goal=0.1,
            additional_metrics=("accuracy",),
            strategies={"accuracy": MetricStrategy.LATEST},
        ),
        algorithm="random",
        algorithm_settings={"random_state": 7},
        max_trial_count=9,
        parallel_trial_count=3,
        max_failed_trial_count=4,
        resume_policy=ResumePolicy.LONG_RUNNING,
        collector=StdOut(metrics_format=(r"(\w+) is (\d+)",)),
        labels={"team": "a"},
        namespace="team",
    )

    spec = manifest["spec"]
    assert spec["objective"] == {
        "type": "minimize",
        "goal": 0.1,
        "objectiveMetricName": "loss",
        "additionalMetricNames": ["accuracy"],
        "metricStrategies": [
            {"name": "loss", "value": "min"},
            {"name": "accuracy", "value": "latest"},
        ],
    }
    assert spec["algorithm"] == {
        "algorithmName": "random",
        "algorithmSettings": [{"name": "random_state", "value": "7"}],
    }
    assert (spec["maxTrialCount"], spec["parallelTrialCount"]) == (9, 3)
    assert (spec["maxFailedTrialCount"], spec["resumePolicy"]) == (4, "LongRunning")
    assert spec["metricsCollectorSpec"] == {
        "collector": {"kind": "StdOut"},
        "source": {"filter": {"metricsFormat": [r"(\w+) is (\d+)"]}},
    }
    assert manifest["metadata"]["labels"] == {"team": "a"}
    assert manifest["metadata"]["namespace"] == "team"


def test_tolerated_failures_fit_the_budget() -> None:
    assert render()["spec"]["maxFailedTrialCount"] == 3
    small = render(max_trial_count=2, parallel_trial_count=1)
    assert small["spec"]["maxFailedTrialCount"] == 2


def test_the_digest_tells_configurations_apart() -> None:
    digests = [
        render(**changes)["metadata"]["annotations"][CONFIGURATION_ANNOTATION]
        for changes in ({}, {}, {"max_trial_count": 5}, {"labels": {"a": "b"}})
    ]

    assert digests[0] == digests[1] == digests[3] != digests[2]


def test_search_spaces_are_katibs_parameters() -> None:
    space: SearchSpace = {
        "a": Float(min=1e-05, max=1, log=True),
        "b": Float(min=0, max=1, step=0.25, normal=True),
        "c": Int(min=1, max=9, step=2),
        "d": Categorical(values=("x", "y")),
        "e": Discrete(values=(16, 0.5)),
        "f": Float(min=1, max=2, log=True, normal=True),
    }

    rendered = ApiClient().sanitize_for_serialization(build_parameters(space))

    assert [(p["name"], p["parameterType"], p["feasibleSpace"]) for p in rendered] == [
        ("a", "double", {"min": "1e-05", "max": "1.0", "distribution": "logUniform"}),
        (
            "b",
            "double",
            {"min": "0.0", "max": "1.0", "step": "0.25", "distribution": "normal"},
        ),
        ("c", "int", {"min": "1", "max": "9", "step": "2", "distribution": "uniform"}),
        ("d", "categorical", {"list": ["x", "y"]}),
        ("e", "discrete", {"list": ["16", "0.5"]}),
        ("f", "double", {"min": "1.0", "max": "2.0", "distribution": "logNormal"}),
    ]


def test_search_spaces_are_read_from_json() -> None:
    assert parse_search_space(
        {
            "learning_rate": {"type": "float", "min": 0.001, "max": 0.1, "log": True},
            "layers": {"type": "int", "min": 1, "max": 4},
            "optimizer": {"type": "categorical", "values": ["sgd", "adam"]},
            "batch_size": {"type": "discrete", "values": [16, 32]},
        }
    ) == {
        "learning_rate": Float(min=0.001, max=0.1, log=True),
        "layers": Int(min=1, max=4),
        "optimizer": Categorical(values=("sgd", "adam")),
        "batch_size": Discrete(values=(16, 32)),
    }


def test_numbers_that_went_through_kfp_are_integers_again() -> None:
    assert parse_search_space(
        {
            "layers": {"type": "int", "min": 1.0, "max": 4.0, "step": 1.0},
            "batch_size": {"type": "categorical", "values": [32.0, 64.0]},
        }
    ) == {"layers": Int(min=1, max=4, step=1), "batch_size": Discrete(values=(32, 64))}


def test_whole_numbers_of_a_discrete_choice_are_written_as_such() -> None:
    (parameter,) = build_parameters({"batch_size": Discrete(values=(32.0, 0.5))})

    assert parameter.feasible_space.list == ["32", "0.5"]


@pytest.mark.parametrize(
    ("entry", "match"),
    [
        (3, r"search_space\.x must be an object"),
        ({}, r"search_space\.x\.type must be one of float, int, categorical, discrete, not None"),
        ({"type": "double"}, r"search_space\.x\.type must be one of"),
        ({"type": "float", "min": 0}, r"search_space\.x\.max is missing"),
        ({"type": "int", "min": 0, "max": 1, "low": 2}, r"search_space\.x\.low is unknown"),
        ({"type": "float", "min": 2, "max": 1}, r"search_space\.x\.min must not be above max"),
        ({"type": "float", "min": "0", "max": 1}, r"search_space\.x\.min must be a finite number"),
        ({"type": "float", "min": float("nan"), "max": 1}, r"x\.min must be a finite number"),
        ({"type": "int", "min": 0.5, "max": 1}, r"search_space\.x\.min must be an integer"),
        ({"type": "int", "min": False, "max": 1}, r"search_space\.x\.min must be an integer"),
        (
            {"type": "float", "min": 0, "max": 1, "step": 0},
            r"search_space\.x\.step must be above 0",
        ),
        ({"type": "float", "min": 0, "max": 1, "log": True}, r"x\.min must be above 0 where log"),
        ({"type": "float", "min": 1, "max": 2, "log": 1}, r"search_space\.x\.log must be true or"),
        ({"type": "categorical", "values": []}, r"search_space\.x\.values must be a list"),
        ({"type": "categorical", "values": "ab"}, r"search_space\.x\.values must be a list"),
        ({"type": "categorical", "values": ["a", 1]}, r"search_space\.x\.values must be texts"),
        ({"type": "discrete", "values": ["1"]}, r"search_space\.x\.values must be numbers"),
        ({"type": "discrete", "values": [1, 1.0]}, r"search_space\.x\.values must differ"),
    ],
)
def test_a_wrong_search_space_is_refused_by_field(entry: object, match: str) -> None:
    with pytest.raises(InputError, match=match):
        parse_search_space({"x": entry})


def test_an_empty_search_space_is_refused() -> None:
    with pytest.raises(InputError, match="search_space must be an object with one entry"):
        parse_search_space({})


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"name": "Digits"}, "name must be at most 40 lower-case letters"),
        ({"name": "a" * 41}, "name must be at most 40 lower-case letters"),
        ({"search_space": {}}, "search_space must have at least one parameter"),
        ({"search_space": {"a b": Int(min=1, max=2)}}, "search_space has a parameter named 'a b'"),
        ({"search_space": {"learning_rate": 3}}, r"search_space\.learning_rate must be a Float"),
        ({"max_trial_count": 0}, "max_trial_count must be an integer of at least 1, not 0"),
        ({"parallel_trial_count": 0}, "parallel_trial_count must be an integer of at least 1"),
        ({"parallel_trial_count": 13}, "parallel_trial_count must not be above max_trial_count"),
        ({"max_failed_trial_count": -1}, "max_failed_trial_count must be an integer of at least 0"),
        ({"max_failed_trial_count": 13}, "max_failed_trial_count must not be above max_trial"),
        (
            {"algorithm": "random", "algorithm_settings": {"gamma": 0.5}},
            "algorithm random: unknown setting gamma for algorithm random",
        ),
        (
            {"algorithm": "grid"},
            "algorithm grid: parameter learning_rate of type double needs a step",
        ),
        (
            {"search_space": {"momentum": Float(min=0, max=1)}},
            r"search_space\.momentum is not taken by the trial's job: pass --momentum VALUE",
        ),
        (
            {"job": {**JOB, "metadata": {"labels": {"x": "${trialParameters.y}"}}}},
            r"search_space\.learning_rate is not taken",
        ),
        ({"job": "job.yaml"}, "job must be a Kubernetes object"),
        ({"job": {}}, "job must be a Kubernetes object"),
        ({"job": {"kind": "Job"}}, "job must be a Kubernetes object"),
        ({"algorithm": ""}, "algorithm must name an algorithm of Katib's"),
        (
            {"resume_policy": "Always"},
            "resume_policy must be one of Never, LongRunning",
        ),
        ({"search_space": [1]}, r"search_space must map names to parameters, not \[1\]"),
        ({"objective": None}, "objective must be an ObjectiveConfig, not None"),
        ({"collector": "StdOut"}, "collector must be one of StdOut, File, TensorFlowEvents, Push"),
        (
            {"primary_container": "main"},
            "primary_container must name .* not 'main'; .* pytorch",
        ),
        (
            {"job": OF_SOME_KIND},
            "success_condition must be given, as Katib knows it of Job, .* and the trial's job is",
        ),
        (
            {"job": OF_SOME_KIND, "success_condition": "status.done"},
            "failure_condition must be given",
        ),
    ],
)
def test_a_wrong_configuration_is_refused_by_field(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        build_experiment(configure(**changes))


MINIMIZE: Any = "minimize"
LATEST: Any = "latest"


def test_words_do_for_what_katib_has_words_for() -> None:
    objective = ObjectiveConfig(metric="loss", type=MINIMIZE, strategies={"loss": LATEST})
    spec = render(objective=objective, resume_policy="LongRunning")["spec"]

    assert spec["objective"]["type"] == "minimize"
    assert spec["objective"]["metricStrategies"] == [{"name": "loss", "value": "latest"}]
    assert spec["resumePolicy"] == "LongRunning"


def test_a_search_may_be_without_an_end_but_its_goal() -> None:
    spec = render(max_trial_count=None)["spec"]

    assert "maxTrialCount" not in spec
    assert (spec["parallelTrialCount"], spec["maxFailedTrialCount"]) == (2, 3)


def test_a_job_of_any_kind_is_taken_with_its_conditions() -> None:
    template = render(
        job=OF_SOME_KIND, success_condition="status.done", failure_condition="status.failed"
    )["spec"]["trialTemplate"]

    assert template["primaryContainerName"] == "main"
    assert (template["successCondition"], template["failureCondition"]) == (
        "status.done",
        "status.failed",
    )


def test_a_placeholder_of_nothing_that_is_searched_is_refused() -> None:
    job = build_job(hyperparameters={**HYPERPARAMETERS, "depth": placeholder("depth")})

    with pytest.raises(InputError, match="job waits for depth, which is not in search_space"):
        build_experiment(configure(job=job))


def test_which_container_prints_must_be_clear() -> None:
    containers = [
        {"name": name, "image": "i", "args": ["--learning_rate", "1"]} for name in ("a", "b")
    ]
    job = {**JOB, "spec": {"template": {"spec": {"containers": containers}}}}

    with pytest.raises(InputError, match=r"primary_container must name .*job has a, b"):
        build_experiment(configure(job=job))
    chosen = render(job=job, primary_container="b")["spec"]["trialTemplate"]
    assert chosen["primaryContainerName"] == "b"


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"metric": ""}, r"objective\.metric must name"),
        ({"additional_metrics": ("accuracy",)}, r"objective\.additional_metrics must not repeat"),
        ({"goal": float("inf")}, r"objective\.goal must be a finite number"),
        ({"goal": "0.9"}, r"objective\.goal must be a finite number, not '0\.9'"),
        ({"additional_metrics": "loss"}, r"objective\.additional_metrics must be a list of names"),
        ({"additional_metrics": ("",)}, r"objective\.additional_metrics must be names, and ''"),
        ({"additional_metrics": ("a", "a")}, r"objective\.additional_metrics must differ"),
        ({"strategies": {"accuracy": "mean"}}, r"objective\.strategies must be one of min, max"),
        (
            {"strategies": {"loss": MetricStrategy.MIN}},
            r"objective\.strategies names 'loss', which is not recorded",
        ),
    ],
)
def test_a_wrong_objective_is_refused_by_field(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        ObjectiveConfig(**{"metric": "accuracy", **changes})


def test_an_algorithm_that_only_a_cluster_has_is_left_to_it() -> None:
    rendered = render(algorithm="simulated-annealing")

    assert rendered["spec"]["algorithm"]["algorithmName"] == "simulated-annealing"


def test_an_unknown_objective_type_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="must be maximize or minimize, not 'max'"):
        ObjectiveType("max")
