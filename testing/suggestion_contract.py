"""What every search algorithm must do, as a test class to inherit from.

    class TestMine(SpaceSearchContract):
        algorithm = "mine"

Register the algorithm first; a subclass may narrow `parameters` to what its algorithm can search.
Searches of architectures keep the `SuggestionContract` only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import pytest

from kubeloop.katib.suggestion import ALGORITHMS, InvalidSettingsError, SuggestionService
from kubeloop.katib.suggestion.messages import (
    AlgorithmSetting,
    AlgorithmSpec,
    Distribution,
    Experiment,
    ExperimentSpec,
    FeasibleSpace,
    GetSuggestionsRequest,
    Metric,
    NasConfig,
    ObjectiveSpec,
    ObjectiveType,
    ParameterAssignment,
    ParameterAssignments,
    ParameterSpec,
    ParameterType,
    Trial,
    TrialConditionType,
    TrialSpec,
    TrialStatus,
    ValidateAlgorithmSettingsRequest,
)

OBJECTIVE = ObjectiveSpec(type=ObjectiveType.MAXIMIZE, objective_metric_name="accuracy")


def build_parameter(
    name: str,
    parameter_type: ParameterType,
    *,
    bounds: tuple[str, str] = ("", ""),
    step: str = "",
    choices: Sequence[str] = (),
    distribution: Distribution = Distribution.UNIFORM,
) -> ParameterSpec:
    """A parameter of a search space."""
    return ParameterSpec(
        name=name,
        parameter_type=parameter_type,
        feasible_space=FeasibleSpace(
            min=bounds[0],
            max=bounds[1],
            step=step,
            list=tuple(choices),
            distribution=distribution,
        ),
    )


def build_experiment(
    algorithm: str,
    parameters: Sequence[ParameterSpec],
    *,
    settings: Mapping[str, str] | None = None,
    max_trial_count: int = 12,
    nas_config: NasConfig | None = None,
) -> Experiment:
    """An experiment that maximises `accuracy`."""
    return Experiment(
        name="contract",
        spec=ExperimentSpec(
            parameters=tuple(parameters),
            objective=OBJECTIVE,
            algorithm=AlgorithmSpec(
                algorithm_name=algorithm,
                algorithm_settings=tuple(
                    AlgorithmSetting(name=name, value=value)
                    for name, value in (settings or {}).items()
                ),
            ),
            parallel_trial_count=2,
            max_trial_count=max_trial_count,
            nas_config=nas_config,
        ),
    )


def build_trial(
    name: str,
    assignments: Sequence[ParameterAssignment],
    *,
    condition: TrialConditionType = TrialConditionType.SUCCEEDED,
    value: str = "",
) -> Trial:
    """A trial, with an objective when `value` is given."""
    observation = (Metric(name="accuracy", value=value),) if value else ()
    return Trial(
        name=name,
        spec=TrialSpec(objective=OBJECTIVE, parameter_assignments=tuple(assignments)),
        status=TrialStatus(condition=condition, observation=observation),
    )


class SuggestionContract:
    """Inherit, set `algorithm`, and the tests run."""

    algorithm: ClassVar[str]
    settings: ClassVar[Mapping[str, str]] = {"random_state": "7"}
    parameters: ClassVar[tuple[ParameterSpec, ...]] = ()
    nas_config: ClassVar[NasConfig | None] = None

    def make_service(self) -> SuggestionService:
        """A fresh service, as after a restart."""
        return ALGORITHMS[self.algorithm]()

    def build_experiment(
        self,
        settings: Mapping[str, str] | None = None,
        *,
        parameters: Sequence[ParameterSpec] | None = None,
    ) -> Experiment:
        """An experiment that the algorithm can work on, or one with other settings."""
        return build_experiment(
            self.algorithm,
            self.parameters if parameters is None else parameters,
            settings=self.settings if settings is None else settings,
            nas_config=self.nas_config,
        )

    def suggest(
        self, num: int, *, trials: Sequence[Trial] = (), total: int | None = None
    ) -> tuple[ParameterAssignments, ...]:
        """The reply of a fresh service to a request for `num`, the last of `total`."""
        request = GetSuggestionsRequest(
            experiment=self.build_experiment(),
            trials=tuple(trials),
            current_request_number=num,
            total_request_number=total or num,
        )
        return self.make_service().get_suggestions(request).parameter_assignments

    def test_as_many_suggestions_as_asked_for(self) -> None:
        assert [len(self.suggest(num)) for num in (1, 3)] == [1, 3]

    def test_a_restart_gives_the_same_suggestions(self) -> None:
        assert self.suggest(4) == self.suggest(4)

    def test_first_suggestions_do_not_depend_on_the_batch_size(self) -> None:
        one_by_one = [self.suggest(1, total=total)[0] for total in (1, 2)]

        assert list(self.suggest(2)) == one_by_one

    def test_trials_in_every_state_are_accepted(self) -> None:
        suggestions = self.suggest(len(TrialConditionType))
        trials = [
            build_trial(
                f"t-{condition.value}", suggestion.assignments, condition=condition, value=value
            )
            for condition, suggestion, value in zip(
                TrialConditionType,
                suggestions,
                ("", "", "0.9", "", "", "unavailable", "0.5", "nan"),
                strict=True,
            )
        ]

        assert len(self.suggest(2, trials=trials, total=len(trials) + 2)) == 2

    def test_a_trial_of_another_search_space_is_no_obstacle(self) -> None:
        foreign = build_trial("t", [ParameterAssignment(name="other", value="x")], value="0.1")

        assert len(self.suggest(1, trials=[foreign], total=2)) == 1

    def test_valid_settings_are_accepted(self) -> None:
        self.make_service().validate_algorithm_settings(
            ValidateAlgorithmSettingsRequest(experiment=self.build_experiment())
        )

    def check_refused(
        self,
        settings: Mapping[str, str],
        *,
        match: str,
        parameters: Sequence[ParameterSpec] | None = None,
    ) -> None:
        """Assert that validation refuses, with a message that matches."""
        experiment = self.build_experiment({**self.settings, **settings}, parameters=parameters)
        with pytest.raises(InvalidSettingsError, match=match):
            self.make_service().validate_algorithm_settings(
                ValidateAlgorithmSettingsRequest(experiment=experiment)
            )


class SpaceSearchContract(SuggestionContract):
    """What searches over parameters do besides."""

    parameters: ClassVar[tuple[ParameterSpec, ...]] = (
        build_parameter(
            "learning_rate",
            ParameterType.DOUBLE,
            bounds=("0.0001", "0.1"),
            distribution=Distribution.LOG_UNIFORM,
        ),
        build_parameter("momentum", ParameterType.DOUBLE, bounds=("0", "0.9"), step="0.1"),
        build_parameter("layers", ParameterType.INT, bounds=("1", "7"), step="2"),
        build_parameter("units", ParameterType.INT, bounds=("8", "64")),
        build_parameter("optimizer", ParameterType.CATEGORICAL, choices=("sgd", "adam")),
        build_parameter("batch_size", ParameterType.DISCRETE, choices=("16", "32", "64")),
        build_parameter(
            "dropout",
            ParameterType.DOUBLE,
            bounds=("0.1", "0.5"),
            distribution=Distribution.NORMAL,
        ),
        build_parameter(
            "weight_decay",
            ParameterType.DOUBLE,
            bounds=("0.000001", "0.01"),
            step="0.000001",
            distribution=Distribution.LOG_NORMAL,
        ),
    )

    def check_value(self, parameter: ParameterSpec, text: str) -> None:
        """Assert that `text` is a value of the parameter."""
        space = parameter.feasible_space
        if space.list:
            assert text in space.list
            return
        assert float(space.min) <= float(text) <= float(space.max)
        if parameter.parameter_type is ParameterType.INT:
            assert text == str(int(text))
        if space.step:
            steps = (float(text) - float(space.min)) / float(space.step)
            assert steps == pytest.approx(round(steps))

    def test_every_parameter_gets_a_value_of_its_space(self) -> None:
        suggestions = self.suggest(8)

        for suggestion in suggestions:
            assert [a.name for a in suggestion.assignments] == [p.name for p in self.parameters]
            for parameter, assignment in zip(self.parameters, suggestion.assignments, strict=True):
                self.check_value(parameter, assignment.value)

    def test_later_suggestions_are_values_of_the_space_too(self) -> None:
        first = self.suggest(14)
        trials = [
            build_trial(f"t{index}", suggestion.assignments, value=repr(index / 7))
            for index, suggestion in enumerate(first)
        ]

        for suggestion in self.suggest(3, trials=trials, total=17):
            for parameter, assignment in zip(self.parameters, suggestion.assignments, strict=True):
                self.check_value(parameter, assignment.value)

    def test_suggestions_differ_from_one_another(self) -> None:
        assert len({suggestion.assignments for suggestion in self.suggest(4)}) > 1

    def test_an_unknown_setting_is_refused_by_name(self) -> None:
        self.check_refused({"no_such_setting": "1"}, match="no_such_setting")

    def test_a_negative_seed_is_refused_by_name(self) -> None:
        self.check_refused({"random_state": "-1"}, match="random_state")

    def test_a_range_that_is_upside_down_is_refused_by_name(self) -> None:
        wrong = build_parameter("momentum", ParameterType.DOUBLE, bounds=("1", "0"), step="0.1")

        self.check_refused(self.settings, match="momentum", parameters=(wrong,))

    def test_a_parameter_that_is_there_twice_is_refused_by_name(self) -> None:
        self.check_refused(
            self.settings, match=self.parameters[0].name, parameters=self.parameters * 2
        )
