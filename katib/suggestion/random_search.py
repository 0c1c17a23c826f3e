"""Random search: every suggestion is drawn from the parameters' distributions.

Source: Katib's `random` (hyperopt), pkg/suggestion/v1beta1/hyperopt.
"""

from __future__ import annotations

from kubeloop.katib.suggestion.messages import (
    GetSuggestionsReply,
    GetSuggestionsRequest,
    ParameterAssignments,
    ValidateAlgorithmSettingsRequest,
)
from kubeloop.katib.suggestion.randomness import make_generator, suggestion_numbers
from kubeloop.katib.suggestion.service import SuggestionService
from kubeloop.katib.suggestion.settings import RANDOM_STATE, parse_settings
from kubeloop.katib.suggestion.space import assign, parse_space


class RandomSearch(SuggestionService):
    """Katib's `random`; normal distributions are cut off at the bounds."""

    def get_suggestions(self, request: GetSuggestionsRequest) -> GetSuggestionsReply:
        spec = request.experiment.spec
        dimensions = parse_space(spec)
        seed = parse_settings(spec.algorithm, [RANDOM_STATE]).get(RANDOM_STATE.name)
        suggestions = []
        for number in suggestion_numbers(request):
            generator = make_generator(seed, number)
            texts = [dimension.from_unit(generator.random()) for dimension in dimensions]
            suggestions.append(ParameterAssignments(assignments=assign(dimensions, texts)))
        return GetSuggestionsReply(parameter_assignments=tuple(suggestions))

    def validate_algorithm_settings(self, request: ValidateAlgorithmSettingsRequest) -> None:
        spec = request.experiment.spec
        parse_settings(spec.algorithm, [RANDOM_STATE])
        parse_space(spec)
