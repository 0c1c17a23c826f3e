"""ASHA: successive halving without waiting, for many trials in parallel.

Katib lacks it. Whenever a trial may start, the best of a rung that belongs to its top `1/eta` is
promoted, the highest rung first; where there is none, a new random configuration starts on rung 0.
So no trial waits for another, and early bad luck of a rung is made up for later.

Settings:

    resource_name   the parameter that a trial's cost is proportional to, such as epochs; required.
                    Its bounds do not matter: the rung decides its value.
    r_max           the most of it that a trial gets; required
    r_min           the least of it that a trial gets; 1 by default
    eta             one of so many is promoted, with so many times the resource; 3 by default
    random_state    the seed

The last rung has `r_max`, each rung below `1/eta` of the one above, as long as that is at least
`r_min`.

Source: Li et al., A System for Massively Parallel Hyperparameter Tuning, 2020.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
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


def _resource(name: str, *, default: float | None = None) -> Setting:
    return Setting(
        name=name,
        type=float,
        is_allowed=lambda value: value > 0 and math.isfinite(value),
        rule="a number above 0",
        default=default,
        is_required=default is None,
    )


class AshaSearch(RungSearch):
    """The algorithm `asha`."""

    known_settings: ClassVar[tuple[Setting, ...]] = (
        RESOURCE_NAME,
        _resource("r_max"),
        _resource("r_min", default=1.0),
        Setting(
            name="eta",
            type=int,
            is_allowed=lambda value: value > 1,
            rule="an integer above 1",
            default=3,
        ),
        RANDOM_STATE,
        PROMOTED,
    )

    def check(self, problem: Problem) -> None:
        super().check(problem)
        least, most = problem.settings.number("r_min"), problem.settings.number("r_max")
        if least > most:
            raise InvalidSettingsError(f"r_min must not be above r_max; {least} is above {most}")

    def climb(self, problem: Problem, ladder: Ladder, number: int) -> ParameterAssignments:
        resources = list_resources(problem.settings)
        climber = _find_promotable(problem, ladder, num_rungs=len(resources))
        if climber is not None:
            resource = resources[climber.position.rung + 1]
            return ladder.promote(number, climber, resource=resource)
        return ladder.add_new(number, Position(), resource=resources[0])

    def tell_state(self, problem: Problem, last: Position) -> Mapping[str, object]:  # noqa: ARG002
        return {}


def list_resources(settings: Settings) -> list[float]:
    """The resource of each rung, the lowest first."""
    resources, eta = [settings.number("r_max")], settings.integer("eta")
    # NB: 0.9 / 3 / 3 is a bit below 0.1.
    while resources[-1] / eta >= settings.number("r_min") * (1 - 1e-9):
        resources.append(resources[-1] / eta)
    return resources[::-1]


def _find_promotable(problem: Problem, ladder: Ladder, *, num_rungs: int) -> Climber | None:
    for rung in reversed(range(num_rungs - 1)):
        ranked = ladder.rank(Position(rung=rung))
        for climber in ranked[: len(ranked) // problem.settings.integer("eta")]:
            if not ladder.is_promoted(climber):
                return climber
    return None
