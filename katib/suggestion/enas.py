"""ENAS: a recurrent controller proposes architectures and learns from how good they were.

A suggestion tells each layer's operation and from which earlier layers it also takes its input
(`architecture`), and what the operations' numbers mean (`nn_config`), in Katib's formats.

The controller follows from the trials: from weights that the seed decides it takes
`controller_train_steps` steps for each trial that ends, on the newest results, in the order in
which they came in. As training it on all of them again takes a tenth of a second a trial, the last
controllers are remembered by what they were trained on; a service that was restarted trains it
anew, and gets the same. Katib's own credits the average of all trials to architectures that it
samples meanwhile; here each architecture gets its own trial's result, against a moving baseline
(REINFORCE).

Source: Katib's `enas`, pkg/suggestion/v1beta1/nas/enas; Pham et al., Efficient Neural Architecture
Search via Parameter Sharing, 2018.
"""

from __future__ import annotations

import json
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from kubeloop.katib.suggestion.messages import (
    ExperimentSpec,
    GetSuggestionsReply,
    GetSuggestionsRequest,
    NasConfig,
    ParameterAssignment,
    ParameterAssignments,
    Trial,
    ValidateAlgorithmSettingsRequest,
)
from kubeloop.katib.suggestion.nas import Layer, list_layers, read_nas_config, render_json
from kubeloop.katib.suggestion.randomness import make_generator, suggestion_numbers
from kubeloop.katib.suggestion.service import InvalidSettingsError, SuggestionService
from kubeloop.katib.suggestion.settings import (
    RANDOM_STATE,
    Setting,
    Settings,
    count,
    parse_settings,
)
from kubeloop.katib.suggestion.threads import single_thread
from kubeloop.katib.suggestion.trials import read_loss

if TYPE_CHECKING:
    from kubeloop.katib.suggestion.enas_controller import (
        Architecture,
        Controller,
        PolicyConfig,
        Result,
    )

ARCHITECTURE = "architecture"
NN_CONFIG = "nn_config"

_NUM_REMEMBERED = 16
_NUM_BACK = 4
"""Of one search, as a trial may come in before others that ended in the same second."""


def _number(name: str, default: float, *, most: float = math.inf, none: bool = False) -> Setting:
    bound = "" if most == math.inf else f" and at most {most:g}"
    return Setting(
        name=name,
        type=float,
        rule=f"a number above 0{bound}{', or None' if none else ''}",
        is_allowed=lambda value: 0 < value <= most and math.isfinite(value),
        default=default,
        none="None" if none else None,
    )


class EnasSearch(SuggestionService):
    """Katib's `enas`, also with a seed."""

    known_settings: ClassVar[tuple[Setting, ...]] = (
        count("controller_hidden_size", least=1, default=64),
        _number("controller_temperature", 5.0, none=True),
        _number("controller_tanh_const", 2.25, none=True),
        _number("controller_entropy_weight", 1e-5, none=True),
        _number("controller_baseline_decay", 0.999, most=1),
        _number("controller_learning_rate", 5e-5, most=1),
        _number("controller_skip_target", 0.4, most=1),
        _number("controller_skip_weight", 0.8, none=True),
        count("controller_train_steps", least=1, default=50),
        count("controller_log_every_steps", least=1, default=10),
        RANDOM_STATE,
    )

    def get_suggestions(self, request: GetSuggestionsRequest) -> GetSuggestionsReply:
        spec = request.experiment.spec
        config = read_nas_config(spec)
        settings = parse_settings(spec.algorithm, self.known_settings)
        layers, num_layers = list_layers(config), config.graph_config.num_layers
        policy = _build_policy(settings, num_layers=num_layers, num_operations=len(layers))
        results = _find_results(request.trials, policy)
        with single_thread():
            controller = _TRAINED.find(policy, results)
            architectures = [
                controller.sample(make_generator(settings.seed, number))
                for number in suggestion_numbers(request)
            ]
        return GetSuggestionsReply(
            parameter_assignments=tuple(
                _render(architecture, config, layers) for architecture in architectures
            )
        )

    def validate_algorithm_settings(self, request: ValidateAlgorithmSettingsRequest) -> None:
        spec = request.experiment.spec
        parse_settings(spec.algorithm, self.known_settings)
        _check_sizes(spec)


