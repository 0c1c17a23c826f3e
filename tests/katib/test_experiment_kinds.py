"""What an experiment may be made of is accepted by the webhook, and wrong parts are refused."""

from __future__ import annotations

from typing import Any

import pytest
from kubeflow.katib import V1beta1Experiment
from kubernetes.client import ApiClient

from kubeloop.errors import InputError
from kubeloop.katib.architectures import ArchitectureSpace
from kubeloop.katib.collectors import (
    File,
    FileFormat,
    MetricsCollector,
    Push,
    StdOut,
    TensorFlowEvents,
)
from kubeloop.katib.experiments import ExperimentConfig, ObjectiveConfig, build_experiment
from kubeloop.katib.search_space import Categorical, Discrete, Float, Int, SearchSpace
from kubeloop.katib.suggestion import ALGORITHMS
from kubeloop.katib.templates import placeholder
from kubeloop.testing.katib_admission import create
from kubeloop.training.jobs import PyTorchJobBuilder, TrainingJobConfig

SPACE: SearchSpace = {
    "rate": Float(min=1e-4, max=0.1, log=True),
    "momentum": Float(min=0.0, max=0.9, step=0.3),
    "depth": Int(min=1, max=9, step=2),
    "dropout": Float(min=0.1, max=0.5, normal=True),
    "decay": Float(min=1e-6, max=1e-2, log=True, normal=True),
    "optimizer": Categorical(values=("sgd", "adam")),
    "batch_size": Discrete(values=(16, 32)),
}
COUNTABLE = {name: SPACE[name] for name in ("momentum", "depth", "optimizer")}
NETWORKS = ArchitectureSpace(
    num_layers=2,
    operations={"convolution": {"filter_size": Categorical(values=("3", "5"))}},
    input_sizes=(8, 8, 1),
    output_sizes=(10,),
)
SETTINGS: dict[str, dict[str, Any]] = {
    "hyperband": {"r_l": 3, "resource_name": "depth"},
    "asha": {"r_max": 9, "resource_name": "depth"},
    "pbt": {
        "suggestion_trial_dir": "/checkpoints",
        "n_population": 5,
        "truncation_threshold": 0.2,
    },
}
ASSIGNED = {
    "enas": ("architecture", "nn_config"),
    "darts": ("algorithm-settings", "search-space", "num-layers"),
}


def build_job(names: tuple[str, ...]) -> object:
    values = {f"v{index}": placeholder(name) for index, name in enumerate(names)}
    return PyTorchJobBuilder().build(
        TrainingJobConfig(name="trial", hyperparameters={}, env=values)
    )


def render(**changes: Any) -> dict[str, Any]:  # any field of the configuration
    names = ASSIGNED.get(changes.get("algorithm", ""), tuple(changes.get("search_space", SPACE)))
    settings: dict[str, Any] = {
        "name": "digits",
        "job": build_job(names),
        "search_space": {} if "architectures" in changes else SPACE,
        "objective": ObjectiveConfig(metric="accuracy"),
        "parallel_trial_count": 3,
        **changes,
    }
    experiment = build_experiment(ExperimentConfig(**settings))
    assert isinstance(experiment, V1beta1Experiment)
    manifest: dict[str, Any] = ApiClient().sanitize_for_serialization(experiment)
    return manifest


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_an_experiment_with_any_algorithm_is_accepted(algorithm: str) -> None:
    manifest = render(
        algorithm=algorithm,
        algorithm_settings=SETTINGS.get(algorithm, {}),
        **(
            {"architectures": NETWORKS}
            if algorithm in ASSIGNED
            else {"search_space": COUNTABLE if algorithm == "grid" else SPACE}
        ),
    )

    stored = create(manifest)

    assert stored["spec"]["algorithm"]["algorithmName"] == algorithm


def test_distributions_and_steps_are_in_katibs_words() -> None:
    spaces = {p["name"]: p["feasibleSpace"] for p in render()["spec"]["parameters"]}

    assert {name: space.get("distribution") for name, space in spaces.items()} == {
        "rate": "logUniform",
        "momentum": "uniform",
        "depth": "uniform",
        "dropout": "normal",
        "decay": "logNormal",
        "optimizer": None,
        "batch_size": None,
    }
    assert (spaces["momentum"]["step"], spaces["depth"]["step"]) == ("0.3", "2")


