"""Parameters given as text (`-p name=value`) become the types a compiled pipeline declares.

Only the form is looked at here. Whether a name exists, a value is of its type and nothing is
missing is for the API to say, and for `kubeloop check` and `kubeloop run`, which ask its rules.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from kubeloop.errors import InputError

Spec = Mapping[str, Any]  # raw pipeline spec


def declared_parameters(spec: Spec) -> Mapping[str, Mapping[str, Any]]:
    """The parameters that a pipeline declares, as written in its spec."""
    declared: Mapping[str, Mapping[str, Any]] = (
        spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    )
    return declared


def parse_parameters(assignments: Iterable[str], *, spec: Spec) -> dict[str, Any]:
    """Parse `name=value` texts by the types in a pipeline spec.

    A value that is not of its type stays the text that it is.

    Raises:
        InputError: An assignment has no `=`, or names a parameter twice.
    """
    declared = declared_parameters(spec)
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator:
            msg = f"Parameter {assignment!r} is not of the form name=value."
            raise InputError(msg)
        if name in values:
            msg = f"Parameter {name!r} is given twice."
            raise InputError(msg)
        kind = declared.get(name, {}).get("parameterType", "STRING")
        values[name] = text if kind == "STRING" else _parse_value(text, kind=kind)
    return values


def _parse_value(text: str, *, kind: str) -> Any:
    if kind == "BOOLEAN":
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        return json.loads(text)
    except ValueError:
        return text
