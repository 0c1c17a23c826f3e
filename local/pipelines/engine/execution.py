"""Drives one run through its pipeline, from whatever state its records are in.

A run is a tree of tasks. A node is looked at when something about it may have changed: a step when
its Pod did, a DAG or a loop when a task in it ended. A look reads the records, does what is due,
and may be repeated at will; so the first looks after a restart are the same as any other.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace

from kubeloop.errors import ApiError, ConflictError, InputError, TransientError
from kubeloop.local.pipelines.engine.context import EngineContext, PodBook
from kubeloop.local.pipelines.engine.executor import render_artifact
from kubeloop.local.pipelines.engine.facts import run_facts
from kubeloop.local.pipelines.engine.recording import Recorder, change_state, summarize_failure
from kubeloop.local.pipelines.engine.resolve import (
    dag_outputs,
    iteration_inputs,
    loop_items,
    loop_outputs,
    resolve_inputs,
)
from kubeloop.local.pipelines.engine.scheduling import Decision, combine, decide, explain_drop
from kubeloop.local.pipelines.engine.steps import StepRunner
from kubeloop.local.pipelines.engine.tree import ROOT_PATH, Node, build_tree, task_id, task_type
from kubeloop.local.pipelines.spec import ir
from kubeloop.local.pipelines.spec.conditions import evaluate_condition
from kubeloop.local.pipelines.storage.records import (
    Run,
    RuntimeState,
    Task,
    TaskState,
    TaskType,
    TaskValues,
)

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 0.2
_TERMINATED = "The run was terminated."


class RunExecution:
    """Runs one run to its end."""

    def __init__(
        self, run: Run, pipeline: ir.Pipeline, *, context: EngineContext, pods: PodBook
    ) -> None:
        self._run = run
        self._pipeline = pipeline
        self._context = context
        self._facts = run_facts(run)
        self._recorder = Recorder(context)
        self._workspace = context.workspaces / run.run_id
        self._steps = StepRunner(
            context,
            run,
            recorder=self._recorder,
            pods=pods,
            facts=self._facts,
            workspace=self._workspace if pipeline.has_workspace else None,
            wake=self._wake_later,
        )
        self._nodes: dict[str, Node] = {}
        self._due: dict[str, None] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._woken = asyncio.Event()
        self._abort_message = ""

    @property
    def is_canceling(self) -> bool:
        """Whether the run is being brought to an early end."""
        return self._run.state is RuntimeState.CANCELING or bool(self._abort_message)

    def task_changed(self, identifier: str) -> None:
        """Look at a task soon."""
        if identifier in self._nodes:
            self._due[identifier] = None
            self._woken.set()

    def terminate(self) -> None:
        """Bring the run to an early end; its record says so already."""
        run = self._context.store.runs.get(self._run.run_id)
        assert run is not None
        self._run = run
        self.look_at_all()

    async def run(self) -> None:
        """Drive the run until it ends; returns early only by cancellation."""
        root = self._load()
        self.look_at_all()
        deadline = self._watch_deadline(root)
        try:
            while not root.state.is_done:
                await self._woken.wait()
                self._woken.clear()
                while self._due:
                    identifier = next(iter(self._due))
                    del self._due[identifier]
                    await self._visit(self._nodes[identifier])
        finally:
            self._steps.close()
            if deadline is not None:
                deadline.cancel()
            for timer in self._timers.values():
                timer.cancel()
            for identifier in self._nodes:
                self._context.slots.release(identifier)
        if self._pipeline.has_workspace:
            await asyncio.to_thread(shutil.rmtree, self._workspace, ignore_errors=True)
        self._finish_run(root)

    def _watch_deadline(self, root: Node) -> asyncio.TimerHandle | None:
        limit = self._pipeline.deadline_seconds
        if not limit:
            return None
        passed = self._context.clock() - root.record.create_time
        loop = asyncio.get_running_loop()
        return loop.call_later(max(0.0, limit - passed), self._end_for_deadline)

    def _end_for_deadline(self) -> None:
        limit = self._pipeline.deadline_seconds
        self._abort_message = f"The run was active longer than its deadline of {limit:g} s."
        self.look_at_all()

    def _load(self) -> Node:
        """Build the tree from the store, or begin the run."""
        root = build_tree(self._pipeline, self._context.store.tasks_of(self._run.run_id))
        with self._context.store.transaction():
            if root is None:
                root = self._begin_root()
            if self._run.state is RuntimeState.PENDING:
                self._save_run(
                    change_state(self._run, RuntimeState.RUNNING, now=self._context.clock())
                )
        self._nodes = {node.record.task_id: node for node in root.walk()}
        return root

    def _save_run(self, run: Run) -> None:
        self._run = run
        self._context.store.runs.put(run)

    def _begin_root(self) -> Node:
        declared = self._pipeline.root.input_parameters
        defaults = {name: spec.default for name, spec in declared.items() if spec.has_default}
        given = {name: value for name, value in self._run.parameters.items() if value is not None}
        record = self._new_task(
            name=self._pipeline.name,
            path=ROOT_PATH,
            kind=TaskType.ROOT,
            state=TaskState.RUNNING,
            inputs=TaskValues(parameters={**defaults, **given}),
        )
        record = replace(record, notes=self._pipeline.notes)
        root = Node(record, component=self._pipeline.root)
        self._recorder.save(root, record)
        return root

    def _new_task(
        self,
        *,
        name: str,
        path: str,
        kind: TaskType,
        state: TaskState,
        parent: Node | None = None,
        display_name: str = "",
        inputs: TaskValues | None = None,
        iteration_index: int = -1,
    ) -> Task:
        now = self._context.clock()
        return Task(
            task_id=task_id(self._run.run_id, path),
            run_id=self._run.run_id,
            parent_id=parent.record.task_id if parent else "",
            name=name,
            display_name=display_name or name,
            path=path,
            type=kind,
            state=state,
            create_time=now,
            start_time=now if state is TaskState.RUNNING else 0.0,
            inputs=inputs or TaskValues(),
            iteration_index=iteration_index,
            pipeline_name=self._run.pipeline_name,
        )

    def look_at_all(self) -> None:
        """Look at every task that has not ended."""
        # Children first, so that a DAG is looked at once all that ended in it is known.
        for node in reversed(list(self._nodes.values())):
            if not node.state.is_done:
                self._due[node.record.task_id] = None
        self._woken.set()

    def _wake_later(self, node: Node, seconds: float) -> None:
        identifier = node.record.task_id
        if timer := self._timers.pop(identifier, None):
            timer.cancel()
        if seconds <= 0:
            self.task_changed(identifier)
            return
        loop = asyncio.get_running_loop()
        self._timers[identifier] = loop.call_later(seconds, self.task_changed, identifier)

    async def _visit(self, node: Node) -> None:
        if not node.state.is_done:
            await self._attend(node)
            self._tell_parent(node)

    def _tell_parent(self, node: Node) -> None:
        if node.state.is_done and node.parent is not None:
            self.task_changed(node.parent.record.task_id)

    async def _attend(self, node: Node) -> None:
        try:
            if node.record.type is TaskType.RUNTIME:
                await self._steps.visit(node, is_canceling=self.is_canceling)
            elif node.is_loop:
                self._visit_loop(node)
            else:
                self._visit_dag(node)
        except InputError as error:
            self._steps.finish(
                node, TaskState.FAILED, error=f"Task {node.record.name!r} failed: {error}."
            )
        except (ConflictError, TransientError):
            self._wake_later(node, _RETRY_SECONDS)
        except ApiError as error:
            self._steps.finish(
                node,
                TaskState.FAILED,
                error=f"Task {node.record.name!r} failed: its Pod was refused: {error.message}.",
            )
        except Exception as error:  # one broken task must not leave its run without an end
            logger.exception(
                "task broke the engine",
                extra={"uid": node.record.task_id, "object_name": node.record.path},
            )
            self._abort(node, error)

    def _abort(self, node: Node, error: Exception) -> None:
        self._abort_message = (
            f"Task {node.record.name!r} failed: the engine could not run it: {error!r}."
        )
        self._steps.finish(node, TaskState.FAILED, error=self._abort_message)
        self.look_at_all()

    def _visit_dag(self, node: Node) -> None:
        dag = node.dag
        assert dag is not None
        states = node.child_states()
        if len(states) < len(dag.tasks):
            for spec in dag.tasks.values():
                if spec.name not in states:
                    self._consider(spec, node, states)
        if len(states) < len(dag.tasks) or not all(state.is_done for state in states.values()):
            return
        self._finish_group(node, states.values(), outputs=dag_outputs(node))

    def _finish_group(
        self, node: Node, states: Iterable[TaskState], *, outputs: TaskValues
    ) -> None:
        """End a DAG or a loop whose tasks all ended."""
        state = TaskState.FAILED if self.is_canceling else combine(states)
        error = summarize_failure(node) if state is TaskState.FAILED else ""
        self._recorder.finish(node, state, outputs=outputs, error=error)

    def _consider(self, spec: ir.Task, node: Node, states: dict[str, TaskState]) -> None:
        """Begin a task or drop it if its time has come; enter its state into `states`."""
        canceling = self.is_canceling
        has_failed = TaskState.FAILED in states.values()
        decision = Decision.DROP if canceling else decide(spec, states, has_failed=has_failed)
        if decision is Decision.WAIT:
            return
        with self._context.store.transaction():
            child = self._add_child(spec, node)
            if decision is Decision.DROP:
                message = explain_drop(spec, states, is_canceling=canceling)
                self._steps.finish(child, TaskState.NOT_RUN, message=message)
            else:
                self._begin(child, node)
        states[spec.name] = child.state
        if not child.state.is_done:
            self.task_changed(child.record.task_id)

    def _add_child(self, spec: ir.Task, node: Node) -> Node:
        component = self._pipeline.components[spec.component]
        assert node.dag is not None
        record = self._new_task(
            name=spec.name,
            display_name=spec.display_name,
            path=f"{node.record.path}.{spec.name}",
            kind=task_type(spec, component, node.dag),
            state=TaskState.PENDING,
            parent=node,
        )
        child = Node(record, component=component, spec=spec, parent=node)
        self._nodes[record.task_id] = child
        return child

    def _begin(self, child: Node, node: Node) -> None:
        """Settle a task's inputs and whether its condition holds."""
        spec = child.spec
        assert spec is not None
        try:
            facts = {
                **self._facts,
                "pipeline_task_name": spec.name,
                "pipeline_task_uuid": node.record.task_id,
            }
            inputs = resolve_inputs(spec, child.component, parent=node, facts=facts)
            child.record = replace(child.record, inputs=inputs)
            holds = not spec.condition or evaluate_condition(
                spec.condition,
                parameters=inputs.parameters,
                artifacts=self._render_artifacts(inputs),
            )
            count = len(loop_items(child)) if child.is_loop and holds else -1
        except InputError as error:
            message = f"Task {spec.name!r} failed: {error}."
            self._recorder.finish(child, TaskState.FAILED, error=message)
            return
        if not holds:
            message = f"skipped: the condition {spec.condition} was false"
            self._steps.finish(child, TaskState.SKIPPED, message=message)
            return
        is_step = child.record.type is TaskType.RUNTIME
        state = TaskState.PENDING if is_step else TaskState.RUNNING
        start = 0.0 if is_step else self._context.clock()
        record = replace(child.record, state=state, start_time=start, iteration_count=count)
        self._recorder.save(child, record)
        if is_step:
            self._recorder.record_inputs(child)

    def _render_artifacts(self, inputs: TaskValues) -> Mapping[str, object]:
        store = self._context.store
        return {
            name: {"artifacts": [render_artifact(item) for item in store.get_artifacts(found)]}
            for name, found in inputs.artifacts.items()
        }

    def _visit_loop(self, node: Node) -> None:
        assert node.spec is not None
        count = node.record.iteration_count
        states = list(node.child_states().values())
        num_active = sum(not state.is_done for state in states)
        may_begin = not self.is_canceling and TaskState.FAILED not in states
        limit = node.spec.parallelism or count
        while may_begin and len(states) < count and num_active < limit:
            state = self._begin_iteration(node, len(states)).state
            states.append(state)
            num_active += not state.is_done
            may_begin = state is not TaskState.FAILED
        if num_active or (may_begin and len(states) < count):
            return
        outputs = loop_outputs(node, self._pipeline.components)
        self._finish_group(node, states, outputs=outputs)

    def _begin_iteration(self, node: Node, index: int) -> Node:
        record = self._new_task(
            name=node.record.name,
            display_name=f"{node.record.display_name} [{index}]",
            path=f"{node.record.path}.{index}",
            kind=TaskType.LOOP_ITERATION,
            state=TaskState.RUNNING,
            parent=node,
            iteration_index=index,
        )
        child = Node(record, component=node.component, spec=node.spec, parent=node)
        self._nodes[record.task_id] = child
        try:
            record = replace(record, inputs=iteration_inputs(node, index))
        except InputError as error:
            message = f"Iteration {index} of {node.record.name!r} failed: {error}."
            self._recorder.finish(child, TaskState.FAILED, error=message)
            return child
        self._recorder.save(child, record)
        self.task_changed(record.task_id)
        return child

    def _finish_run(self, root: Node) -> None:
        now = self._context.clock()
        if self._run.state is RuntimeState.CANCELING:
            # As upstream: a terminated run ends FAILED, the one final state that clients wait for.
            run = change_state(self._run, RuntimeState.FAILED, now=now, error=_TERMINATED)
        elif root.state is TaskState.SUCCEEDED:
            run = change_state(self._run, RuntimeState.SUCCEEDED, now=now)
        else:
            error = self._abort_message or root.record.error
            run = change_state(self._run, RuntimeState.FAILED, now=now, error=error)
        self._save_run(run)
