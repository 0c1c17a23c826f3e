"""Runs side by side: parameters, metrics, outputs, artifacts, states and durations.

A row has one value a run, None where the run has none. What is compared comes from KFP's API and
record, so that runs of a laptop and of a cluster are compared alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kubeloop.pipelines.metadata import Artifact, TaskRecord
from kubeloop.pipelines.runs import Run

_METRICS = "Metrics"
_CLASSIFICATION = "ClassificationMetrics"
_LOGS = "executor-logs"
"""Name of the artifact in which KFP keeps what a step printed; no two are equal."""
_CONFUSION, _ROC = "confusionMatrix", "confidenceMetrics"

Values = dict[str, Any]  # by row name; any JSON value


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One thing that is compared."""

    name: str
    values: tuple[Any, ...]
    differs: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRun:
    """A run of the comparison."""

    run_id: str
    name: str
    state: str
    created_at: datetime | None
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """Confusion matrices and ROC curves that one output holds, one a run, None where missing."""

    name: str
    confusions: tuple[Mapping[str, Any] | None, ...] = ()
    rocs: tuple[Sequence[Mapping[str, Any]] | None, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Runs side by side; values stand in the order of `runs`."""

    runs: tuple[ComparedRun, ...]
    sections: Mapping[str, tuple[Row, ...]]
    """Rows by heading: parameters, metrics, outputs, artifacts, states, seconds."""
    classifications: tuple[Classification, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Collected:
    """What one run has, by row name."""

    parameters: Values = field(default_factory=dict)
    metrics: Values = field(default_factory=dict)
    outputs: Values = field(default_factory=dict)
    artifacts: Values = field(default_factory=dict)
    states: Values = field(default_factory=dict)
    seconds: Values = field(default_factory=dict)
    classifications: Values = field(default_factory=dict)


def compare_runs(
    runs: Sequence[Run],
    records: Mapping[str, Sequence[TaskRecord]],
    *,
    notes: Iterable[str] = (),
) -> Comparison:
    """Put runs side by side.

    Args:
        runs: In the order in which they are shown.
        records: The tasks of each run, by its id; a run may have none.
        notes: What could not be read.
    """
    collected = [_collect(run, records.get(run.run_id, ())) for run in runs]
    sections = {
        heading: _align(
            [getattr(of, heading) for of in collected], is_measured=heading == "seconds"
        )
        for heading in ("parameters", "metrics", "outputs", "artifacts", "states", "seconds")
    }
    return Comparison(
        runs=tuple(
            ComparedRun(
                run_id=run.run_id,
                name=run.name,
                state=run.state,
                created_at=run.created_at,
                seconds=run.seconds,
            )
            for run in runs
        ),
        sections=sections,
        classifications=_align_classifications([of.classifications for of in collected]),
        notes=tuple(notes),
    )


def _collect(run: Run, records: Sequence[TaskRecord]) -> _Collected:
    found = _Collected(parameters=dict(run.parameters))
    steps = [record for record in records if not record.is_group]
    names = _name(steps)
    if not steps:
        _collect_states(run, found)
    for record in steps:
        name = names[record.task_id]
        found.states[name] = "CACHED" if record.is_cached else record.state or "not run"
        if record.start_time and record.end_time:
            found.seconds[name] = round((record.end_time - record.start_time).total_seconds(), 3)
        for key, value in record.output_parameters.items():
            found.outputs[f"{name}.{key}"] = value
        for key, artifacts in record.output_artifacts.items():
            if key == _LOGS:
                continue
            for index, artifact in enumerate(artifacts):
                suffix = f"[{index}]" if len(artifacts) > 1 else ""
                _collect_artifact(found, f"{name}.{key}{suffix}", artifact)
    return found


def _collect_states(run: Run, found: _Collected) -> None:
    """States and durations as the API tells them where the record cannot be read."""
    for task in run.tasks:
        if not task.is_group:
            found.states[task.name] = str(task.state)
            if task.seconds is not None:
                found.seconds[task.name] = task.seconds


def _name(records: Sequence[TaskRecord]) -> dict[str, str]:
    """A name for each task, short where that is clear: a loop's tasks need their path."""
    counts = Counter(record.name for record in records)
    return {
        record.task_id: record.path.removeprefix("root.")
        if counts[record.name] > 1 and record.path
        else record.name
        for record in records
    }


def _collect_artifact(found: _Collected, name: str, artifact: Artifact) -> None:
    if artifact.type == _METRICS:
        for key, value in artifact.metadata.items():
            if key != "display_name" and not isinstance(value, dict | list):
                found.metrics[f"{name}.{key}"] = value
    elif artifact.type == _CLASSIFICATION:
        found.classifications[name] = artifact.metadata
    else:
        found.artifacts[name] = artifact.digest or artifact.uri


def _align(collected: Sequence[Values], *, is_measured: bool) -> tuple[Row, ...]:
    """Rows in the order in which the runs have them; no measured time equals another."""
    rows = []
    for name in dict.fromkeys(key for values in collected for key in values):
        values = tuple(of.get(name) for of in collected)
        differs = not is_measured and any(value != values[0] for value in values[1:])
        rows.append(Row(name=name, values=values, differs=differs))
    return tuple(rows)


def _align_classifications(collected: Sequence[Values]) -> tuple[Classification, ...]:
    return tuple(
        Classification(
            name=name,
            confusions=tuple(of.get(name, {}).get(_CONFUSION) for of in collected),
            rocs=tuple(of.get(name, {}).get(_ROC) for of in collected),
        )
        for name in dict.fromkeys(key for values in collected for key in values)
    )
