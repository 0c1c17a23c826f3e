"""Searches side by side: how they were set up, what they found, and how soon."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubeloop.katib.results import ExperimentResult

_SETTINGS: Mapping[str, Callable[[ExperimentResult], Any]] = {
    "status": lambda result: str(result.status),
    "algorithm": lambda result: result.algorithm,
    "objective": lambda result: (
        f"{'maximize' if result.is_maximized else 'minimize'} {result.objective_metric}"
    ),
    "max trials": lambda result: result.max_trial_count,
    "parallel trials": lambda result: result.parallel_trial_count,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRow:
    """One thing of every experiment; None where one has no such thing."""

    section: str
    name: str
    values: tuple[Any, ...]  # JSON

    @property
    def differs(self) -> bool:
        """Whether the experiments are not alike in it."""
        return any(value != self.values[0] for value in self.values)


def compare_experiments(results: Sequence[ExperimentResult]) -> list[ComparedRow]:
    """What experiments have in common, and what not."""
    rows = [
        ComparedRow(section="settings", name=name, values=tuple(map(read, results)))
        for name, read in _SETTINGS.items()
    ]
    return [*rows, *_compare_spaces(results), *_compare_outcomes(results), *_compare_best(results)]


def _compare_spaces(results: Sequence[ExperimentResult]) -> Iterator[ComparedRow]:
    for name in _join(result.search_space for result in results):
        spaces = (result.search_space.get(name) for result in results)
        values = tuple(space.text if space else None for space in spaces)
        yield ComparedRow(section="search space", name=name, values=values)


def _compare_outcomes(results: Sequence[ExperimentResult]) -> Iterator[ComparedRow]:
    counts = [Counter(str(trial.status) for trial in result.trials) for result in results]
    yield _outcome("trials", [len(result.trials) for result in results])
    for status in _join(counts):
        yield _outcome(f"trials {status}", [count.get(status, 0) for count in counts])
    yield _outcome("seconds", [_measure_seconds(result) for result in results])
    yield _outcome("best objective", [r.best.objective if r.best else None for r in results])
    yield _outcome("found at trial", [_find_number(result) for result in results])


def _compare_best(results: Sequence[ExperimentResult]) -> Iterator[ComparedRow]:
    bests = [result.best.parameters if result.best else {} for result in results]
    for name in _join(bests):
        values = tuple(best.get(name) for best in bests)
        yield ComparedRow(section="best parameters", name=name, values=values)


def _outcome(name: str, values: Sequence[Any]) -> ComparedRow:
    return ComparedRow(section="outcome", name=name, values=tuple(values))


def _join(mappings: Any) -> list[str]:  # an iterable of mappings
    """Keys of all of them, each once, in the order of the first."""
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _measure_seconds(result: ExperimentResult) -> float | None:
    if result.started_at is None or result.completed_at is None:
        return None
    return (result.completed_at - result.started_at).total_seconds()


def _find_number(result: ExperimentResult) -> int | None:
    """The number of the best trial in the order of suggestion, from 1."""
    if result.best is None:
        return None
    return [trial.name for trial in result.trials].index(result.best.name) + 1
