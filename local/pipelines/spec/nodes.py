"""A place in a JSON document: its value and the path to it, for messages that say where."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kubeloop.local.pipelines.spec.faults import PipelineError, refusal


class Node:
    """A value read with care: every wrong type is refused with the path that holds it."""

    __slots__ = ("_path", "_value")

    def __init__(self, value: Any, path: str) -> None:
        self._value = value
        self._path = path

    def __bool__(self) -> bool:
        return bool(self._value)

    def refuse(self, fault: str) -> PipelineError:
        """The error to raise for a fault at this place."""
        where = self._path or "the document"
        return refusal(f"The pipeline cannot run: {where}: {fault}.", where=where)

    def mapping(self) -> Mapping[str, Any]:
        """The value as an object; empty where it is unset."""
        if self._value is None:
            return {}
        if not isinstance(self._value, Mapping):
            raise self.refuse(f"an object is expected, not {type(self._value).__name__}")
        return self._value

    def get(self, key: str) -> Any:
        """The raw value under `key`, None where there is none."""
        return self.mapping().get(key)

    def child(self, key: str) -> Node:
        """The place under `key`."""
        return Node(self.get(key), f"{self._path}.{key}" if self._path else key)

    def each(self) -> Iterator[tuple[str, Node]]:
        """The entries of an object, in the order written."""
        for key in self.mapping():
            yield str(key), self.child(key)

    def elements(self, key: str) -> list[Node]:
        """The entries of the list under `key`; empty where it is unset."""
        value = self.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.child(key).refuse(f"a list is expected, not {type(value).__name__}")
        return [Node(item, f"{self._path}.{key}[{index}]") for index, item in enumerate(value)]

    def texts(self, key: str) -> tuple[str, ...]:
        """The list of texts under `key`."""
        return tuple(element.as_text() for element in self.elements(key))

    def as_text(self) -> str:
        """The value itself as a text."""
        if not isinstance(self._value, str):
            raise self.refuse(f"a text is expected, not {type(self._value).__name__}")
        return self._value

    def text(self, key: str) -> str:
        """The text under `key`; empty where it is unset."""
        return "" if self.get(key) is None else self.child(key).as_text()

    def flag(self, key: str) -> bool:
        """The boolean under `key`; false where it is unset."""
        value = self.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.child(key).refuse(f"true or false is expected, not {value!r}")
        return bool(value)

    def number(self, key: str, *, default: float = 0.0) -> float:
        """The number under `key`; JSON may carry large ones as text."""
        value = self.get(key)
        if value is None:
            return default
        try:
            if isinstance(value, bool):
                raise ValueError
            return float(value)
        except (TypeError, ValueError):
            raise self.child(key).refuse(f"a number is expected, not {value!r}") from None

    def seconds(self, key: str, *, default: float = 0.0) -> float:
        """The duration under `key`, written as `"2.5s"`."""
        value = self.get(key)
        if value is None:
            return default
        try:
            if not isinstance(value, str) or not value.endswith("s"):
                raise ValueError
            return float(value[:-1])
        except ValueError:
            raise self.child(key).refuse(
                f'a duration such as "2s" is expected, not {value!r}'
            ) from None


def listed(names: Iterable[Any]) -> str:
    """Names for a message, the first few of many."""
    known = [str(name) for name in names]
    shown = ", ".join(repr(name) for name in known[:12])
    return f"{shown} and {len(known) - 12} more" if len(known) > 12 else shown or "none"
