"""Label and field selectors, parsed once and matched against the indexed parts of objects."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from kubeloop.errors import ApiError
from kubeloop.local.api.events import StoredObject
from kubeloop.local.api.resources import Resource

_KEY = r"[A-Za-z0-9](?:[-A-Za-z0-9_./]*[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_EQUALITY = re.compile(rf"\s*({_KEY})\s*(==|=|!=)\s*({_VALUE})\s*")
_SET = re.compile(rf"\s*({_KEY})\s+(in|notin)\s*\(([^()]*)\)\s*")
_EXISTENCE = re.compile(rf"\s*(!?)\s*({_KEY})\s*")
_SET_VALUE = re.compile(rf"\s*({_VALUE})\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRequirement:
    """One clause of a label selector; `values` None asks for the key alone."""

    key: str
    negated: bool
    values: frozenset[str] | None

    def matches(self, stored: StoredObject) -> bool:
        """Whether the object's labels fulfil the clause."""
        value = stored.labels.get(self.key)
        fulfilled = value is not None and (self.values is None or value in self.values)
        return fulfilled != self.negated


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRequirement:
    """One clause of a field selector."""

    path: str
    negated: bool
    value: str

    def matches(self, stored: StoredObject) -> bool:
        """Whether the object's field fulfils the clause."""
        if self.path == "metadata.name":
            value = stored.name
        elif self.path == "metadata.namespace":
            value = stored.namespace
        else:
            value = stored.fields[self.path]
        return (value == self.value) != self.negated


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which objects of a collection a list or a watch is about."""

    namespace: str | None = None
    requirements: tuple[LabelRequirement | FieldRequirement, ...] = ()

    def matches(self, stored: StoredObject) -> bool:
        """Whether the object is in the namespace and fulfils every clause."""
        if self.namespace is not None and stored.namespace != self.namespace:
            return False
        return all(requirement.matches(stored) for requirement in self.requirements)

    @property
    def name(self) -> str | None:
        """The only name that can match, where a clause gives one."""
        for requirement in self.requirements:
            if (
                isinstance(requirement, FieldRequirement)
                and requirement.path == "metadata.name"
                and not requirement.negated
            ):
                return requirement.value
        return None


def parse_selection(
    resource: Resource,
    *,
    namespace: str | None = None,
    label_selector: str = "",
    field_selector: str = "",
) -> Selection:
    """Parse both selectors of a request.

    Raises:
        ApiError: 400, a selector does not parse or names a field that cannot be selected by.
    """
    return Selection(
        namespace=namespace,
        requirements=(
            *parse_label_selector(label_selector),
            *_parse_field_selector(resource, field_selector),
        ),
    )


def parse_label_selector(text: str) -> tuple[LabelRequirement, ...]:
    """Parse `a=b,c!=d,e in (f,g),h notin (i),j,!k`.

    Raises:
        ApiError: 400, the text is no label selector.
    """
    return tuple(_parse_label_clause(clause, text) for clause in _split_clauses(text))


def _split_clauses(text: str) -> Iterable[str]:
    if not text.strip():
        return []
    return re.split(r",(?![^(]*\))", text)


def _parse_label_clause(clause: str, selector: str) -> LabelRequirement:
    if found := _EQUALITY.fullmatch(clause):
        key, operator, value = found.groups()
        return LabelRequirement(key=key, negated=operator == "!=", values=frozenset((value,)))
    if found := _SET.fullmatch(clause):
        key, operator, inside = found.groups()
        parts = [_SET_VALUE.fullmatch(part) for part in inside.split(",")]
        values = frozenset(part.group(1) for part in parts if part is not None)
        if None not in parts:
            return LabelRequirement(key=key, negated=operator == "notin", values=values)
    if found := _EXISTENCE.fullmatch(clause):
        return LabelRequirement(key=found.group(2), negated=bool(found.group(1)), values=None)
    raise ApiError(
        f'unable to parse requirement {clause.strip()!r} of label selector "{selector}"; accepted '
        "are k=v, k==v, k!=v, k in (v, w), k notin (v, w), k and !k, joined by commas",
        status=400,
        reason="BadRequest",
    )


def _parse_field_selector(resource: Resource, text: str) -> Iterable[FieldRequirement]:
    for clause in filter(None, (part.strip() for part in text.split(","))):
        path, operator, value = _split_field_clause(clause)
        known = ("metadata.name", "metadata.namespace", *resource.selectable_fields)
        if not operator or path not in known:
            accepted = ", ".join(known)
            raise ApiError(
                f'invalid field selector "{clause}": field label not supported: {path}; '
                f"{resource.plural} can be selected by {accepted}",
                status=400,
                reason="BadRequest",
            )
        yield FieldRequirement(path=path, negated=operator == "!=", value=value)


def _split_field_clause(clause: str) -> tuple[str, str, str]:
    for operator in ("!=", "==", "="):
        path, found, value = clause.partition(operator)
        if found:
            return path.strip(), operator, value.strip()
    return clause, "", ""
