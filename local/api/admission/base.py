"""The plug point for a kind's own defaults and rules."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterable
from typing import ClassVar, Protocol

from kubeloop.local.api.resources import Resource
from kubeloop.local.client import Manifest


class ObjectReader(Protocol):
    """Reads what is stored, for rules that look at another object."""

    def __call__(self, resource: Resource, name: str, *, namespace: str = "") -> Manifest | None:
        """The object, None when there is none."""


class Admission(ABC):
    """Defaults and validates objects of one kind. Stateless; called inside the write, so quick.

    The generic metadata (name, uid, labels, …) is in place and checked when a hook runs. Hooks run
    for create, replace, patch and apply of the object itself, not of its status.
    """

    resource: ClassVar[Resource]

    def default(self, manifest: Manifest) -> Manifest:
        """Fill in defaults and return the object; `manifest` is the hook's to change.

        Must give the same again when run on its own result.
        """
        return manifest

    def validate(self, manifest: Manifest, old: Manifest | None) -> None:
        """Refuse an object that breaks a rule; `old` is the stored version of an update.

        Raises:
            InvalidError: A field is wrong (`refusals.invalid` builds it from field errors).
            ApiError: Another status where upstream's webhook answers one.
        """
        del manifest, old

    def warn(self, manifest: Manifest) -> Iterable[str]:
        """Sentences for the client's user about what is accepted but deprecated."""
        del manifest
        return ()
