"""Decides, while a trial runs, whether its early stopping rules have been met.

Each rule names a metric, a value and a comparison, and is tested from its start step on. For the
objective the best value so far is compared, for other metrics the newest. A rule that has been met
once stays met; when all have been, the trial is stopped.

Katib's collector tests a rule at its start step only, and never again: for the rules of medianstop
that comes to the same, since the best value never gets worse.

Source: katib v0.19 `file-metricscollector/main.go` (updateStopRules).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence

from kubeloop.local.client import Manifest
from kubeloop.local.operators.katib.metrics import MetricLog, parse_number

_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "equal": operator.eq,
    "less": operator.lt,
    "greater": operator.gt,
}


class StopRules:
    """The rules of one trial, and what has been reported of their metrics."""

    def __init__(self, trial: Manifest) -> None:
        """Take the rules of a trial's spec; a trial without rules is never stopped."""
        spec = trial["spec"]
        self._objective = spec["objective"]["objectiveMetricName"]
        self._choose = max if spec["objective"].get("type") == "maximize" else min
        self._open: list[Manifest] = list(spec.get("earlyStoppingRules") or ())
        self._best: float | None = None
        self._counts: dict[str, int] = {}
        self.verdict = ""
        """Why the trial is to be stopped; empty while it may go on."""

    def note(self, logs: Sequence[MetricLog]) -> None:
        """Take notice of reports, in their order."""
        for log in logs:
            value = parse_number(log.value)
            if self._open and value is not None:
                self._note(log.name, value)

    def _note(self, name: str, value: float) -> None:
        self._counts[name] = count = self._counts.get(name, 0) + 1
        if name == self._objective:
            self._best = value if self._best is None else self._choose(self._best, value)
            value = self._best
        met = [rule for rule in self._open if rule["name"] == name and _is_met(rule, value, count)]
        self._open = [rule for rule in self._open if rule not in met]
        if met and not self._open:
            rule = met[-1]
            self.verdict = (
                f"{name} {value:g} is {rule['comparison']} {_word(rule)} {rule['value']} after "
                f"{count} reports"
            )


def _word(rule: Manifest) -> str:
    return "to" if rule["comparison"] == "equal" else "than"


def _is_met(rule: Manifest, value: float, count: int) -> bool:
    limit = parse_number(str(rule["value"]))
    compare = _COMPARISONS.get(rule.get("comparison", ""))
    if limit is None or compare is None or count < (rule.get("startStep") or 0):
        return False
    return compare(value, limit)
