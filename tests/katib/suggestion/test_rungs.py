"""Hyperband and ASHA, played through on an objective that grows with the resource."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import pytest

from kubeloop.katib.suggestion import ALGORITHMS, InvalidSettingsError
from kubeloop.katib.suggestion.messages import (
    AlgorithmSetting,
    AlgorithmSpec,
    Experiment,
    GetSuggestionsRequest,
    Metric,
    ParameterAssignments,
    ParameterSpec,
    ParameterType,
    Trial,
    TrialConditionType,
    TrialStatus,
    ValidateAlgorithmSettingsRequest,
)
from kubeloop.katib.suggestion.rungs import (
    BRACKET_LABEL,
    NUMBER_LABEL,
    PARENT_LABEL,
    RUNG_LABEL,
)
from kubeloop.testing.suggestion_contract import (
    OBJECTIVE,
    SpaceSearchContract,
    build_experiment,
    build_parameter,
    build_trial,
)

EPOCHS = build_parameter("epochs", ParameterType.INT, bounds=("1", "1"))
RATE = build_parameter("rate", ParameterType.DOUBLE, bounds=("0", "1"))
SETTINGS = {
    "hyperband": {"r_l": "9", "eta": "3", "resource_name": "epochs", "random_state": "3"},
    "asha": {"r_max": "9", "resource_name": "epochs", "random_state": "3"},
}


class RungContract(SpaceSearchContract):
    """The contract, where the resource is not bound to its range."""

    resource = "epochs"
    parameters: ClassVar[tuple[ParameterSpec, ...]] = (*SpaceSearchContract.parameters, EPOCHS)

    def check_value(self, parameter: ParameterSpec, text: str) -> None:
        if parameter.name == self.resource:
            assert int(text) >= 1
        else:
            super().check_value(parameter, text)


class TestHyperband(RungContract):
    algorithm = "hyperband"
    settings: ClassVar[Mapping[str, str]] = {**SETTINGS["hyperband"], "r_l": "2"}


class TestAsha(RungContract):
    algorithm = "asha"
    settings: ClassVar[Mapping[str, str]] = SETTINGS["asha"]


class Search:
    """An experiment's trials, and the settings that the algorithm keeps."""

    def __init__(self, algorithm: str) -> None:
        self.algorithm = algorithm
        self.kept: dict[str, str] = {}
        self.trials: list[Trial] = []
        self.num_suggested = 0

    def build_experiment(self) -> Experiment:
        settings = {**SETTINGS[self.algorithm], **self.kept}
        return build_experiment(self.algorithm, [RATE, EPOCHS], settings=settings)

    def ask(self, num: int = 1) -> list[ParameterAssignments]:
        self.num_suggested += num
        reply = ALGORITHMS[self.algorithm]().get_suggestions(
            GetSuggestionsRequest(
                experiment=self.build_experiment(),
                trials=tuple(
                    trial
                    for trial in self.trials
                    if trial.status.condition is not TrialConditionType.METRICSUNAVAILABLE
                ),
                current_request_number=num,
                total_request_number=self.num_suggested,
            )
        )
        assert reply.algorithm is not None
        self.kept |= {entry.name: entry.value for entry in reply.algorithm.algorithm_settings}
        assert len(reply.parameter_assignments) == num
        return list(reply.parameter_assignments)

    def run(
        self,
        suggestions: list[ParameterAssignments],
        *,
        condition: TrialConditionType = TrialConditionType.SUCCEEDED,
    ) -> None:
        for suggestion in suggestions:
            number = suggestion.labels[NUMBER_LABEL]
            trial = build_trial(f"t{number}", suggestion.assignments)
            spec = replace(trial.spec, labels=suggestion.labels)
            self.trials.append(self.end(replace(trial, spec=spec), condition))

    def end(self, trial: Trial, condition: TrialConditionType) -> Trial:
        """The larger the rate, the better."""
        values = {entry.name: entry.value for entry in trial.spec.parameter_assignments}
        metric = Metric(name=OBJECTIVE.objective_metric_name, value=values["rate"])
        is_done = condition is TrialConditionType.SUCCEEDED
        status = TrialStatus(condition=condition, observation=(metric,) if is_done else ())
        return replace(trial, status=status)

    def end_all(self) -> None:
        self.trials = [
            self.end(trial, TrialConditionType.SUCCEEDED)
            if trial.status.condition is TrialConditionType.RUNNING
            else trial
            for trial in self.trials
        ]


def place(suggestion: ParameterAssignments) -> tuple[int, int, str]:
    """Bracket, rung and epochs."""
    labels, values = suggestion.labels, {a.name: a.value for a in suggestion.assignments}
    return int(labels[BRACKET_LABEL]), int(labels[RUNG_LABEL]), values["epochs"]


def rates(trials: list[Trial]) -> list[float]:
    return [float(trial.spec.parameter_assignments[0].value) for trial in trials]


def test_hyperband_runs_the_brackets_of_the_paper() -> None:
    search, places = Search("hyperband"), Counter[tuple[int, int, str]]()

    for _ in range(22):
        suggestions = search.ask()
        places.update(map(place, suggestions))
        search.run(suggestions)

    assert places == {
        (0, 0, "1"): 9, (0, 1, "3"): 3, (0, 2, "9"): 1,
        (1, 0, "3"): 5, (1, 1, "9"): 1,
        (2, 0, "9"): 3,
    }  # fmt: skip


