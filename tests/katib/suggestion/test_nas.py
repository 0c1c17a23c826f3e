"""Architecture searches suggest in the formats that Katib's trial programs read."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from kubeloop.katib.suggestion import ALGORITHMS, InvalidSettingsError
from kubeloop.katib.suggestion.messages import (
    GetSuggestionsRequest,
    GraphConfig,
    NasConfig,
    Operation,
    ParameterAssignments,
    ParameterType,
    Trial,
    ValidateAlgorithmSettingsRequest,
)
from kubeloop.testing.suggestion_contract import (
    SuggestionContract,
    build_experiment,
    build_parameter,
    build_trial,
)

CONFIG = NasConfig(
    graph_config=GraphConfig(num_layers=3, input_sizes=(8, 8, 1), output_sizes=(10,)),
    operations=(
        Operation(
            operation_type="convolution",
            parameters=(
                build_parameter("filter_size", ParameterType.CATEGORICAL, choices=("3", "5")),
                build_parameter("num_filter", ParameterType.CATEGORICAL, choices=("8",)),
            ),
        ),
        Operation(
            operation_type="reduction",
            parameters=(
                build_parameter("reduction_type", ParameterType.CATEGORICAL, choices=("max",)),
                build_parameter("pool_size", ParameterType.INT, bounds=("2", "3"), step="1"),
            ),
        ),
    ),
)


class TestEnas(SuggestionContract):
    algorithm = "enas"
    settings: ClassVar[Mapping[str, str]] = {
        "random_state": "7",
        "controller_train_steps": "2",
        "controller_temperature": "None",
    }
    nas_config: ClassVar[NasConfig | None] = CONFIG


class TestDarts(SuggestionContract):
    algorithm = "darts"
    settings: ClassVar[Mapping[str, str]] = {"num_epochs": "2", "batch_size": "None"}
    nas_config: ClassVar[NasConfig | None] = CONFIG


def suggest(
    algorithm: str,
    num: int = 1,
    *,
    settings: Mapping[str, str],
    trials: tuple[Trial, ...] = (),
) -> tuple[ParameterAssignments, ...]:
    request = GetSuggestionsRequest(
        experiment=build_experiment(algorithm, (), settings=settings, nas_config=CONFIG),
        trials=trials,
        current_request_number=num,
        total_request_number=len(trials) + num,
    )
    return ALGORITHMS[algorithm]().get_suggestions(request).parameter_assignments


def read(suggestion: ParameterAssignments) -> dict[str, Any]:  # any JSON
    return {a.name: json.loads(a.value.replace("'", '"')) for a in suggestion.assignments}


def test_enas_describes_the_network_as_katib_does() -> None:
    (suggestion,) = suggest("enas", settings={"random_state": "1"})
    values = read(suggestion)

    assert [a.name for a in suggestion.assignments] == ["architecture", "nn_config"]
    assert not any('"' in a.value for a in suggestion.assignments)
    architecture, nn_config = values["architecture"], values["nn_config"]
    assert [len(layer) for layer in architecture] == [1, 2, 3]
    assert all(layer[0] in range(4) and set(layer[1:]) <= {0, 1} for layer in architecture)
    assert (nn_config["num_layers"], nn_config["input_sizes"]) == (3, [8, 8, 1])
    assert nn_config["output_sizes"] == [10]
    assert set(nn_config["embedding"]) == {str(layer[0]) for layer in architecture}


def test_enas_numbers_every_combination_of_an_operation() -> None:
    embedding: dict[str, Any] = {}
    for suggestion in suggest("enas", 30, settings={"random_state": "1"}):
        embedding |= read(suggestion)["nn_config"]["embedding"]

    assert [embedding[str(number)] for number in range(4)] == [
        {
            "opt_id": 0,
            "opt_type": "convolution",
            "opt_params": {"filter_size": "3", "num_filter": "8"},
        },
        {
            "opt_id": 1,
            "opt_type": "convolution",
            "opt_params": {"filter_size": "5", "num_filter": "8"},
        },
        {
            "opt_id": 2,
            "opt_type": "reduction",
            "opt_params": {"reduction_type": "max", "pool_size": 2},
        },
        {
            "opt_id": 3,
            "opt_type": "reduction",
            "opt_params": {"reduction_type": "max", "pool_size": 3},
        },
    ]


def evaluate(suggestion: ParameterAssignments, reward: Callable[[list[list[int]]], float]) -> Trial:
    value = reward(read(suggestion)["architecture"])
    name = f"t{random.Random(repr(suggestion)).getrandbits(32)}"
    return build_trial(name, suggestion.assignments, value=repr(value))


@pytest.mark.parametrize(
    "reward",
    [
        lambda architecture: sum(layer[0] == 2 for layer in architecture) / 3,
        lambda architecture: sum(sum(layer[1:]) for layer in architecture) / 3,
    ],
    ids=["operation", "connections"],
)
def test_enas_learns_which_networks_are_good(reward: Callable[[list[list[int]]], float]) -> None:
    settings = {
        "random_state": "1",
        "controller_learning_rate": "0.03",
        "controller_train_steps": "3",
        "controller_skip_weight": "None",
    }
    first = suggest("enas", 20, settings=settings)
    trials = tuple(evaluate(suggestion, reward) for suggestion in first)

    later = suggest("enas", 20, trials=trials, settings=settings)

    before, after = (
        sum(reward(read(suggestion)["architecture"]) for suggestion in batch)
        for batch in (first, later)
    )
    assert after > before * 1.2


def test_darts_tells_where_and_how_to_search() -> None:
    given = {"num_epochs": "2", "batch_size": "None", "verbose": "1"}
    first, second = suggest("darts", 2, settings=given)
    values = read(replace(first, assignments=first.assignments[1:]))

    assert first == second
    assert [a.name for a in first.assignments] == [
        "algorithm-settings", "search-space", "num-layers"
    ]  # fmt: skip
    assert values["search-space"] == ["convolution_3x3", "convolution_5x5", "reduction_maxxmax"]
    assert first.assignments[2].value == "3"
    settings = json.loads(first.assignments[0].value.replace("'", '"'))
    assert settings["num_epochs"] == "2"
    assert settings["batch_size"] is None
    assert settings["verbose"] == "1"
    assert (settings["w_lr"], settings["num_nodes"]) == (0.025, 4)


@pytest.mark.parametrize(
    ("algorithm", "settings", "config", "match"),
    [
        ("enas", {}, None, "nasConfig is missing"),
        ("enas", {}, replace(CONFIG, operations=()), "operations must have at least one"),
        (
            "enas",
            {},
            replace(CONFIG, graph_config=GraphConfig(num_layers=1, output_sizes=(1,))),
            "graphConfig.inputSizes is missing",
        ),
        ("darts", {}, replace(CONFIG, graph_config=GraphConfig()), "numLayers must be at least 1"),
        (
            "darts",
            {},
            replace(CONFIG, operations=(Operation(operation_type="skip_connection"),)),
            r"operations\[0\].parameters is missing",
        ),
        (
            "enas",
            {},
            replace(
                CONFIG,
                operations=(
                    Operation(
                        operation_type="dropout",
                        parameters=(
                            build_parameter("rate", ParameterType.DOUBLE, bounds=("0", "1")),
                        ),
                    ),
                ),
            ),
            r"operations\[0\].parameters\[0\]: parameter rate of type double needs a step",
        ),
        ("enas", {"controller_hidden_size": "0"}, CONFIG, "controller_hidden_size must be"),
        ("enas", {"controller_learning_rate": "2"}, CONFIG, "above 0 and at most 1, not '2'"),
        ("enas", {"hidden": "2"}, CONFIG, "unknown setting hidden"),
        ("darts", {"num_epochs": "0"}, CONFIG, "num_epochs must be an integer of 1 or more"),
        ("darts", {"w_lr": "-1"}, CONFIG, "w_lr must be a number of 0 or more"),
    ],
)
def test_what_cannot_be_searched_is_refused_by_name(
    algorithm: str, settings: Mapping[str, str], config: NasConfig | None, match: str
) -> None:
    experiment = build_experiment(algorithm, (), settings=settings, nas_config=config)

    with pytest.raises(InvalidSettingsError, match=match):
        ALGORITHMS[algorithm]().validate_algorithm_settings(
            ValidateAlgorithmSettingsRequest(experiment=experiment)
        )
