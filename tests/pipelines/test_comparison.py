"""Runs side by side: what differs is marked, what one lacks is empty."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from kubeloop.pipelines.comparison import Comparison, compare_runs
from kubeloop.pipelines.comparison_report import build_comparison_page, label_runs
from kubeloop.pipelines.metadata import Artifact, TaskRecord
from kubeloop.pipelines.runs import Run, RunState, Task
from kubeloop.reports import Plot, render_page

START = datetime(2026, 1, 1, tzinfo=UTC)
CONFUSION = {
    "annotationSpecs": [{"displayName": "a"}, {"displayName": "<b>"}],
    "rows": [{"row": [3, 1]}, {"row": [0, 4]}],
}
ROC = [{"confidenceThreshold": 0.5, "falsePositiveRate": 0.1, "recall": 0.9}]


def run(run_id: str, **parameters: Any) -> Run:
    return Run(
        run_id=run_id,
        name=f"run {run_id}",
        state=RunState.SUCCEEDED,
        created_at=START,
        finished_at=START + timedelta(seconds=3),
        parameters=parameters,
    )


def artifact(kind: str, **fields: Any) -> Artifact:
    given = {"artifact_id": "x", "name": "x", "type": kind, "uri": "file:///x", **fields}
    return Artifact(**given)


def record(name: str, *, seconds: float = 1.0, **fields: Any) -> TaskRecord:
    given: dict[str, Any] = {
        "task_id": f"{name}{fields.get('path', '')}",
        "name": name,
        "run_id": "r",
        "state": "SUCCEEDED",
        "type": "RUNTIME",
        "input_parameters": {},
        "output_parameters": {},
        "input_artifacts": {},
        "output_artifacts": {},
        "start_time": START,
        "end_time": START + timedelta(seconds=seconds),
    }
    return TaskRecord(**{**given, **fields})


def trained(accuracy: float, digest: str) -> TaskRecord:
    return record(
        "train",
        output_parameters={"job": "j"},
        output_artifacts={
            "metrics": (artifact("Metrics", metadata={"accuracy": accuracy, "kind": "x"}),),
            "model": (artifact("Model", digest=digest),),
            "confusion": (
                artifact(
                    "ClassificationMetrics",
                    metadata={"confusionMatrix": CONFUSION, "confidenceMetrics": ROC},
                ),
            ),
            "executor-logs": (artifact("Artifact", uri=f"file:///{accuracy}"),),
        },
    )


def compare() -> Comparison:
    runs = [run("aaaaaaaa-1", epochs=1, seed=0), run("aaaaaaaa-2", epochs=2)]
    records = {
        runs[0].run_id: [trained(0.5, "sha256:one")],
        runs[1].run_id: [
            trained(0.75, "sha256:two"),
            record("deploy", is_cached=True, seconds=9.0),
        ],
    }
    return compare_runs(runs, records)


def rows(comparison: Comparison, heading: str) -> dict[str, tuple[tuple[Any, ...], bool]]:
    return {row.name: (row.values, row.differs) for row in comparison.sections[heading]}


def test_values_stand_side_by_side_and_differences_are_marked() -> None:
    comparison = compare()
    assert rows(comparison, "parameters") == {
        "epochs": ((1, 2), True),
        "seed": ((0, None), True),
    }
    assert rows(comparison, "metrics") == {
        "train.metrics.accuracy": ((0.5, 0.75), True),
        "train.metrics.kind": (("x", "x"), False),
    }
    assert rows(comparison, "outputs") == {"train.job": (("j", "j"), False)}
    assert rows(comparison, "artifacts") == {
        "train.model": (("sha256:one", "sha256:two"), True),
    }
    assert rows(comparison, "states") == {
        "train": (("SUCCEEDED", "SUCCEEDED"), False),
        "deploy": ((None, "CACHED"), True),
    }
    assert rows(comparison, "seconds") == {
        "train": ((1.0, 1.0), False),
        "deploy": ((None, 9.0), False),
    }


def test_tasks_of_a_loop_are_told_apart_by_their_path() -> None:
    looped = [
        record("train", path="root.for-loop-1.0.train"),
        record("train", path="root.for-loop-1.1.train"),
    ]
    comparison = compare_runs([run("a"), run("b")], {"a": looped, "b": looped[:1]})
    assert list(rows(comparison, "states")) == ["for-loop-1.0.train", "for-loop-1.1.train", "train"]


def test_without_the_record_the_runs_still_compare() -> None:
    task = Task(
        name="t",
        state=RunState.FAILED,
        start_time=START,
        end_time=START + timedelta(seconds=2),
    )
    first = replace(run("a"), tasks=(task,))
    comparison = compare_runs([first, run("b")], {}, notes=["no record"])
    assert rows(comparison, "states") == {"t": (("FAILED", None), True)}
    assert rows(comparison, "seconds") == {"t": ((2.0, None), False)}
    assert comparison.notes == ("no record",)


def test_labels_are_as_long_as_it_takes() -> None:
    assert label_runs(compare()) == ["aaaaaaaa-1", "aaaaaaaa-2"]


def test_the_page_has_tables_and_plots_and_escapes_names() -> None:
    page = build_comparison_page(compare())
    headings = [section.heading for section in page.sections]
    assert headings == [
        "Runs", "Parameters", "Metrics", "Outputs", "Artifacts", "States", "Seconds",
        "train.confusion",
    ]  # fmt: skip
    plots = [part for section in page.sections for part in section.parts if isinstance(part, Plot)]
    assert [len(plot.figure["data"]) for plot in plots] == [1, 2, 2, 2]
    html = render_page(page)
    assert "<b>" not in html.split("</style>")[1].replace("plotly", "")[-200_000:]