def test_hyperband_promotes_the_best_and_says_from_which_trial() -> None:
    search = Search("hyperband")
    search.run(search.ask(9))
    best = sorted(search.trials, key=lambda trial: -rates([trial])[0])[:3]

    promoted = search.ask(3)

    assert [s.labels[PARENT_LABEL] for s in promoted] == [trial.name for trial in best]
    assert [float(s.assignments[0].value) for s in promoted] == rates(best)


def test_hyperband_begins_the_next_bracket_while_a_rung_runs() -> None:
    search = Search("hyperband")
    search.run(search.ask(8))
    search.run(search.ask(1), condition=TrialConditionType.RUNNING)

    assert [place(s)[:2] for s in search.ask(5)] == [(1, 0)] * 5
    assert [place(s)[:2] for s in search.ask(2)] == [(2, 0)] * 2


def test_hyperband_waits_for_promotions_that_have_no_trial_yet() -> None:
    search = Search("hyperband")
    search.run(search.ask(9))
    search.run(search.ask(2))
    last = search.ask(1)

    assert place(last[0])[:2] == (0, 1)
    assert place(search.ask(1)[0])[:2] == (1, 0)
    search.run(last)
    assert place(search.ask(1)[0])[:2] == (0, 2)


@pytest.mark.parametrize("algorithm", ["hyperband", "asha"])
def test_a_promotion_that_comes_to_nothing_is_not_made_again(algorithm: str) -> None:
    search = Search(algorithm)
    search.run(search.ask(9))
    (first,) = search.ask(1)
    search.run([first], condition=TrialConditionType.METRICSUNAVAILABLE)

    parents = []
    for _ in range(6):
        suggestions = search.ask()
        parents += [s.labels.get(PARENT_LABEL) for s in suggestions]
        search.run(suggestions)

    assert first.labels[PARENT_LABEL] not in parents


def test_hyperband_tells_its_state_in_the_words_of_katib() -> None:
    search = Search("hyperband")
    search.ask(9)

    assert {name: float(search.kept[name]) for name in ("s_max", "b_l", "n", "current_s")} == {
        "s_max": 2, "b_l": 27, "n": 9, "current_s": 2
    }  # fmt: skip
    assert search.kept["resource_name"] == "epochs"


def test_asha_promotes_the_top_third_and_never_waits() -> None:
    search = Search("asha")
    search.run(search.ask(2))
    search.run(search.ask(2), condition=TrialConditionType.RUNNING)

    assert place(search.ask(1)[0]) == (0, 0, "1")
    search.end_all()
    (promoted,) = search.ask(1)
    assert place(promoted) == (0, 1, "3")
    assert float(promoted.assignments[0].value) == max(rates(search.trials))


def test_asha_gives_the_full_resource_to_the_best_of_many() -> None:
    search, places = Search("asha"), Counter[int]()

    for _ in range(40):
        suggestions = search.ask()
        places.update(int(s.labels[RUNG_LABEL]) for s in suggestions)
        search.run(suggestions)

    # More than a third, as some are promoted before better ones are known.
    assert 40 / 4 <= places[1] <= 40 / 3
    assert 3 <= places[2] <= 5
    full = [t for t in search.trials if t.spec.parameter_assignments[1].value == "9"]
    assert max(rates(full)) == max(rates(search.trials[:30]))


def test_suggestions_do_not_depend_on_what_a_service_has_seen() -> None:
    search = Search("asha")
    search.run(search.ask(9))
    before = dict(search.kept)
    first = search.ask(4)
    search.kept, search.num_suggested = before, search.num_suggested - 4

    assert search.ask(4) == first


@pytest.mark.parametrize(
    ("algorithm", "changes", "match"),
    [
        ("hyperband", {"r_l": None}, "r_l is missing"),
        ("hyperband", {"r_l": "-1"}, "r_l must be a positive number"),
        ("hyperband", {"resource_name": None}, "resource_name is missing"),
        ("hyperband", {"resource_name": "depth"}, "resource_name must be a parameter"),
        ("hyperband", {"eta": "1"}, "eta must be a number above 1"),
        ("hyperband", {"r_l": "27"}, "parallelTrialCount must be at least 27"),
        ("asha", {"r_max": None}, "r_max is missing"),
        ("asha", {"r_min": "10"}, "r_min must not be above r_max"),
        ("asha", {"eta": "2.5"}, "eta must be an integer above 1"),
        ("asha", {"resource_name": "optimizer"}, "optimizer is none"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_name(
    algorithm: str, changes: Mapping[str, str | None], match: str
) -> None:
    optimizer = build_parameter("optimizer", ParameterType.CATEGORICAL, choices=("sgd", "adam"))
    experiment = build_experiment(algorithm, [RATE, EPOCHS, optimizer])
    algorithm_spec = AlgorithmSpec(
        algorithm_name=algorithm,
        algorithm_settings=tuple(
            AlgorithmSetting(name=name, value=value)
            for name, value in {**SETTINGS[algorithm], **changes}.items()
            if value is not None
        ),
    )
    spec = replace(experiment.spec, algorithm=algorithm_spec, parallel_trial_count=9)

    with pytest.raises(InvalidSettingsError, match=match):
        ALGORITHMS[algorithm]().validate_algorithm_settings(
            ValidateAlgorithmSettingsRequest(experiment=replace(experiment, spec=spec))
        )
