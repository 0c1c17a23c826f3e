"""Makes a failed run ready to run again: what succeeded stays, the rest is as if never begun."""

from __future__ import annotations

from dataclasses import replace

from kubeloop.local.pipelines.engine.tree import Node, build_tree
from kubeloop.local.pipelines.spec import ir
from kubeloop.local.pipelines.storage.records import Run, TaskState
from kubeloop.local.pipelines.storage.store import Store

_UNDONE = frozenset((TaskState.FAILED, TaskState.NOT_RUN, TaskState.PENDING, TaskState.RUNNING))


def reset_tasks(store: Store, run: Run, pipeline: ir.Pipeline) -> None:
    """Forget the tasks of a run that did not succeed, and those that have to follow them again."""
    root = build_tree(pipeline, store.tasks_of(run.run_id))
    if root is not None:
        _reopen(store, root)


def _reopen(store: Store, node: Node) -> None:
    """Open a DAG or loop again, and forget in it what has to run again."""
    record = replace(
        node.record,
        state=TaskState.RUNNING,
        end_time=0.0,
        error="",
        status_message="",
    )
    store.tasks.put(record)
    undone: set[str] = set()
    is_cut = False
    for name in _in_order(node):
        child = node.children[name]
        upstream = child.spec.upstream if child.spec is not None and not node.is_loop else ()
        if is_cut or undone.intersection(upstream):
            _forget(store, child)
        elif child.state not in _UNDONE:
            continue
        elif child.children:
            _reopen(store, child)
        else:
            _forget(store, child)
            # NB: a loop knows by their number which iterations are left to begin, so that after
            # one that is forgotten all have to be.
            is_cut = node.is_loop
        undone.add(name)


def _in_order(node: Node) -> list[str]:
    if node.is_loop:
        return sorted(node.children, key=int)
    assert node.dag is not None
    return [name for name in node.dag.tasks if name in node.children]


def _forget(store: Store, node: Node) -> None:
    for below in node.walk():
        identifier = below.record.task_id
        store.tasks.delete("task_id = ?", (identifier,))
        store.artifact_tasks.delete("task_id = ?", (identifier,))
