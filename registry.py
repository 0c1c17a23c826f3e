"""Names for the implementations of a plug point.

A plug point is one file that holds an abstract class, one `Registry` and the built-in entries.
Users add theirs with `register`; a name is taken once, so that two plug-ins never shadow each
other silently.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from kubeloop.errors import InputError

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """A mapping from name to implementation that refuses unknown and repeated names."""

    def __init__(self, kind: str) -> None:
        """Name what is registered, in the singular, for error messages."""
        self._kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str, entry: T) -> T:
        """Add an entry and return it.

        Raises:
            InputError: The name is taken.
        """
        if name in self._entries:
            raise InputError(f"A {self._kind} named {name!r} is registered already.")
        self._entries[name] = entry
        return entry

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except KeyError:
            known = ", ".join(sorted(filter(None, self._entries))) or "none"
            raise InputError(f"Unknown {self._kind} {name!r}; known are: {known}.") from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
