"""DARTS: the trial itself searches the architecture, by gradient; it is told where and how.

All suggestions are the same: the settings with their defaults, the search space and the number of
layers, as texts in Katib's formats. Settings that are not known here are passed on to the trial's
program as they are.

Source: Katib's `darts`, pkg/suggestion/v1beta1/nas/darts; Liu et al., DARTS: Differentiable
Architecture Search, 2019.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from kubeloop.katib.suggestion.messages import (
    AlgorithmSpec,
    GetSuggestionsReply,
    GetSuggestionsRequest,
    NasConfig,
    ParameterAssignment,
    ParameterAssignments,
    ValidateAlgorithmSettingsRequest,
)
from kubeloop.katib.suggestion.nas import read_nas_config, render_json
from kubeloop.katib.suggestion.service import SuggestionService
from kubeloop.katib.suggestion.settings import Setting, count

ASSIGNED_NAMES = ("algorithm-settings", "search-space", "num-layers")

_SKIP = "skip_connection"


def _number(name: str, default: float) -> Setting:
    return Setting(
        name=name,
        type=float,
        rule="a number of 0 or more",
        is_allowed=lambda value: value >= 0 and math.isfinite(value),
        default=default,
    )


_SETTINGS = (
    count("num_epochs", least=1, default=50),
    _number("w_lr", 0.025),
    _number("w_lr_min", 0.001),
    _number("w_momentum", 0.9),
    _number("w_weight_decay", 3e-4),
    _number("w_grad_clip", 5.0),
    _number("alpha_lr", 3e-4),
    _number("alpha_weight_decay", 1e-3),
    Setting(
        name="batch_size",
        type=int,
        rule="an integer of 1 or more, or None",
        is_allowed=lambda value: value >= 1,
        default=128,
        none="None",
    ),
    count("num_workers", least=0, default=4),
    count("init_channels", least=1, default=16),
    count("print_step", least=1, default=50),
    count("num_nodes", least=1, default=4),
    count("stem_multiplier", least=1, default=3),
)


class DartsSearch(SuggestionService):
    """Katib's `darts`."""

    def get_suggestions(self, request: GetSuggestionsRequest) -> GetSuggestionsReply:
        spec = request.experiment.spec
        config = read_nas_config(spec)
        values = (
            render_json(_fill(spec.algorithm)),
            render_json(list(_list_primitives(config))),
            str(config.graph_config.num_layers),
        )
        suggestion = ParameterAssignments(
            assignments=tuple(
                ParameterAssignment(name=name, value=value)
                for name, value in zip(ASSIGNED_NAMES, values, strict=True)
            )
        )
        return GetSuggestionsReply(
            parameter_assignments=(suggestion,) * request.current_request_number
        )

    def validate_algorithm_settings(self, request: ValidateAlgorithmSettingsRequest) -> None:
        read_nas_config(request.experiment.spec)
        known = {setting.name: setting for setting in _SETTINGS}
        for given in request.experiment.spec.algorithm.algorithm_settings:
            if given.name in known:
                known[given.name].parse(given.value)


def _fill(algorithm: AlgorithmSpec) -> dict[str, object]:
    """The settings as the trial's program gets them: given ones are texts, defaults numbers."""
    settings: dict[str, object] = {setting.name: setting.default for setting in _SETTINGS}
    for given in algorithm.algorithm_settings:
        settings[given.name] = None if given.value == "None" else given.value
    return settings


def _list_primitives(config: NasConfig) -> Iterator[str]:
    """Operations in the words of DARTS; the first parameter lists the sizes of filters."""
    for operation in config.operations:
        if operation.operation_type == _SKIP:
            yield _SKIP
            continue
        for size in operation.parameters[0].feasible_space.list:
            yield f"{operation.operation_type}_{size}x{size}"
