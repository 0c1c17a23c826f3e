"""What every reader of KFP's record must do; subclass it and give it a `read` fixture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest

from kubeloop.errors import InputError
from kubeloop.pipelines.lineage import Direction, LineageGraph, LineageKind, find_target, trace
from kubeloop.pipelines.metadata import MetadataSource, TaskRecord
from kubeloop.testing.recorded_runs import GivenArtifact, GivenRun, GivenTask, digits_run

ReadRecord = Callable[[Sequence[GivenRun]], MetadataSource]

RUN, SECOND, THIRD = (f"{number}0000000-0000-4000-8000-000000000000" for number in (1, 2, 3))


def _metadata() -> dict[str, object]:
    return {
        "text": "a",
        "number": 0.5,
        "flag": True,
        "list": [1, "b", {"c": None}],
        "object": {"list": [1, 2]},
    }


def small_run(run_id: str = RUN) -> GivenRun:
    """Two tasks: one gives a dataset and two parts, the other, in a group, takes them."""
    write, read = f"{run_id}/write", "dataset"
    table = GivenArtifact(name="table", type="Dataset", uri="s3://b/table", metadata=_metadata())
    parts = [GivenArtifact(name=f"part-{n}", uri=f"s3://b/part/{n}") for n in (1, 2)]
    return GivenRun(
        run_id=run_id,
        pipeline="tables",
        tasks=[
            GivenTask(
                name="write",
                inputs={"size": 3, "name": "x", "list": ["y"]},
                outputs={"rows": 7},
                gives={"table": [table], "parts": parts},
            ),
            GivenTask(
                name="read",
                group="inner",
                takes={read: [(write, "table")], "parts": [(write, "parts"), (write, "table")]},
                gives={"report": [GivenArtifact(name="report", type="HTML", uri="s3://b/r")]},
            ),
        ],
    )


def by_name(source: MetadataSource, run_id: str = RUN) -> dict[str, TaskRecord]:
    """The tasks of a run."""
    return {task.name: task for task in source.list_tasks(run_id)}


def shape_of(graph: LineageGraph) -> set[tuple[str, str, str]]:
    """The links of a graph by the names of nodes."""
    return {
        (graph.nodes[edge.cause].id, edge.relation.value, graph.nodes[edge.effect].id)
        for edge in graph.edges
    }


class MetadataContract:
    """Tests of `MetadataSource`; the fixture writes runs and gives a reader of them."""

    @pytest.fixture
    def read(self) -> ReadRecord:
        """Return a function that writes runs into an empty record and opens it."""
        raise NotImplementedError

    def test_tasks_are_listed_with_what_went_in_and_came_out(self, read: ReadRecord) -> None:
        write = by_name(read([small_run()]))["write"]

        assert (write.run_id, write.state, write.is_group) == (RUN, "SUCCEEDED", False)
        assert write.input_parameters == {"size": 3, "name": "x", "list": ["y"]}
        assert write.output_parameters == {"rows": 7}
        assert write.output_artifacts.keys() == {"table", "parts"}
        assert write.start_time is not None
        assert write.end_time is not None
        assert timedelta(0) <= write.end_time - write.start_time < timedelta(minutes=1)

    def test_artifacts_of_a_list_share_their_name(self, read: ReadRecord) -> None:
        tasks = by_name(read([small_run()]))

        given = tasks["write"].output_artifacts["parts"]
        assert [artifact.uri for artifact in given] == ["s3://b/part/1", "s3://b/part/2"]
        taken = tasks["read"].input_artifacts["parts"]
        assert {artifact.uri for artifact in taken} == {"s3://b/part/1", "s3://b/table"}

    def test_artifacts_say_their_type_and_what_was_recorded(self, read: ReadRecord) -> None:
        (table,) = by_name(read([small_run()]))["write"].output_artifacts["table"]

        assert (table.name, table.type, table.uri) == ("table", "Dataset", "s3://b/table")
        assert table.metadata == _metadata()

    def test_groups_are_told_from_tasks(self, read: ReadRecord) -> None:
        tasks = read([small_run()]).list_tasks(RUN)

        groups = [task for task in tasks if task.is_group]
        assert len(groups) == 2
        assert {task.name for task in tasks if not task.is_group} == {"write", "read"}
        inner = next(task for task in groups if task.parent_id)
        assert by_name_of(tasks, "read").parent_id == inner.task_id
        assert by_name_of(tasks, "write").parent_id != inner.task_id

    def test_cached_tasks_are_marked_and_found_behind(self, read: ReadRecord) -> None:
        again = GivenRun(run_id=SECOND, tasks=[GivenTask(name="write", cached_from=f"{RUN}/write")])
        source = read([small_run(), again])

        cached, first = by_name(source, SECOND)["write"], by_name(source)["write"]

        assert (cached.is_cached, first.is_cached) == (True, False)
        assert (cached.cached_from, cached.state) == (first.task_id, "SUCCEEDED")
        assert cached.output_artifacts == first.output_artifacts
        assert source.find_producer(cached.output_artifacts["table"][0]) == first

    def test_importers_are_marked(self, read: ReadRecord) -> None:
        run = GivenRun(
            run_id=RUN,
            tasks=[
                GivenTask(
                    name="importer",
                    is_importer=True,
                    gives={"artifact": [GivenArtifact(name="artifact", uri="s3://b/x")]},
                ),
                GivenTask(name="use", takes={"given": [(f"{RUN}/importer", "artifact")]}),
            ],
        )

        tasks = by_name(read([run]))

        assert (tasks["importer"].is_importer, tasks["use"].is_importer) == (True, False)

    def test_failed_tasks_are_told(self, read: ReadRecord) -> None:
        run = GivenRun(run_id=RUN, tasks=[GivenTask(name="break", is_failed=True)])

        failed = by_name(read([run]))["break"]

        assert (failed.state, failed.is_importer) == ("FAILED", False)

    def test_runs_name_their_pipeline(self, read: ReadRecord) -> None:
        run = read([small_run()]).get_run(RUN)

        assert (run.run_id, run.pipeline, run.state) == (RUN, "tables", "SUCCEEDED")
        assert run.created_at is not None
        assert run.finished_at is not None

    def test_unknown_things_are_the_users_to_put_right(self, read: ReadRecord) -> None:
        source = read([small_run()])

        for ask in (source.get_run, source.list_tasks, source.get_task, source.get_artifact):
            with pytest.raises(InputError):
                ask(THIRD)

    def test_tasks_and_artifacts_are_found_by_their_identifier(self, read: ReadRecord) -> None:
        source = read([small_run()])
        task = by_name(source)["read"]
        (artifact,) = task.output_artifacts["report"]

        assert source.get_task(task.task_id) == task
        assert source.get_artifact(artifact.artifact_id) == artifact

    def test_artifacts_are_found_by_uri_in_all_runs(self, read: ReadRecord) -> None:
        source = read([small_run(), small_run(SECOND)])

        found = source.find_artifacts(["s3://b/table", "s3://b/nothing"])

        assert [artifact.uri for artifact in found] == ["s3://b/table"] * 2
        assert len({artifact.artifact_id for artifact in found}) == 2
        assert source.find_artifacts([]) == source.find_artifacts([""]) == []

    def test_artifacts_are_found_by_a_part_of_their_uri(self, read: ReadRecord) -> None:
        source = read([small_run()])

        assert [a.uri for a in source.search_artifacts("part/")] == [
            "s3://b/part/1",
            "s3://b/part/2",
        ]
        assert source.search_artifacts("p_rt") == source.search_artifacts("") == []
        assert source.search_artifacts("it's") == []

    def test_uses_are_found_in_both_directions(self, read: ReadRecord) -> None:
        source = read([small_run()])
        tasks = by_name(source)
        (table,) = tasks["write"].output_artifacts["table"]

        uses = source.list_uses([table.artifact_id, THIRD])

        steps = {task.task_id: name for name, task in tasks.items() if not task.is_group}
        found = {(steps[u.task_id], u.is_output) for u in uses if u.task_id in steps}
        assert found == {("write", True), ("read", False)}
        assert {use.run_id for use in uses} == {RUN}
        assert source.list_uses([]) == []

    def test_answers_are_complete_over_many_pages(self, read: ReadRecord) -> None:
        tasks = [
            GivenTask(
                name=f"write-{number}",
                gives={"out": [GivenArtifact(name="out", uri=f"s3://b/{number:03d}/out")]},
            )
            for number in range(450)
        ]
        source = read([GivenRun(run_id=RUN, tasks=tasks)])

        steps = [task for task in source.list_tasks(RUN) if not task.is_group]

        assert [task.name for task in steps] == [task.name for task in tasks]
        artifacts = source.search_artifacts("/out")
        assert len(artifacts) == 450
        assert len(source.find_artifacts([artifact.uri for artifact in artifacts])) == 450
        uses = source.list_uses([artifact.artifact_id for artifact in artifacts])
        assert {use.task_id for use in uses} >= {task.task_id for task in steps}

    def test_lineage_is_the_same_from_every_record(self, read: ReadRecord) -> None:
        runs = [digits_run(1, run_id=RUN), digits_run(2, run_id=SECOND, cached_from=RUN)]
        source = read(runs)
        version, digest = "a" * 64, f"{1:064x}"

        back = trace(find_target(f"digits/{digest}", source, endpoints=()), source)
        dataset = find_target(f"digits@{version}", source, endpoints=())
        ahead = trace(dataset, source, direction=Direction.FORWARD)

        assert {
            ("digits", "ingested into", f"digits@{version}"),
            (f"digits@{version}", "used by", "train-model"),
            ("train-model", "started", "default/train-1"),
            ("tune-1-x", "gave hyperparameters to", "default/train-1"),
            ("default/train-1", "trained", digest),
            (RUN, "ran", "train-model"),
        } <= shape_of(back)
        assert [node.id for node in ahead.select(LineageKind.MODEL)] == [digest]
        assert {node.id for node in ahead.select(LineageKind.RUN)} == {RUN, SECOND}


def by_name_of(tasks: Sequence[TaskRecord], name: str) -> TaskRecord:
    """The task of a name."""
    return next(task for task in tasks if task.name == name)
