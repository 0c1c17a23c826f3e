"""Population based training, played through by generations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from kubeloop.katib.suggestion import ALGORITHMS, InvalidSettingsError
from kubeloop.katib.suggestion.messages import (
    GetSuggestionsRequest,
    ParameterAssignments,
    ParameterType,
    Trial,
    TrialConditionType,
    ValidateAlgorithmSettingsRequest,
)
from kubeloop.katib.suggestion.pbt import GENERATION_LABEL, PARENT_LABEL, prepare_checkpoints
from kubeloop.testing.suggestion_contract import (
    SpaceSearchContract,
    build_experiment,
    build_parameter,
    build_trial,
)

SETTINGS = {
    "suggestion_trial_dir": "/opt/checkpoints",
    "n_population": "5",
    "truncation_threshold": "0.2",
    "random_state": "3",
}
RATE = build_parameter("rate", ParameterType.DOUBLE, bounds=("0", "1"))


class TestPbt(SpaceSearchContract):
    algorithm = "pbt"
    settings: ClassVar[Mapping[str, str]] = SETTINGS


def suggest(trials: Sequence[Trial], num: int, **settings: str) -> tuple[ParameterAssignments, ...]:
    experiment = build_experiment("pbt", [RATE], settings={**SETTINGS, **settings})
    request = GetSuggestionsRequest(
        experiment=experiment,
        trials=tuple(trials),
        current_request_number=num,
        total_request_number=len(trials) + num,
    )
    return ALGORITHMS["pbt"]().get_suggestions(request).parameter_assignments


def run(
    suggestions: Sequence[ParameterAssignments],
    *,
    condition: TrialConditionType = TrialConditionType.SUCCEEDED,
) -> list[Trial]:
    """Trials whose objective is their rate."""
    trials = []
    for suggestion in suggestions:
        value = suggestion.assignments[0].value
        trial = build_trial(
            suggestion.trial_name, suggestion.assignments, condition=condition, value=value
        )
        trials.append(replace(trial, spec=replace(trial.spec, labels=suggestion.labels)))
    return trials


def rate(suggestion: ParameterAssignments | Trial) -> float:
    assignments = (
        suggestion.spec.parameter_assignments
        if isinstance(suggestion, Trial)
        else suggestion.assignments
    )
    return float(assignments[0].value)


def test_trials_are_named_after_the_experiment() -> None:
    names = [suggestion.trial_name for suggestion in suggest([], 5)]

    assert all(name.startswith("contract-") for name in names)
    assert len(set(names)) == 5


def test_the_first_generation_is_random_and_has_no_parents() -> None:
    labels = [suggestion.labels for suggestion in suggest([], 7)]

    assert labels == [{GENERATION_LABEL: "0"}] * 7


def test_a_generation_is_made_of_the_one_before() -> None:
    first = run(suggest([], 5))
    worst, *_, best = sorted(first, key=rate)

    heirs = suggest(first, 5)

    parents = Counter(heir.labels[PARENT_LABEL] for heir in heirs)
    assert {heir.labels[GENERATION_LABEL] for heir in heirs} == {"1"}
    assert worst.name not in parents
    assert parents[best.name] == 2
    exploiting = [heir for heir in heirs if rate(heir) == rate(best)]
    assert [heir.labels[PARENT_LABEL] for heir in exploiting] == [best.name]


def test_exploring_changes_a_number_by_a_fifth_within_its_bounds() -> None:
    first = run(suggest([], 5))
    by_name = {trial.name: rate(trial) for trial in first}

    heirs = suggest(first, 5, truncation_threshold="0")

    for heir in heirs:
        own = by_name[heir.labels[PARENT_LABEL]]
        assert any(rate(heir) == pytest.approx(min(own * f, 1.0)) for f in (0.8, 1.2))


def test_resampling_draws_anew() -> None:
    first = run(suggest([], 5))
    kept = suggest(first, 5, resample_probability="0", truncation_threshold="0")
    drawn = suggest(first, 5, resample_probability="1", truncation_threshold="0")

    assert sorted(map(rate, kept)) == sorted(map(rate, first))
    assert not set(map(rate, drawn)) & set(map(rate, first))


def test_a_generation_grows_until_enough_of_it_have_a_result() -> None:
    first = run(suggest([], 4))
    running = run(suggest(first, 3), condition=TrialConditionType.RUNNING)

    (more,) = suggest([*first, *running], 1)

    assert more.labels == {GENERATION_LABEL: "0"}


def test_a_lost_trial_is_suggested_once_more() -> None:
    first = suggest([], 5)
    trials = [*run(first[:1], condition=TrialConditionType.FAILED), *run(first[1:])]

    again, other = suggest(trials, 2)

    assert again.assignments == first[0].assignments
    assert again.trial_name != first[0].trial_name
    assert other.assignments != first[0].assignments
    running = run([again], condition=TrialConditionType.RUNNING)
    (next_one,) = suggest([*trials, *running], 1)
    assert next_one.assignments != again.assignments


def test_the_population_gets_better() -> None:
    trials: list[Trial] = []
    for _ in range(8):
        trials += run(suggest(trials, 5))

    assert sum(map(rate, trials[-5:])) > sum(map(rate, trials[:5]))


def test_a_trial_finds_what_its_parent_left(tmp_path: Path) -> None:
    first = suggest([], 5)
    prepare_checkpoints(tmp_path, "contract", first)
    for suggestion in first:
        folder = tmp_path / "contract" / suggestion.trial_name
        assert list(folder.iterdir()) == []
        (folder / "weights").write_text(suggestion.trial_name)

    heirs = suggest(run(first), 5)
    prepare_checkpoints(tmp_path, "contract", heirs)

    for heir in heirs:
        weights = tmp_path / "contract" / heir.trial_name / "weights"
        assert weights.read_text() == heir.labels[PARENT_LABEL]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"n_population": "4"}, "n_population must be an integer of 5 or more, not '4'"),
        ({"truncation_threshold": "1.1"}, r"truncation_threshold must be a number in \[0, 1\]"),
        ({"resample_probability": "-1"}, "resample_probability must be a number"),
        ({"suggestion_trial_dir": "x"}, "suggestion_trial_dir must be the absolute path"),
        ({"n_population": None}, "n_population is missing"),
        ({"suggestion_trial_dir": None}, "suggestion_trial_dir is missing"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_name(
    changes: Mapping[str, str | None], match: str
) -> None:
    settings = {k: v for k, v in {**SETTINGS, **changes}.items() if v is not None}
    experiment = build_experiment("pbt", [RATE], settings=settings)

    with pytest.raises(InvalidSettingsError, match=match):
        ALGORITHMS["pbt"]().validate_algorithm_settings(
            ValidateAlgorithmSettingsRequest(experiment=experiment)
        )
