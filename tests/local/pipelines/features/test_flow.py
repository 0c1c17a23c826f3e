"""What decides which tasks run, and how often."""

# ruff: noqa: PTH123  # a component's module has what its body imports
# KFP reads annotations that are no types to mypy.
# mypy: disable-error-code="no-untyped-def, valid-type, type-arg, no-any-return, name-match"

from typing import Any, List, NamedTuple  # noqa: UP035  # the SDK knows no other

import pytest
from google.protobuf import json_format
from kfp import dsl

from kubeloop.local.pipelines.spec.documents import PipelineDocument
from kubeloop.local.pipelines.spec.parsing import parse_pipeline

component = dsl.component(base_image="python:3.11", install_kfp_package=False)


@component
def same(value: int) -> int:
    return value


@component
def say(text: str) -> str:
    return text


@component
def describe(values: list) -> str:
    return f"{values} {sorted({type(value).__name__ for value in values})}"


@component
def total(values: list) -> int:
    return int(sum(values))


@component
def rows() -> List[dict]:  # noqa: UP006
    return [{"n": 1, "inner": {"name": "x"}, "items": [1, 2]}, {"n": 2, "inner": {"name": "y"}}]


@component
def name_of(inner: dict) -> str:
    return inner["name"]


@component
def write(text: str, file: dsl.Output[dsl.Dataset]) -> None:
    with open(file.path, "w") as handle:
        handle.write(text)


@component
def read(file: dsl.Input[dsl.Dataset]) -> str:
    with open(file.path) as handle:
        return handle.read()


@component
def join(files: dsl.Input[List[dsl.Dataset]]) -> str:  # noqa: UP006
    return ",".join(open(file.path).read() for file in files)


@component
def fail(text: str) -> str:
    raise ValueError(text)


@component
def conclude(status: dsl.PipelineTaskFinalStatus, word: str) -> str:
    return f"{word} {status.state} {status.pipeline_task_name} {status.error_message[:20]}"


@dsl.pipeline(name="nested-collected")
def nested_collected() -> NamedTuple("Outputs", [("flat", str), ("sums", str), ("files", str)]):
    with dsl.ParallelFor([1, 2]) as outer:
        with dsl.ParallelFor([10, 20]) as item:
            kept = same(value=item)
            written = write(text="w")
        inner = total(values=dsl.Collected(kept.output))
        same(value=outer)
    flat = describe(values=dsl.Collected(kept.output))
    sums = describe(values=dsl.Collected(inner.output))
    files = join(files=dsl.Collected(written.outputs["file"]))
    outputs = NamedTuple("Outputs", [("flat", str), ("sums", str), ("files", str)])  # noqa: UP014
    return outputs(flat.output, sums.output, files.output)


@dsl.pipeline
def write_all() -> List[dsl.Dataset]:  # noqa: UP006
    with dsl.ParallelFor(["a", "b", "c"]) as text:
        written = write(text=text)
    return dsl.Collected(written.outputs["file"])


@dsl.pipeline
def read_all(files: dsl.Input[List[dsl.Dataset]]) -> List[str]:  # noqa: UP006
    with dsl.ParallelFor(files, parallelism=1) as file:
        text = read(file=file)
    return dsl.Collected(text.output)


@dsl.pipeline(name="over-artifacts")
def over_artifacts() -> NamedTuple("Outputs", [("texts", str), ("again", str)]):
    files = write_all().output
    texts = describe(values=read_all(files=files).output)
    with dsl.ParallelFor(files) as file:
        text = read(file=file)
    again = describe(values=dsl.Collected(text.output))
    outputs = NamedTuple("Outputs", [("texts", str), ("again", str)])  # noqa: UP014
    return outputs(texts.output, again.output)


@dsl.pipeline(name="over-outputs")
def over_outputs() -> NamedTuple("Outputs", [("numbers", str), ("names", str)]):
    with dsl.ParallelFor(rows().output) as row:
        number = same(value=row.n)
        name = name_of(inner=row.inner)
    numbers = describe(values=dsl.Collected(number.output))
    names = describe(values=dsl.Collected(name.output))
    outputs = NamedTuple("Outputs", [("numbers", str), ("names", str)])  # noqa: UP014
    return outputs(numbers.output, names.output)


@dsl.pipeline(name="over-lists")
def over_lists() -> str:
    with dsl.ParallelFor([[1, 2], [3]]) as inner, dsl.ParallelFor(inner) as item:
        kept = same(value=item)
    return describe(values=dsl.Collected(kept.output)).output


