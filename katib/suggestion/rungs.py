"""Successive halving: trials on rungs, and the promotion of the best to the next.

A promoted configuration is a new trial with the same values and more of the resource. Every trial
says where it stands in labels, from which the search is reproduced:

    suggestion.kubeloop.dev/number    which suggestion of the experiment it is, from 0
    suggestion.kubeloop.dev/bracket   the bracket that it belongs to
    suggestion.kubeloop.dev/rung      the rung, from 0 for the least resource
    suggestion.kubeloop.dev/parent    the trial that was promoted; absent on rung 0

Whether a promoted trial goes on from its parent's checkpoint is up to the trial template: pods of
a trial carry its labels, so that a container can take the parent's name from

    env:
      - name: PARENT_TRIAL
        valueFrom:
          fieldRef:
            fieldPath: metadata.labels['suggestion.kubeloop.dev/parent']

Trials that are not created yet or came to no metric are not seen by the search. So promotions are
also kept in the setting `promoted` of the reply, and nothing is promoted twice.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from kubeloop.katib.suggestion.messages import (
    AlgorithmSetting,
    AlgorithmSpec,
    GetSuggestionsReply,
    GetSuggestionsRequest,
    ParameterAssignment,
    ParameterAssignments,
    ParameterType,
    Trial,
    ValidateAlgorithmSettingsRequest,
)
from kubeloop.katib.suggestion.random_search import draw
from kubeloop.katib.suggestion.randomness import suggestion_numbers
from kubeloop.katib.suggestion.service import InvalidSettingsError, SuggestionService
from kubeloop.katib.suggestion.settings import Setting
from kubeloop.katib.suggestion.space import assign
from kubeloop.katib.suggestion.space_search import Problem, read_problem
from kubeloop.katib.suggestion.trials import is_active, read_loss

NUMBER_LABEL = "suggestion.kubeloop.dev/number"
BRACKET_LABEL = "suggestion.kubeloop.dev/bracket"
RUNG_LABEL = "suggestion.kubeloop.dev/rung"
PARENT_LABEL = "suggestion.kubeloop.dev/parent"

RESOURCE_NAME = Setting(
    name="resource_name",
    type=str,
    rule="the name of the parameter that a trial's cost is proportional to, such as epochs",
    is_required=True,
)
PROMOTED = Setting(name="promoted", type=str, default="")
"""Kept between requests; not for users."""

_NUMBERS = (ParameterType.DOUBLE, ParameterType.INT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A rung of a bracket."""

    bracket: int = 0
    rung: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Climber:
    """A trial that stands on a rung."""

    trial: Trial
    position: Position
    loss: float | None