def _check_sizes(spec: ExperimentSpec) -> None:
    graph = read_nas_config(spec).graph_config
    for name, sizes in (("inputSizes", graph.input_sizes), ("outputSizes", graph.output_sizes)):
        if not sizes:
            raise InvalidSettingsError(f"nasConfig.graphConfig.{name} is missing")


class TrainedControllers:
    """The controllers that were trained last, by what they were trained on."""

    def __init__(self) -> None:
        self._controllers: OrderedDict[tuple[PolicyConfig, tuple[Result, ...]], Controller] = (
            OrderedDict()
        )
        self._lock = threading.Lock()

    def find(self, policy: PolicyConfig, results: Sequence[Result]) -> Controller:
        """The controller after these results; it is trained on those that are new."""
        from kubeloop.katib.suggestion.enas_controller import Controller

        results = tuple(results)
        num_known, controller = len(results), None
        with self._lock:
            while num_known and controller is None:
                controller = self._controllers.get((policy, results[:num_known]))
                num_known -= controller is None
        controller = controller or Controller.build(policy)
        for num in range(num_known + 1, len(results) + 1):
            controller = controller.learn(results[:num])
            if num > len(results) - _NUM_BACK:
                self._remember((policy, results[:num]), controller)
        return controller

    def _remember(
        self, key: tuple[PolicyConfig, tuple[Result, ...]], controller: Controller
    ) -> None:
        with self._lock:
            self._controllers[key] = controller
            while len(self._controllers) > _NUM_REMEMBERED:
                self._controllers.popitem(last=False)


_TRAINED = TrainedControllers()


def _build_policy(settings: Settings, *, num_layers: int, num_operations: int) -> PolicyConfig:
    from kubeloop.katib.suggestion.enas_controller import PolicyConfig

    def optional(name: str) -> float | None:
        return settings.number(name) if settings.has(name) else None

    return PolicyConfig(
        num_layers=num_layers,
        num_operations=num_operations,
        seed=make_generator(settings.seed or 0, -1).getrandbits(32),
        hidden_size=settings.integer("controller_hidden_size"),
        temperature=optional("controller_temperature"),
        tanh_const=optional("controller_tanh_const"),
        entropy_weight=optional("controller_entropy_weight"),
        baseline_decay=settings.number("controller_baseline_decay"),
        learning_rate=settings.number("controller_learning_rate"),
        skip_target=settings.number("controller_skip_target"),
        skip_weight=optional("controller_skip_weight"),
        train_steps=settings.integer("controller_train_steps"),
    )


def _render(
    architecture: Architecture, config: NasConfig, layers: list[Layer]
) -> ParameterAssignments:
    graph = config.graph_config
    used = [entries[0] for entries in architecture]
    nn_config = {
        "num_layers": graph.num_layers,
        "input_sizes": list(graph.input_sizes),
        "output_sizes": list(graph.output_sizes),
        "embedding": {str(number): layers[number].to_json() for number in used},
    }
    return ParameterAssignments(
        assignments=(
            ParameterAssignment(name=ARCHITECTURE, value=render_json(architecture)),
            ParameterAssignment(name=NN_CONFIG, value=render_json(nn_config)),
        )
    )


def _find_results(trials: Sequence[Trial], policy: PolicyConfig) -> list[Result]:
    """Architectures and their rewards, in the order in which they ended."""
    found = []
    for trial in sorted(trials, key=lambda trial: (trial.status.completion_time, trial.name)):
        loss = read_loss(trial)
        values = {entry.name: entry.value for entry in trial.spec.parameter_assignments}
        architecture = _parse(values.get(ARCHITECTURE, ""), policy)
        if loss is not None and architecture is not None:
            found.append((architecture, -loss))
    return found


def _parse(text: str, policy: PolicyConfig) -> Architecture | None:
    """An architecture that was suggested, None for anything else."""
    try:
        architecture: Architecture = tuple(map(tuple, json.loads(text.replace("'", '"'))))
        is_sound = len(architecture) == policy.num_layers and all(
            len(entries) == index + 1
            and entries[0] in range(policy.num_operations)
            and set(entries[1:]) <= {0, 1}
            for index, entries in enumerate(architecture)
        )
    except (ValueError, TypeError):
        return None
    return architecture if is_sound else None