@pytest.mark.parametrize(
    ("collector", "expected"),
    [
        (StdOut(), {"collector": {"kind": "StdOut"}}),
        (
            StdOut(metrics_format=(r"(\w+) is (\d+)",)),
            {
                "collector": {"kind": "StdOut"},
                "source": {"filter": {"metricsFormat": [r"(\w+) is (\d+)"]}},
            },
        ),
        (
            File(path="/logs/metrics", metrics_format=(r"(\w+):(\d+)",)),
            {
                "collector": {"kind": "File"},
                "source": {
                    "fileSystemPath": {"kind": "File", "path": "/logs/metrics", "format": "TEXT"},
                    "filter": {"metricsFormat": [r"(\w+):(\d+)"]},
                },
            },
        ),
        (
            File(format=FileFormat.JSON),
            {
                "collector": {"kind": "File"},
                "source": {
                    "fileSystemPath": {
                        "kind": "File",
                        "path": "/var/log/katib/metrics.log",
                        "format": "JSON",
                    }
                },
            },
        ),
        (
            TensorFlowEvents(path="/logs"),
            {
                "collector": {"kind": "TensorFlowEvent"},
                "source": {"fileSystemPath": {"kind": "Directory", "path": "/logs"}},
            },
        ),
        (Push(), {"collector": {"kind": "Push"}}),
    ],
)
def test_every_collector_is_katibs_and_accepted(
    collector: MetricsCollector, expected: dict[str, Any]
) -> None:
    manifest = render(collector=collector)

    assert manifest["spec"]["metricsCollectorSpec"] == expected
    assert create(manifest)["spec"]["metricsCollectorSpec"]["collector"] == expected["collector"]


def test_early_stopping_is_katibs_and_accepted() -> None:
    manifest = render(early_stopping="medianstop", early_stopping_settings={"start_step": 2})

    assert create(manifest)["spec"]["earlyStopping"] == {
        "algorithmName": "medianstop",
        "algorithmSettings": [{"name": "start_step", "value": "2"}],
    }


def test_an_architecture_search_fills_the_job_by_katibs_names() -> None:
    spec = render(algorithm="enas", architectures=NETWORKS)["spec"]

    assert "parameters" not in spec
    assert spec["nasConfig"] == {
        "graphConfig": {"numLayers": 2, "inputSizes": [8, 8, 1], "outputSizes": [10]},
        "operations": [
            {
                "operationType": "convolution",
                "parameters": [
                    {
                        "name": "filter_size",
                        "parameterType": "categorical",
                        "feasibleSpace": {"list": ["3", "5"]},
                    }
                ],
            }
        ],
    }
    assert spec["trialTemplate"]["trialParameters"] == [
        {"name": "architecture", "reference": "architecture"},
        {"name": "nn_config", "reference": "nn_config"},
    ]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"early_stopping": "medianstop", "early_stopping_settings": {"start_step": 0}},
            "early_stopping medianstop: start_step must be an integer of 1 or more, not '0'",
        ),
        (
            {"early_stopping": "medianstop", "early_stopping_settings": {"patience": 3}},
            "early_stopping medianstop: unknown setting patience",
        ),
        ({"architectures": NETWORKS}, "algorithm must be one of enas, darts where architectures"),
        (
            {"algorithm": "enas", "architectures": NETWORKS, "search_space": SPACE},
            "search_space must be empty where architectures is given",
        ),
        (
            {"algorithm": "enas", "architectures": ArchitectureSpace(num_layers=1, operations={})},
            "algorithm enas: nasConfig.operations must have at least one operation",
        ),
        (
            {"algorithm": "hyperband", "algorithm_settings": {"r_l": 9}},
            "algorithm hyperband: resource_name is missing",
        ),
        (
            {
                "algorithm": "hyperband",
                "algorithm_settings": {"r_l": 9, "resource_name": "depth"},
            },
            "algorithm hyperband: parallelTrialCount must be at least 9",
        ),
        ({"algorithm": "cmaes", "search_space": {"rate": SPACE["rate"]}}, "at least two param"),
        ({"algorithm": "grid"}, "parameter rate of type double needs a step"),
    ],
)
def test_what_katib_would_refuse_is_refused_with_its_name(
    changes: dict[str, Any], match: str
) -> None:
    with pytest.raises(InputError, match=match):
        render(**changes)


@pytest.mark.parametrize(
    ("build", "settings", "match"),
    [
        (StdOut, {"metrics_format": ("(a",)}, r"metrics_format has '\(a', which is no regular"),
        (File, {"metrics_format": ("a=(b)",)}, "metrics_format has .* which lacks two groups"),
        (File, {"path": "metrics.log"}, "path must be an absolute path, not 'metrics.log'"),
        (File, {"format": "CSV"}, "format must be TEXT or JSON, not 'CSV'"),
        (
            File,
            {"format": FileFormat.JSON, "metrics_format": ("(a)=(b)",)},
            "metrics_format must be empty where format is JSON",
        ),
        (TensorFlowEvents, {"path": "events"}, "path must be an absolute path, not 'events'"),
    ],
)
def test_a_collector_that_katib_would_refuse_is_refused_by_field(
    build: type[MetricsCollector], settings: dict[str, Any], match: str
) -> None:
    with pytest.raises(InputError, match=rf"collector\.{match}"):
        build(**settings)
