"""Parameters given as text (`-p name=value`) become the types a compiled pipeline declares."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from kubeloop.errors import InputError

Spec = Mapping[str, Any]  # raw pipeline spec

_WORDS = {
    "STRING": "text",
    "NUMBER_INTEGER": "a whole number",
    "NUMBER_DOUBLE": "a number",
    "BOOLEAN": "true or false",
    "LIST": "a JSON list",
    "STRUCT": "a JSON object",
}


def parse_parameters(assignments: Iterable[str], *, spec: Spec) -> dict[str, Any]:
    """Parse `name=value` texts by the types in a pipeline spec.

    Raises:
        InputError: An assignment has no `=`, names a parameter that the pipeline does not have or
            gives it twice, a value is not of its type, or a required parameter is missing.
    """
    declared: Mapping[str, Any] = (
        spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    )
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator:
            msg = f"Parameter {assignment!r} is not of the form name=value."
            raise InputError(msg)
        if name not in declared:
            msg = (
                f"The pipeline has no parameter {name!r}; it has"
                f" {', '.join(sorted(declared)) or 'none'}."
            )
            raise InputError(msg)
        if name in values:
            msg = f"Parameter {name!r} is given twice."
            raise InputError(msg)
        values[name] = _parse_value(name, text, type_name=declared[name]["parameterType"])
    missing = [
        name
        for name, parameter in declared.items()
        if name not in values
        and "defaultValue" not in parameter
        and not parameter.get("isOptional")
    ]
    if missing:
        hints = " ".join(f"-p {name}=…" for name in missing)
        msg = f"The pipeline needs {', '.join(map(repr, missing))}: add {hints}."
        raise InputError(msg)
    return values


def _parse_value(name: str, text: str, *, type_name: str) -> Any:
    try:
        match type_name:
            case "STRING":
                return text
            case "NUMBER_INTEGER":
                return int(text)
            case "NUMBER_DOUBLE":
                return float(text)
            case "BOOLEAN":
                return {"true": True, "false": False}[text.lower()]
            case "LIST" | "STRUCT":
                value = json.loads(text)
                if isinstance(value, list if type_name == "LIST" else dict):
                    return value
    except (ValueError, KeyError):
        pass
    msg = f"Parameter {name!r} takes {_WORDS.get(type_name, type_name)}, not {text!r}."
    raise InputError(msg)
