"""Why a task took the outputs of an earlier one, or did not.

The answer is read from KFP's record: the embedded plane tells the parts of every fingerprint, and
two executions are compared part by part. Where an API tells less, what it tells is compared, and
the answer says so.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from kubeloop.pipelines.metadata import Artifact, TaskRecord

_SHOWN_DIFF_LINES = 20
_CLAIM_IMAGES = "argostub/"
"""Where the images of kfp-kubernetes' claim components come from; they run nothing."""


class Verdict(StrEnum):
    """What became of a task's look-up in the cache."""

    HIT = "hit"
    MISSED = "missed"
    OFF = "off"
    """The task does not take part in caching."""
    NOT_RUN = "not run"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference between a task and an earlier execution of it."""

    part: str
    before: str
    after: str
    sentence: str
    diff: tuple[str, ...] = ()
    """Lines of a unified diff of the component's code, where that changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """An earlier execution."""

    task_id: str
    run_id: str
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheAnswer:
    """Why a task hit or missed the cache; `reasons` are sentences, the most telling first."""

    task: str
    run_id: str
    verdict: Verdict
    reasons: tuple[str, ...]
    fingerprint: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    compared_with: Earlier | None = None
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """A task's record, and how its pipeline declares it."""

    record: TaskRecord
    spec: Mapping[str, Any]
    """The pipeline's; empty where it is not told."""

    @property
    def task(self) -> Mapping[str, Any]:
        """The task as the pipeline has it; empty where it does not."""
        component: Mapping[str, Any] = self.spec.get("root", {})
        task: Mapping[str, Any] = {}
        names = [part for part in self.record.path.split(".")[1:] if not part.isdigit()]
        for name in names:
            task = component.get("dag", {}).get("tasks", {}).get(name, {})
            key = task.get("componentRef", {}).get("name", "")
            component = self.spec.get("components", {}).get(key, {})
        return task if names else self._find_by_name()

    def _find_by_name(self) -> Mapping[str, Any]:
        """The first task of this name: for records that do not say where the task stands."""
        for component in (self.spec.get("root", {}), *self.spec.get("components", {}).values()):
            tasks = component.get("dag", {}).get("tasks", {})
            if self.record.name in tasks:
                found: Mapping[str, Any] = tasks[self.record.name]
                return found
        return {}

    @property
    def container(self) -> Mapping[str, Any]:
        """The container that the task runs; empty for an importer."""
        key = self.task.get("componentRef", {}).get("name", "")
        label = self.spec.get("components", {}).get(key, {}).get("executorLabel", "")
        executors = self.spec.get("deploymentSpec", {}).get("executors", {})
        container: Mapping[str, Any] = executors.get(label, {}).get("container", {})
        return container

    @property
    def parts(self) -> Mapping[str, str]:
        """What the cache compares, as recorded, or else as far as the record tells."""
        return self.record.fingerprint_parts or dict(self._guess_parts())

    def _guess_parts(self) -> Iterator[tuple[str, str]]:
        for name, value in self.record.input_parameters.items():
            yield f"input parameter {name}", json.dumps(value, sort_keys=True)
        for name, artifacts in self.record.input_artifacts.items():
            yield f"input artifact {name}", ", ".join(a.digest or a.uri for a in artifacts)
        for name in ("image", "command", "args"):
            if name in self.container:
                yield name, str(self.container[name])


def explain(execution: Execution, earlier: Sequence[Execution]) -> CacheAnswer:
    """Say why a task hit or missed the cache.

    Args:
        execution: The task.
        earlier: Executions of it in earlier runs of the pipeline, newest first.
    """
    record = execution.record
    answer = CacheAnswer(
        task=record.path.removeprefix("root.") or record.name,
        run_id=record.run_id,
        verdict=Verdict.MISSED,
        reasons=(),
        fingerprint=record.fingerprint,
        parts=record.fingerprint_parts,
    )
    if record.is_cached:
        return _explain_hit(answer, record, earlier)
    if record.is_group:
        reason = "it stands for other tasks; ask for one of those"
        return replace(answer, verdict=Verdict.OFF, reasons=(reason,))
    if reason := _why_off(execution):
        return replace(answer, verdict=Verdict.OFF, reasons=(reason,))
    if record.state not in ("SUCCEEDED", "FAILED", "RUNNING", "PENDING"):
        reason = f"it did not run: its state is {record.state or 'not told'}"
        return replace(answer, verdict=Verdict.NOT_RUN, reasons=(reason,))
    usable = [e for e in earlier if _is_entry(e.record, before=record)]
    if not usable:
        return replace(answer, reasons=(_why_nothing_earlier(earlier),))
    nearest = min(usable, key=lambda e: len(_differing(e.parts, execution.parts)))
    return _compare(execution, nearest, answer)


def _explain_hit(
    answer: CacheAnswer, record: TaskRecord, earlier: Sequence[Execution]
) -> CacheAnswer:
    source = next((e.record for e in earlier if e.record.task_id == record.cached_from), None)
    if source is None:
        reason = "reused an earlier execution, which the record does not name"
        return replace(answer, verdict=Verdict.HIT, reasons=(reason,))
    when = f" made at {source.end_time:%Y-%m-%d %H:%M:%S}" if source.end_time else ""
    return replace(
        answer,
        verdict=Verdict.HIT,
        reasons=(f"reused task {source.task_id} of run {source.run_id}{when}",),
        compared_with=_as_earlier(source),
    )


def _as_earlier(record: TaskRecord) -> Earlier:
    return Earlier(task_id=record.task_id, run_id=record.run_id, ended_at=record.end_time)


