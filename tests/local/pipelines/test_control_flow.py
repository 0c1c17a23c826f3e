"""Conditions, nested pipelines, loops and exit handlers, through runs."""

# KFP reads annotations that are no types to mypy.
# mypy: disable-error-code="no-untyped-def, valid-type, type-arg, no-any-return, name-match"

from typing import Any, NamedTuple

from kfp import dsl

component = dsl.component(base_image="python:3.11", install_kfp_package=False)


@component
def same(value: int) -> int:
    return value


@component
def say(text: str) -> str:
    return text


@component
def total(values: list) -> str:
    return f"{sum(values)} {[type(value).__name__ for value in values]}"


@component
def write(text: str, file: dsl.Output[dsl.Dataset]) -> None:
    from pathlib import Path

    Path(file.path).write_text(text)


@component
def join(files: dsl.Input[list[dsl.Dataset]]) -> str:
    from pathlib import Path

    return ",".join(Path(file.path).read_text() for file in files)


@component
def read(file: dsl.Input[dsl.Dataset]) -> str:
    from pathlib import Path

    return Path(file.path).read_text()


@component
def fail(value: int) -> int:
    raise ValueError(f"refused {value}")


@component
def conclude(status: dsl.PipelineTaskFinalStatus, note: str) -> str:
    return f"{note} {status.state} {status.pipeline_task_name} {bool(status.error_message)}"


@dsl.pipeline(name="branches")
def branches(n: int, flag: bool = True, ratio: float = 0.5) -> str:
    start = same(value=n)
    with dsl.If(start.output > 10, name="large"):
        large = say(text="large")
    with dsl.Elif(start.output > 5):
        medium = say(text="medium")
    with dsl.Else():
        small = say(text="small")
    chosen = dsl.OneOf(large.output, medium.output, small.output)
    say(text=chosen)
    with dsl.If(flag == True):  # noqa: E712, SIM117
        with dsl.If(ratio >= 0.5):
            say(text="nested")
    return chosen


@dsl.pipeline(name="chosen-file")
def chosen_file(name: str):
    with dsl.If(name == "a"):
        first = write(text="of a")
    with dsl.Else():
        second = write(text="of others")
    read(file=dsl.OneOf(first.outputs["file"], second.outputs["file"]))


@dsl.pipeline(name="skipped")
def skipped(n: int = 1):
    with dsl.If(n == 2):
        say(text=say(text="inner").output)
    say(text="independent")


@dsl.pipeline
def doubled(n: int, text: str = "inner default") -> NamedTuple(
    "Outputs", [("number", int), ("file", dsl.Dataset)]
):
    number = same(value=n)
    file = write(text=text)
    outputs = NamedTuple("outputs", [("number", int), ("file", dsl.Dataset)])  # noqa: UP014
    return outputs(number.output, file.outputs["file"])


@dsl.pipeline(name="nested")
def nested(n: int = 4) -> int:
    inner = doubled(n=n)
    read(file=inner.outputs["file"])
    return same(value=inner.outputs["number"]).output


@dsl.pipeline(name="loops")
def loops(items: list, limit: int = 2):
    with dsl.ParallelFor([3, 1, 2], parallelism=1) as item:
        kept = same(value=item)
        written = write(text=f"{item}-{limit}")
        with dsl.If(item == 2):
            say(text="two")
    total(values=dsl.Collected(kept.output))
    join(files=dsl.Collected(written.outputs["file"]))
    with dsl.ParallelFor(items) as given:
        same(value=given)


@dsl.pipeline(name="nested-loops")
def nested_loops():
    with dsl.ParallelFor([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]) as row:
        say(text=f"{row.b}!")
        same(value=row.a)
        with dsl.ParallelFor([10, 20]) as number:
            kept = same(value=number)
    total(values=dsl.Collected(kept.output))


@dsl.pipeline(name="exits")
def exits(fails: bool):
    final = conclude(note="done")
    with dsl.ExitHandler(final, name="guarded"):
        start = say(text="start")
        with dsl.If(fails == True):  # noqa: E712
            fail(value=1).after(start)


@dsl.pipeline(name="ignoring")
def ignoring():
    failed = fail(value=3)
    same(value=7).after(failed).ignore_upstream_failure()
    same(value=8).after(failed)


def test_the_first_true_branch_runs_and_one_of_takes_its_output(runner: Any) -> None:
    for n, expected in ((11, "large"), (6, "medium"), (1, "small")):
        run = runner.run(branches, n=n)
        assert run.state == "SUCCEEDED", run.error
        assert run.output("") == expected
        taken = [path for path, state in run.states().items() if "condition-branches-1." in path]
        assert len([path for path in taken if path.count(".") == 2]) == 1
        assert sorted(run.states().values()).count("SKIPPED") == 2


