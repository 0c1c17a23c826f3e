"""A run in memory: its tasks as a tree, each with what the pipeline says about it.

The records are the truth and live in the store; a node only joins a record to its place in the
pipeline, so that the tree can be built again from the store at any time.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator

from kubeloop.local.pipelines.spec import ir
from kubeloop.local.pipelines.storage.records import Task, TaskState, TaskType, TaskValues

ROOT_PATH = "root"


class Node:
    """One begun task of a run."""

    __slots__ = ("children", "component", "parent", "record", "spec")

    def __init__(
        self,
        record: Task,
        *,
        component: ir.Component,
        spec: ir.Task | None = None,
        parent: Node | None = None,
    ) -> None:
        self.record = record
        self.component = component
        self.spec = spec
        """None for the root."""
        self.parent = parent
        self.children: dict[str, Node] = {}
        """By task name; the iterations of a loop by their index."""
        if parent is not None:
            parent.children[record.path.rpartition(".")[2]] = self

    @property
    def state(self) -> TaskState:
        return self.record.state

    @property
    def is_loop(self) -> bool:
        return self.record.type is TaskType.LOOP

    @property
    def dag(self) -> ir.Dag | None:
        """The tasks to run in it; None for loops (whose iterations have them) and containers."""
        return None if self.is_loop else self.component.dag

    @property
    def inputs(self) -> TaskValues:
        return self.record.inputs

    @property
    def outputs(self) -> TaskValues:
        return self.record.outputs

    def child_states(self) -> dict[str, TaskState]:
        """States of the begun tasks in it."""
        return {name: child.state for name, child in self.children.items()}

    def walk(self) -> Iterator[Node]:
        """The node and all below it, parents first."""
        yield self
        for child in self.children.values():
            yield from child.walk()


def task_id(run_id: str, path: str) -> str:
    """The identifier of the task at a path of a run; the same whenever it is computed."""
    return str(uuid.uuid5(uuid.UUID(run_id), path))


def task_type(spec: ir.Task, component: ir.Component, dag: ir.Dag) -> TaskType:
    """What a task is in the pipeline's structure, told by how the compiler writes it."""
    if spec.iterator is not None:
        return TaskType.LOOP
    if component.dag is None:
        return TaskType.RUNTIME
    if spec.condition:
        return TaskType.CONDITION
    inner = component.dag.tasks.values()
    if spec.name.startswith("condition-branches-") and all(task.condition for task in inner):
        return TaskType.CONDITION_BRANCH
    exits = (
        task
        for task in dag.tasks.values()
        if task.strategy is ir.TriggerStrategy.ALL_UPSTREAM_TASKS_COMPLETED
    )
    if spec.name.startswith("exit-handler-") and any(spec.name in task.upstream for task in exits):
        return TaskType.EXIT_HANDLER
    return TaskType.DAG


def build_tree(pipeline: ir.Pipeline, tasks: Iterable[Task]) -> Node | None:
    """Join stored tasks to the pipeline; None where the run was never begun."""
    nodes: dict[str, Node] = {}
    root: Node | None = None
    for record in sorted(tasks, key=lambda task: task.path.count(".")):
        if record.type is TaskType.ROOT:
            root = nodes[record.task_id] = Node(record, component=pipeline.root)
            continue
        parent = nodes[record.parent_id]
        if record.type is TaskType.LOOP_ITERATION:
            spec, component = parent.spec, parent.component
        else:
            assert parent.component.dag is not None
            spec = parent.component.dag.tasks[record.name]
            component = pipeline.components[spec.component]
        nodes[record.task_id] = Node(record, component=component, spec=spec, parent=parent)
    return root
