"""What Katib's objects say, as tests write it: whole statuses, with times that anything may be."""

from __future__ import annotations

from typing import Any

from kubeloop.local.client import Manifest

TIME = "<time>"


def strip_times(value: Any) -> Any:  # any JSON
    """The same with every time replaced by one word."""
    if isinstance(value, dict):
        return {
            key: TIME if key.endswith("Time") else strip_times(part) for key, part in value.items()
        }
    return [strip_times(part) for part in value] if isinstance(value, list) else value


def condition(type_: str, reason: str, message: str, *, status: str = "True") -> Manifest:
    """A condition."""
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "lastUpdateTime": TIME,
        "lastTransitionTime": TIME,
    }


def created(what: str) -> Manifest:
    """The first condition of an object of a kind."""
    return condition("Created", f"{what}Created", f"{what} is created")


def running(what: str, *, status: str) -> Manifest:
    """The condition Running of an object of a kind."""
    return condition("Running", f"{what}Running", f"{what} is running", status=status)