@dsl.pipeline(name="branches")
def branches(n: int = 7) -> NamedTuple("Outputs", [("word", str), ("file", str)]):
    start = same(value=n)
    with dsl.If(start.output > 10):
        large, large_file = say(text="large"), write(text="of large")
    with dsl.Elif(start.output > 5):
        medium, medium_file = say(text="medium"), write(text="of medium")
    with dsl.Else():
        small, small_file = say(text="small"), write(text="of small")
    word = say(text=dsl.OneOf(large.output, medium.output, small.output))
    files = (made.outputs["file"] for made in (large_file, medium_file, small_file))
    file = read(file=dsl.OneOf(*files))
    outputs = NamedTuple("Outputs", [("word", str), ("file", str)])  # noqa: UP014
    return outputs(word.output, file.output)


@dsl.pipeline(name="some-iterations")
def some_iterations() -> str:
    with dsl.ParallelFor([1, 2, 3]) as item:  # noqa: SIM117
        with dsl.If(item != 2):
            kept = same(value=item)
    return describe(values=dsl.Collected(kept.output)).output


INTS = "['int']"


@pytest.mark.parametrize(
    ("pipeline", "expected"),
    [
        (
            nested_collected,
            {
                "flat": f"[10, 20, 10, 20] {INTS}",
                "sums": f"[30, 30] {INTS}",
                "files": "w,w,w,w",
            },
        ),
        (over_artifacts, dict.fromkeys(("texts", "again"), "['a', 'b', 'c'] ['str']")),
        (over_outputs, {"numbers": f"[1, 2] {INTS}", "names": "['x', 'y'] ['str']"}),
        (over_lists, {"Output": f"[1, 2, 3] {INTS}"}),
        (branches, {"word": "medium", "file": "of medium"}),
        (some_iterations, {"Output": f"[1, 3] {INTS}"}),
    ],
    ids=["nested loops", "artifacts", "outputs", "lists", "branches", "branch in a loop"],
)
def test_outputs(runner: Any, pipeline: Any, expected: dict[str, Any]) -> None:
    run = runner.run(pipeline)
    assert run.state == "SUCCEEDED", run.error
    assert run.outputs() == expected


def test_iterations_are_recorded_below_their_loops(runner: Any) -> None:
    run = runner.run(nested_collected)
    types = [task["type"] for task in run.tasks]
    assert (types.count("LOOP"), types.count("LOOP_ITERATION")) == (3, 6)
    loops = [task for task in run.tasks if task["type"] == "LOOP"]
    assert {task["type_attributes"]["iteration_count"] for task in loops} == {"2"}
    by_id = {task["task_id"]: task for task in run.tasks}
    parents = sorted(by_id[task["parent_task_id"]]["type"] for task in loops)
    assert parents == ["LOOP_ITERATION", "LOOP_ITERATION", "ROOT"]
    collected = run.task("describe")["inputs"]["parameters"][0]
    assert collected["type"] == "COLLECTED_INPUTS"


def test_a_task_that_ignores_failure_takes_its_default_and_the_final_status_tells_it(
    runner: Any,
) -> None:
    @component
    def fall_back(text: str = "default") -> str:
        return text

    @dsl.pipeline(name="ignoring")
    def ignoring():
        final = conclude(word="ended")
        with dsl.ExitHandler(final):
            failed = fail(text="no")
            fall_back(text=failed.output).ignore_upstream_failure()
            say(text="also").after(failed)

    run = runner.run(ignoring)
    assert run.state == "FAILED"
    assert run.output("exit-handler-1.fall-back") == "default"
    assert run.states()["exit-handler-1.say"] == "RUNTIME_STATE_UNSPECIFIED"
    assert run.output("conclude") == "ended FAILED exit-handler-1 Task 'fail' failed w"
    assert run.inputs("conclude")["status"]["error"]["message"] == run.error


def test_retries_wait_longer_each_time_up_to_a_limit() -> None:
    @dsl.pipeline(name="waiting")
    def waiting():
        task = same(value=1)
        task.set_retry(9, backoff_duration="2s", backoff_factor=3, backoff_max_duration="30s")

    spec = json_format.MessageToDict(waiting.pipeline_spec)
    policy = parse_pipeline(PipelineDocument(spec=spec)).dag.tasks["same"].retry
    assert policy.max_retries == 9
    assert [policy.delay_seconds(index) for index in range(4)] == [2, 6, 18, 30]
