"""Why a task hit or missed the cache, from what the record tells."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kubeloop.pipelines.cache_reasons import CacheAnswer, Execution, Verdict, explain
from kubeloop.pipelines.metadata import Artifact, TaskRecord

START = datetime(2026, 1, 1, tzinfo=UTC)
PARTS = {"input parameter n": "3", "input artifact data": "sha256:" + "a" * 64, "image": "i:1"}


def spec(*, caching: bool = True, image: str = "i:1", importer: bool = False) -> dict[str, Any]:
    executor = {"importer": {}} if importer else {"container": {"image": image, "command": ["x"]}}
    options = {"enableCache": True} if caching else {}
    return {
        "root": {
            "dag": {
                "tasks": {
                    "t": {"componentRef": {"name": "comp-t"}, "cachingOptions": options},
                    "other": {"componentRef": {"name": "comp-t"}, "cachingOptions": {}},
                }
            }
        },
        "components": {"comp-t": {"executorLabel": "exec-t"}},
        "deploymentSpec": {"executors": {"exec-t": executor}},
    }


def record(run_id: str, *, minute: int = 0, **fields: Any) -> TaskRecord:
    given: dict[str, Any] = {
        "task_id": f"task of {run_id}",
        "name": "t",
        "path": "root.t",
        "run_id": run_id,
        "state": "SUCCEEDED",
        "type": "RUNTIME",
        "input_parameters": {},
        "output_parameters": {},
        "input_artifacts": {},
        "output_artifacts": {},
        "create_time": START + timedelta(minutes=minute),
        "end_time": START + timedelta(minutes=minute, seconds=30),
        "fingerprint": f"fingerprint of {run_id}",
        "fingerprint_parts": PARTS,
    }
    return TaskRecord(**{**given, **fields})


def ask(now: TaskRecord, *earlier: TaskRecord, of: Any = None) -> CacheAnswer:
    declared = spec() if of is None else of
    return explain(
        Execution(record=now, spec=declared), [Execution(record=r, spec=spec()) for r in earlier]
    )


def test_the_first_execution_has_nothing_to_reuse() -> None:
    answer = ask(record("new"))
    assert (answer.verdict, answer.reasons) == (Verdict.MISSED, ("no earlier execution",))


def test_a_hit_names_where_the_outputs_come_from() -> None:
    old = record("old")
    answer = ask(record("new", minute=5, is_cached=True, cached_from=old.task_id), old)
    assert answer.verdict is Verdict.HIT
    assert answer.reasons == ("reused task task of old of run old made at 2026-01-01 00:00:30",)


@pytest.mark.parametrize(
    ("part", "value", "reason"),
    [
        ("input parameter n", "4", "input `n` changed: 3 → 4"),
        (
            "input artifact data",
            "sha256:" + "b" * 64,
            "input `data` changed content (sha256:aaaaaaaaaaaa… → sha256:bbbbbbbbbbbb…)",
        ),
        ("image", "i:2", "image changed: i:1 → i:2"),
        ("input parameter m", "1", "input `m` is new"),
        ("command", "sha256:c", "the component's code or command changed"),
        ("output parameters", "sha256:o", "the component's declared output parameters changed"),
        ("persistent volume claims", "disk", "persistent volume claims changed: none → disk"),
    ],
)
def test_what_changed_is_named(part: str, value: str, reason: str) -> None:
    answer = ask(record("new", minute=5, fingerprint_parts={**PARTS, part: value}), record("old"))
    assert answer.verdict is Verdict.MISSED
    assert answer.reasons == (reason,)
    assert answer.compared_with is not None
    assert answer.compared_with.run_id == "old"


def test_changed_metadata_is_named_by_its_keys() -> None:
    def given(rows: int) -> dict[str, Any]:
        data = Artifact(
            artifact_id="a", name="data", type="Dataset", uri="u", metadata={"rows": rows, "k": 1}
        )
        return {
            "input_artifacts": {"data": (data,)},
            "fingerprint_parts": {**PARTS, "metadata of input artifact data": str(rows)},
        }

    answer = ask(record("new", minute=5, **given(2)), record("old", **given(1)))
    assert answer.reasons == ("the metadata of input `data` changed (rows)",)


def test_the_execution_that_differs_least_is_compared_with() -> None:
    far = record("far", minute=2, fingerprint_parts={**PARTS, "image": "i:0", "command": "c"})
    near = record("near", minute=1)
    changed = {**PARTS, "input parameter n": "4"}
    answer = ask(record("new", minute=5, fingerprint_parts=changed), far, near)
    assert answer.compared_with is not None
    assert answer.compared_with.run_id == "near"


def test_only_what_had_succeeded_before_counts() -> None:
    failed = record("failed", state="FAILED")
    late = record("late", minute=5)
    reused = record("reused", is_cached=True)
    answer = ask(record("new", minute=5), failed, late, reused)
    assert answer.reasons == (
        "no earlier execution had succeeded (3 failed, were reused themselves, or had not ended)",
    )


def test_outputs_that_are_gone_are_the_reason_when_nothing_differs() -> None:
    answer = ask(record("new", minute=5, fingerprint="same"), record("old", fingerprint="same"))
    assert "its outputs were changed or deleted since" in answer.reasons[0]


@pytest.mark.parametrize(
    ("now", "of", "reason"),
    [
        (record("n", fingerprint=""), spec(caching=False), "caching is off for all tasks"),
        (record("n", fingerprint="", is_importer=True), spec(importer=True), "importers are never"),
        (record("n", fingerprint=""), spec(image="argostub/createpvc"), "claims are never cached"),
        (record("n", type="LOOP"), spec(), "it stands for other tasks"),
    ],
)
def test_a_task_outside_of_caching_says_why(now: TaskRecord, of: Any, reason: str) -> None:
    answer = ask(now, of=of)
    assert answer.verdict is Verdict.OFF
    assert reason in answer.reasons[0]


def test_a_task_that_says_so_itself_is_told_from_a_run_without_cache() -> None:
    of = spec(caching=False)
    of["root"]["dag"]["tasks"]["other"]["cachingOptions"] = {"enableCache": True}
    answer = ask(record("n", fingerprint=""), of=of)
    assert answer.reasons == ("the task says so: set_caching_options(False) in the pipeline",)


def test_a_task_that_did_not_run_says_so() -> None:
    assert ask(record("n", state="SKIPPED")).verdict is Verdict.NOT_RUN


def test_an_api_that_records_no_parts_is_compared_by_inputs_and_container() -> None:
    old = record("old", fingerprint_parts={}, input_parameters={"n": 1})
    new = record("new", minute=5, fingerprint_parts={}, input_parameters={"n": 2})
    answer = ask(new, old, of=spec(image="i:2"))
    assert answer.reasons == (
        "input `n` changed: 1 → 2",
        "image changed: i:1 → i:2",
        "this API does not record what went into the fingerprint; inputs and container were"
        " compared",
    )