def test_condition_tasks_have_their_types_and_display_names(runner: Any) -> None:
    run = runner.run(branches, n=11, flag=False)
    group = run.task("condition-branches-1")
    large = run.task("condition-branches-1.condition-2")
    assert (group["type"], large["type"]) == ("CONDITION_BRANCH", "CONDITION")
    assert large["display_name"] == "large"
    assert large["parent_task_id"] == group["task_id"]
    skipped = run.task("condition-branches-1.condition-3")
    assert skipped["status"] == "SKIPPED"
    assert "was false" in skipped["status_metadata"]["message"]


def test_conditions_nest_and_compare_doubles_and_booleans(runner: Any) -> None:
    taken = runner.run(branches, n=1, ratio=1.0).states()
    missed = runner.run(branches, n=1, ratio=0.25).states()
    assert taken["condition-5.condition-6"] == "SUCCEEDED"
    assert missed["condition-5.condition-6"] == "SKIPPED"


def test_one_of_takes_artifacts(runner: Any) -> None:
    assert runner.run(chosen_file, name="a").output("read") == "of a"
    assert runner.run(chosen_file, name="b").output("read") == "of others"


def test_a_false_condition_skips_what_is_in_it_and_the_run_succeeds(runner: Any) -> None:
    run = runner.run(skipped)
    assert run.state == "SUCCEEDED"
    assert run.states() == {"condition-1": "SKIPPED", "say-3": "SUCCEEDED"}


def test_nested_pipelines_take_inputs_and_give_outputs(runner: Any) -> None:
    run = runner.run(nested)
    assert run.state == "SUCCEEDED", run.error
    assert run.output("") == 4
    assert run.output("read") == "inner default"
    assert run.task("doubled")["type"] == "DAG"
    assert run.task("doubled.same")["parent_task_id"] == run.task("doubled")["task_id"]


def test_loops_run_each_item_and_collect_in_order_with_types_kept(runner: Any) -> None:
    run = runner.run(loops, items=[5, 6])
    assert run.state == "SUCCEEDED", run.error
    assert run.output("total") == "6 ['int', 'int', 'int']"
    assert run.output("join") == "3-2,1-2,2-2"
    loop = run.task("for-loop-2")
    assert (loop["type"], loop["type_attributes"]) == ("LOOP", {"iteration_count": "3"})
    assert run.task("for-loop-2.1")["type_attributes"] == {"iteration_index": "1"}
    assert run.states()["for-loop-2.2.condition-3"] == "SUCCEEDED"
    assert run.states()["for-loop-2.0.condition-3"] == "SKIPPED"
    assert [run.output(f"for-loop-4.{index}.same-2") for index in (0, 1)] == [5, 6]


def test_parallelism_one_runs_iterations_one_after_the_other(runner: Any) -> None:
    run = runner.run(loops, items=[])
    ends = [run.task(f"for-loop-2.{index}")["end_time"] for index in range(3)]
    starts = [run.task(f"for-loop-2.{index}")["start_time"] for index in range(3)]
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))


def test_a_loop_over_nothing_succeeds_and_collects_nothing(runner: Any) -> None:
    run = runner.run(loops, items=[])
    assert run.state == "SUCCEEDED", run.error
    assert run.task("for-loop-4")["type_attributes"] == {"iteration_count": "0"}


def test_nested_loops_collect_one_flat_list_and_items_have_fields(runner: Any) -> None:
    run = runner.run(nested_loops)
    assert run.state == "SUCCEEDED", run.error
    assert run.output("total").startswith("60 ")
    assert [run.output(f"for-loop-2.{index}.say") for index in (0, 1)] == ["x!", "y!"]
    assert [run.output(f"for-loop-2.{index}.same") for index in (0, 1)] == [1, 2]


def test_the_exit_task_runs_after_success_and_after_failure(runner: Any) -> None:
    good, bad = runner.run(exits, fails=False), runner.run(exits, fails=True)
    assert good.state == "SUCCEEDED", good.error
    assert good.output("conclude") == "done COMPLETE exit-handler-1 False"
    assert bad.state == "FAILED"
    assert bad.output("conclude") == "done FAILED exit-handler-1 True"
    assert bad.task("exit-handler-1")["type"] == "EXIT_HANDLER"
    assert bad.task("exit-handler-1")["display_name"] == "guarded"


def test_a_task_that_ignores_upstream_failure_runs_after_it(runner: Any) -> None:
    run = runner.run(ignoring)
    assert run.state == "FAILED"
    assert run.states()["same"] == "SUCCEEDED"
    assert run.states()["same-2"] == "RUNTIME_STATE_UNSPECIFIED"