class Ladder:
    """The trials of an experiment by the rung on which they stand, and what was promoted.

    It is brought forward with every suggestion that is made.
    """

    def __init__(self, problem: Problem, request: GetSuggestionsRequest) -> None:
        self._problem = problem
        self._climbers: dict[Position, list[Climber]] = defaultdict(list)
        self._children: dict[str, int] = {}  # by name of the parent: number of the promotion
        self._last_seen = -1
        start = suggestion_numbers(request).start
        for entry in filter(None, problem.settings.text(PROMOTED.name).split(",")):
            name, _, text = entry.partition(":")
            if text.isdecimal() and int(text) < start:  # else it was taken back
                self._children[name] = int(text)
        for trial in request.trials:
            labels = trial.spec.labels
            try:
                position = Position(
                    bracket=int(labels[BRACKET_LABEL]), rung=int(labels[RUNG_LABEL])
                )
                number = int(labels[NUMBER_LABEL])
            except (KeyError, ValueError):  # of another search
                continue
            climber = Climber(trial=trial, position=position, loss=read_loss(trial))
            self._climbers[position].append(climber)
            self._last_seen = max(self._last_seen, number)
            if parent := labels.get(PARENT_LABEL):
                self._children[parent] = number
        # NB: trials are created in the order in which they were suggested.
        self._num_unborn = start - 1 - self._last_seen

    def stand(self, position: Position) -> Sequence[Climber]:
        """The trials on a rung that can be seen."""
        return self._climbers.get(position, ())

    def brackets(self) -> Sequence[int]:
        """The brackets that have trials, in order."""
        return sorted({position.bracket for position in self._climbers})

    def rank(self, position: Position) -> list[Climber]:
        """The trials of a rung that have a result, the best first."""
        done = [climber for climber in self.stand(position) if climber.loss is not None]
        return sorted(done, key=lambda climber: climber.loss or 0.0)

    def is_promoted(self, climber: Climber) -> bool:
        """Whether the trial was promoted already."""
        return climber.trial.name in self._children

    def is_settled(self, position: Position) -> bool:
        """Whether no trial of the rung may still come to a result."""
        below = Position(bracket=position.bracket, rung=position.rung - 1)
        unborn = (self._children.get(parent.trial.name, -1) for parent in self.stand(below))
        return not any(number > self._last_seen for number in unborn) and (
            not any(is_active(climber.trial) for climber in self.stand(position))
        )

    def count_new_unborn(self) -> int:
        """How many suggestions on rung 0 have no trial yet."""
        num_promotions = sum(number > self._last_seen for number in self._children.values())
        return max(self._num_unborn - num_promotions, 0)

    def add_new(self, number: int, position: Position, *, resource: float) -> ParameterAssignments:
        """Suggest a random configuration."""
        texts = draw(self._problem.dimensions, seed=self._problem.settings.seed, number=number)
        self._num_unborn += 1
        return self._build(
            assign(self._problem.dimensions, texts), number, position, resource=resource
        )

    def promote(self, number: int, climber: Climber, *, resource: float) -> ParameterAssignments:
        """Suggest a trial's configuration with more resource."""
        parent = climber.trial
        self._children[parent.name] = number
        self._num_unborn += 1
        position = Position(bracket=climber.position.bracket, rung=climber.position.rung + 1)
        return self._build(
            parent.spec.parameter_assignments,
            number,
            position,
            resource=resource,
            parent=parent.name,
        )

    def render_promotions(self) -> str:
        """The value of the setting `promoted`."""
        return ",".join(f"{parent}:{number}" for parent, number in self._children.items())

    def _build(
        self,
        assignments: Iterable[ParameterAssignment],
        number: int,
        position: Position,
        *,
        resource: float,
        parent: str = "",
    ) -> ParameterAssignments:
        name = self._problem.settings.text(RESOURCE_NAME.name)
        text = self._render_resource(name, resource)
        labels = {
            NUMBER_LABEL: str(number),
            BRACKET_LABEL: str(position.bracket),
            RUNG_LABEL: str(position.rung),
        }
        return ParameterAssignments(
            assignments=tuple(
                ParameterAssignment(
                    name=entry.name, value=text if entry.name == name else entry.value
                )
                for entry in assignments
            ),
            labels={**labels, PARENT_LABEL: parent} if parent else labels,
        )

    def _render_resource(self, name: str, resource: float) -> str:
        (kind,) = {p.parameter_type for p in self._problem.spec.parameters if p.name == name}
        return str(max(round(resource), 1)) if kind is ParameterType.INT else repr(float(resource))


class RungSearch(SuggestionService):
    """A search that suggests new configurations, or such with more resource."""

    known_settings: ClassVar[tuple[Setting, ...]]
    """Settings of the algorithm, with `RESOURCE_NAME` and `PROMOTED`."""

    @abstractmethod
    def climb(self, problem: Problem, ladder: Ladder, number: int) -> ParameterAssignments:
        """Suggest one trial, through the ladder."""

    @abstractmethod
    def tell_state(self, problem: Problem, last: Position) -> Mapping[str, object]:
        """What else to tell in the reply's settings, when `last` was suggested last."""

    def check(self, problem: Problem) -> None:
        """Refuse what the search cannot work on.

        Raises:
            InvalidSettingsError: It is such.
        """
        check_resource(problem)

    def get_suggestions(self, request: GetSuggestionsRequest) -> GetSuggestionsReply:
        spec = request.experiment.spec
        problem = read_problem(spec, self.known_settings, trials=request.trials)
        check_resource(problem)
        ladder = Ladder(problem, request)
        suggestions = [
            self.climb(problem, ladder, number) for number in suggestion_numbers(request)
        ]
        state = {PROMOTED.name: ladder.render_promotions()}
        if suggestions:
            labels = suggestions[-1].labels
            last = Position(bracket=int(labels[BRACKET_LABEL]), rung=int(labels[RUNG_LABEL]))
            state |= {key: str(value) for key, value in self.tell_state(problem, last).items()}
        return GetSuggestionsReply(
            parameter_assignments=tuple(suggestions),
            algorithm=AlgorithmSpec(
                algorithm_name=spec.algorithm.algorithm_name,
                algorithm_settings=tuple(
                    AlgorithmSetting(name=name, value=value) for name, value in state.items()
                ),
            ),
        )

    def validate_algorithm_settings(self, request: ValidateAlgorithmSettingsRequest) -> None:
        self.check(read_problem(request.experiment.spec, self.known_settings))


def check_resource(problem: Problem) -> None:
    """Refuse a resource that is no parameter, or none that can grow.

    Raises:
        InvalidSettingsError: It is such.
    """
    name = problem.settings.text(RESOURCE_NAME.name)
    kinds = {p.name: p.parameter_type for p in problem.spec.parameters}
    if name not in kinds:
        raise InvalidSettingsError(
            f"resource_name must be a parameter of the search space ({', '.join(kinds)}), "
            f"not {name!r}"
        )
    if kinds[name] not in _NUMBERS:
        raise InvalidSettingsError(
            f"resource_name must be a parameter of type int or double; {name} is none"
        )
