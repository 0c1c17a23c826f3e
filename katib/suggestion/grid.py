"""Grid search: every combination once, in an order that a seed may shuffle.

Source: Katib's `grid` (optuna), pkg/suggestion/v1beta1/optuna.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from kubeloop.katib.suggestion.messages import (
    AlgorithmSpec,
    GetSuggestionsReply,
    GetSuggestionsRequest,
    ParameterAssignments,
    ValidateAlgorithmSettingsRequest,
)
from kubeloop.katib.suggestion.randomness import make_generator, suggestion_numbers
from kubeloop.katib.suggestion.service import InvalidSettingsError, SuggestionService
from kubeloop.katib.suggestion.settings import RANDOM_STATE, parse_settings
from kubeloop.katib.suggestion.space import assign, parse_space


class GridSearch(SuggestionService):
    """Katib's `grid`: every double needs a step, an int has step 1 by default."""

    def get_suggestions(self, request: GetSuggestionsRequest) -> GetSuggestionsReply:
        spec = request.experiment.spec
        dimensions = parse_space(spec)
        axes = [dimension.grid() for dimension in dimensions]
        numbers = suggestion_numbers(request)
        num_combinations = _count(axes)
        if numbers.stop > num_combinations:
            raise InvalidSettingsError(
                f"the grid has {num_combinations} combinations and all of them were suggested"
            )
        order = _order(spec.algorithm, num_combinations)
        return GetSuggestionsReply(
            parameter_assignments=tuple(
                ParameterAssignments(assignments=assign(dimensions, _pick(axes, order[number])))
                for number in numbers
            )
        )

    def validate_algorithm_settings(self, request: ValidateAlgorithmSettingsRequest) -> None:
        spec = request.experiment.spec
        parse_settings(spec.algorithm, [RANDOM_STATE])
        num_combinations = _count([dimension.grid() for dimension in parse_space(spec)])
        if spec.max_trial_count > num_combinations:
            raise InvalidSettingsError(
                f"maxTrialCount {spec.max_trial_count} is above the grid's "
                f"{num_combinations} combinations"
            )


def _count(axes: Sequence[Sequence[str]]) -> int:
    return math.prod(len(axis) for axis in axes)


def _order(algorithm: AlgorithmSpec, num_combinations: int) -> Sequence[int]:
    seed = parse_settings(algorithm, [RANDOM_STATE]).get(RANDOM_STATE.name)
    if seed is None:
        return range(num_combinations)
    order = list(range(num_combinations))
    make_generator(seed, 0).shuffle(order)
    return order


def _pick(axes: Sequence[Sequence[str]], index: int) -> list[str]:
    """The combination with this index; the last parameter changes fastest."""
    texts = []
    for axis in reversed(axes):
        index, position = divmod(index, len(axis))
        texts.append(axis[position])
    return texts[::-1]
