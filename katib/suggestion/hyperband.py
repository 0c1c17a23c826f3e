"""Hyperband: brackets of successive halving that trade the number of configurations for resource.

A rung is promoted when all its trials have ended. Meanwhile the next bracket is begun, so that
every request is answered at once and in full, as Katib demands; Katib's own service refuses until
the rung has ended. Where all brackets are done, the first one is begun again.

Source: Katib's `hyperband`, pkg/suggestion/v1beta1/hyperband; Li et al., Hyperband: A Novel
Bandit-Based Approach to Hyperparameter Optimization, 2018.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count as count_up
from typing import ClassVar

from kubeloop.katib.suggestion.messages import ParameterAssignments
from kubeloop.katib.suggestion.rungs import (
    PROMOTED,
    RESOURCE_NAME,
    Climber,
    Ladder,
    Position,
    RungSearch,
)
from kubeloop.katib.suggestion.service import InvalidSettingsError
from kubeloop.katib.suggestion.settings import RANDOM_STATE, Setting, Settings
from kubeloop.katib.suggestion.space_search import Problem

_STATE = ("s_max", "b_l", "r", "n", "current_s", "current_i", "evaluating_trials")
"""What Katib's service tells in its replies, and gets back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Brackets:
    """How many trials each rung of each bracket has, and how much resource."""

    eta: float
    resource: float
    """The most that a trial gets (`r_l`)."""

    @classmethod
    def of(cls, settings: Settings) -> Brackets:
        return cls(eta=settings.number("eta"), resource=settings.number("r_l"))

    @property
    def s_max(self) -> int:
        """How often the first bracket is halved."""
        return max(int(math.log(self.resource) / math.log(self.eta)), 0)

    def count_halvings(self, bracket: int) -> int:
        """The paper's s: the rungs above the first."""
        return self.s_max - bracket % (self.s_max + 1)

    def count_trials(self, position: Position) -> int:
        s = self.count_halvings(position.bracket)
        num = math.ceil((self.s_max + 1) * self.eta**s / (s + 1))
        return max(math.floor(num * self.eta**-position.rung), 1)

    def resource_at(self, position: Position) -> float:
        return self.resource * self.eta ** (position.rung - self.count_halvings(position.bracket))


class HyperbandSearch(RungSearch):
    """Katib's `hyperband`, also with a seed."""

    known_settings: ClassVar[tuple[Setting, ...]] = (
        Setting(
            name="r_l",
            type=float,
            is_allowed=lambda value: value > 0 and math.isfinite(value),
            rule="a positive number: the most resource that a trial gets",
            is_required=True,
        ),
        RESOURCE_NAME,
        Setting(
            name="eta",
            type=float,
            is_allowed=lambda value: value > 1 and math.isfinite(value),
            rule="a number above 1",
            default=3.0,
        ),
        RANDOM_STATE,
        *(Setting(name=name, type=str) for name in _STATE),
        PROMOTED,
    )

    def check(self, problem: Problem) -> None:
        super().check(problem)
        brackets = Brackets.of(problem.settings)
        least = math.ceil(brackets.eta**brackets.s_max)
        if problem.spec.parallel_trial_count < least:
            raise InvalidSettingsError(
                f"parallelTrialCount must be at least {least} (eta ^ s_max), not "
                f"{problem.spec.parallel_trial_count}"
            )

    def climb(self, problem: Problem, ladder: Ladder, number: int) -> ParameterAssignments:
        brackets = Brackets.of(problem.settings)
        climber = next(_find_promotable(brackets, ladder), None)
        if climber is not None:
            above = Position(bracket=climber.position.bracket, rung=climber.position.rung + 1)
            return ladder.promote(number, climber, resource=brackets.resource_at(above))
        first = Position(bracket=_find_open_bracket(brackets, ladder))
        return ladder.add_new(number, first, resource=brackets.resource_at(first))

    def tell_state(self, problem: Problem, last: Position) -> dict[str, object]:
        brackets = Brackets.of(problem.settings)
        first = Position(bracket=last.bracket)
        return {
            "eta": brackets.eta,
            "s_max": brackets.s_max,
            "r_l": brackets.resource,
            "b_l": (brackets.s_max + 1) * brackets.resource,
            "r": brackets.resource_at(first),
            "n": brackets.count_trials(first),
            "current_s": brackets.count_halvings(last.bracket),
            "current_i": last.rung,
            "resource_name": problem.settings.text("resource_name"),
            "evaluating_trials": brackets.count_trials(last),
        }


def _find_promotable(brackets: Brackets, ladder: Ladder) -> Iterator[Climber]:
    for bracket in ladder.brackets():
        for rung in range(brackets.count_halvings(bracket)):
            position = Position(bracket=bracket, rung=rung)
            if not _is_complete(position, brackets, ladder):
                break
            best = _choose(position, brackets, ladder)
            yield from (climber for climber in best if not ladder.is_promoted(climber))


def _choose(position: Position, brackets: Brackets, ladder: Ladder) -> list[Climber]:
    """The trials of a rung to be promoted."""
    above = Position(bracket=position.bracket, rung=position.rung + 1)
    return ladder.rank(position)[: brackets.count_trials(above)]


def _is_complete(position: Position, brackets: Brackets, ladder: Ladder) -> bool:
    if not ladder.is_settled(position):
        return False
    if position.rung == 0:
        return len(ladder.stand(position)) >= brackets.count_trials(position)
    below = Position(bracket=position.bracket, rung=position.rung - 1)
    return _is_complete(below, brackets, ladder) and all(
        ladder.is_promoted(climber) for climber in _choose(below, brackets, ladder)
    )


def _find_open_bracket(brackets: Brackets, ladder: Ladder) -> int:
    """The first bracket that lacks configurations, counting those that have no trial yet."""
    num_unborn = ladder.count_new_unborn()
    for bracket in count_up():
        first = Position(bracket=bracket)
        num_missing = max(brackets.count_trials(first) - len(ladder.stand(first)), 0)
        if num_missing > num_unborn:
            return bracket
        num_unborn -= num_missing
    raise AssertionError