def _is_entry(record: TaskRecord, *, before: TaskRecord) -> bool:
    """Whether a task could have been reused when another looked for it."""
    looked_at = before.create_time or before.start_time
    return (
        record.state == "SUCCEEDED"
        and not record.is_cached
        and bool(record.fingerprint)
        and (looked_at is None or record.end_time is None or record.end_time <= looked_at)
    )


def _why_off(execution: Execution) -> str:
    """Why a task takes no part in caching; empty where it does."""
    if execution.record.fingerprint:
        return ""
    if execution.record.is_importer or (execution.task and not execution.container):
        return "importers are never cached: they only name what exists"
    if str(execution.container.get("image", "")).startswith(_CLAIM_IMAGES):
        return "components that make or delete claims are never cached"
    if not execution.task or execution.task.get("cachingOptions", {}).get("enableCache"):
        return ""
    if not any(_caching_flags(execution.spec)):
        return (
            "caching is off for all tasks of the run: by --no-cache, by enable_caching=False, or"
            " because each task of the pipeline says so"
        )
    return "the task says so: set_caching_options(False) in the pipeline"


def _caching_flags(spec: Mapping[str, Any]) -> Iterator[bool]:
    for component in (spec.get("root", {}), *spec.get("components", {}).values()):
        for task in component.get("dag", {}).get("tasks", {}).values():
            yield bool(task.get("cachingOptions", {}).get("enableCache"))


def _why_nothing_earlier(earlier: Sequence[Execution]) -> str:
    if not earlier:
        return "no earlier execution"
    if all(not e.record.fingerprint for e in earlier):
        return f"no earlier execution took part in caching ({len(earlier)} did not)"
    return (
        f"no earlier execution had succeeded ({len(earlier)} failed, were reused themselves, or"
        " had not ended)"
    )


def _compare(execution: Execution, nearest: Execution, answer: CacheAnswer) -> CacheAnswer:
    record = execution.record
    answer = replace(answer, compared_with=_as_earlier(nearest.record))
    if changes := tuple(_describe_changes(nearest, execution)):
        reasons = [change.sentence for change in changes]
        if not record.fingerprint_parts:
            reasons.append(
                "this API does not record what went into the fingerprint; inputs and container"
                " were compared"
            )
        return replace(answer, reasons=tuple(reasons), changes=changes)
    if not record.fingerprint:
        reason = "this API does not record fingerprints, and nothing that it does record differs"
        return replace(answer, verdict=Verdict.UNKNOWN, reasons=(reason,))
    if record.fingerprint == nearest.record.fingerprint:
        reason = "an earlier execution is equal, but its outputs were changed or deleted since"
    else:
        reason = "the fingerprint differs in something that the record does not tell"
    return replace(answer, reasons=(reason,))


def _differing(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    names = dict.fromkeys((*after, *before))
    return [name for name in names if before.get(name) != after.get(name)]


def _describe_changes(before: Execution, after: Execution) -> Iterator[Change]:
    for part in _differing(before.parts, after.parts):
        old, new = before.parts.get(part, ""), after.parts.get(part, "")
        diff = tuple(_diff_code(before, after)) if part == "command" else ()
        sentence = _sentence(part, old, new, before=before.record, after=after.record)
        yield Change(part=part, before=old, after=new, sentence=sentence, diff=diff)


def _sentence(part: str, old: str, new: str, *, before: TaskRecord, after: TaskRecord) -> str:
    kind, _, name = part.rpartition(" ")
    if kind.startswith("input") and not (old and new):
        return f"input `{name}` is {'new' if new else 'gone'}"
    match kind, part:
        case "input artifact", _:
            return f"input `{name}` changed content ({_brief(old)} → {_brief(new)})"
        case "input parameter", _:
            return f"input `{name}` changed: {_brief(old)} → {_brief(new)}"
        case "metadata of input artifact", _:
            keys = _changed_keys(
                before.input_artifacts.get(name, ()), after.input_artifacts.get(name, ())
            )
            shown = f" ({', '.join(keys)})" if keys else ""
            return f"the metadata of input `{name}` changed{shown}"
        case _, "image":
            return f"image changed: {old} → {new}"
        case _, "command":
            return "the component's code or command changed"
        case _, "arguments" | "args":
            return "the component's arguments changed"
        case _, "output artifacts" | "output parameters":
            return f"the component's declared {part} changed"
    return f"{part} changed: {_brief(old) or 'none'} → {_brief(new) or 'none'}"


def _changed_keys(before: Iterable[Artifact], after: Iterable[Artifact]) -> list[str]:
    keys: dict[str, None] = {}
    for old, new in zip(before, after, strict=False):
        keys |= {
            key: None
            for key in (*old.metadata, *new.metadata)
            if old.metadata.get(key) != new.metadata.get(key)
        }
    return list(keys)


def _brief(text: str) -> str:
    if "sha256:" in text:
        head, _, digest = text.partition("sha256:")
        return f"{head}sha256:{digest[:12]}…"
    # NB: URIs differ at their end, where the hash is.
    return text if len(text) <= 60 else f"{text[:24]}…{text[-35:]}"


def _diff_code(before: Execution, after: Execution) -> Iterator[str]:
    old = "\n".join(map(str, before.container.get("command", ()))).splitlines()
    new = "\n".join(map(str, after.container.get("command", ()))).splitlines()
    lines = list(difflib.unified_diff(old, new, lineterm="", n=1))[2:]
    yield from lines[:_SHOWN_DIFF_LINES]
    if len(lines) > _SHOWN_DIFF_LINES:
        yield f"… {len(lines) - _SHOWN_DIFF_LINES} more lines"
