"""Trials of earlier experiments, which a search begins with.

Katib's API has no place for them: a request holds the trials of its own experiment. So they travel
as JSON in the setting `warm_start`, which searches that learn from all trials take, here and in an
algorithm image on a cluster. Katib's own images refuse it as unknown, except for its `cmaes`, which
takes no notice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kubeloop.katib.suggestion.messages import (
    Metric,
    ObjectiveSpec,
    ParameterAssignment,
    Trial,
    TrialConditionType,
    TrialSpec,
    TrialStatus,
)
from kubeloop.katib.suggestion.settings import Setting, Settings

_PARAMETERS, _TRIALS = "parameters", "trials"


def render_earlier(trials: Iterable[tuple[Mapping[str, object], float]]) -> str:
    """The setting's text.

    Args:
        trials: Values by parameter, and the objective; all of the same parameters.
    """
    found = list(trials)
    names = list(found[0][0]) if found else []
    rows = [[*(str(values[name]) for name in names), objective] for values, objective in found]
    content = {_PARAMETERS: names, _TRIALS: rows}
    return json.dumps(content, separators=(",", ":"))


def read_earlier(settings: Settings, objective: ObjectiveSpec) -> tuple[Trial, ...]:
    """The trials that the setting tells of, none where it is not given."""
    if not settings.has(WARM_START.name):
        return ()
    names, rows = _parse(settings.text(WARM_START.name))
    return tuple(
        Trial(
            name=f"earlier-{number}",
            spec=TrialSpec(
                objective=objective,
                parameter_assignments=tuple(
                    ParameterAssignment(name=name, value=value)
                    for name, value in zip(names, values, strict=True)
                ),
            ),
            status=TrialStatus(
                condition=TrialConditionType.SUCCEEDED,
                observation=(Metric(name=objective.objective_metric_name, value=repr(reached)),),
            ),
        )
        for number, (*values, reached) in enumerate(rows)
    )


def _parse(text: str) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:  # values, then a number
    """Names of the parameters, and their values and the objective of each trial.

    Raises:
        ValueError: The text is of another form.
    """
    content = json.loads(text)
    try:
        names, rows = content[_PARAMETERS], content[_TRIALS]
        for *values, reached in rows:
            is_number = isinstance(reached, int | float) and math.isfinite(reached)
            is_text = len(values) == len(names) and all(isinstance(v, str) for v in values)
            if not (is_number and is_text):
                raise ValueError(rows)
    except (TypeError, KeyError) as error:
        raise ValueError(text) from error
    return names, rows


def _is_readable(text: str) -> bool:
    _parse(text)
    return True


WARM_START = Setting(
    name="warm_start",
    type=str,
    rule='JSON such as {"parameters":["rate"],"trials":[["0.1",0.93]]}, values and objective',
    is_allowed=_is_readable,
)
"""What earlier experiments found for the same question, by those who ask with the same budget."""
