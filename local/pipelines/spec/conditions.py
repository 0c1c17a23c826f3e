"""KFP's conditions and selectors, evaluated by a CEL library.

`celpy` follows CEL's strict typing; KFP's own evaluator compares numbers across types, carries
every number as a double and prints whole ones without a point. Those few functions are replaced
here. The library is imported on first use: most runs have no condition.
"""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Callable, Mapping
from typing import Any

from kubeloop.errors import InputError
from kubeloop.local.pipelines.spec.values import JsonValue, canonical, to_text


def evaluate_condition(
    condition: str, *, parameters: Mapping[str, JsonValue], artifacts: Mapping[str, JsonValue]
) -> bool:
    """Evaluate `triggerPolicy.condition` over a task's resolved inputs.

    Raises:
        InputError: The condition is no CEL, names an input that has no value, or yields something
            other than true or false.
    """
    inputs = {"parameter_values": dict(parameters), "artifacts": dict(artifacts)}
    result = _evaluate(condition, {"inputs": inputs})
    if not isinstance(result, bool):
        raise InputError(f"condition {condition!r} yields {result!r}, not true or false")
    return result


def select(value: JsonValue, expression: str) -> JsonValue:
    """Take a part of a value by `parameterExpressionSelector`.

    Raises:
        InputError: The expression is no CEL, or the value has no such part.
    """
    names: dict[str, JsonValue] = {"string_value": to_text(value)}
    if isinstance(value, bool):
        names["bool_value"] = value
    elif isinstance(value, int | float):
        names["number_value"] = value
    elif isinstance(value, list):
        names["list_value"] = value
    elif isinstance(value, dict):
        names["struct_value"] = value
    return _evaluate(expression, names)


def check_condition(expression: str) -> None:
    """Check that an expression is CEL; an empty one is.

    Raises:
        InputError: It is not.
    """
    if not expression:
        return
    import celpy

    try:
        _compile(expression)
    except (celpy.CELParseError, ValueError) as error:
        raise InputError(f"{expression!r} is no CEL expression: {_explain(error)}") from error


def _evaluate(expression: str, names: Mapping[str, JsonValue]) -> JsonValue:
    import celpy  # 60 ms, and few pipelines need it

    try:
        program = _compile(expression)
        result = program.evaluate({name: _to_cel(value) for name, value in names.items()})
    except (celpy.CELEvalError, celpy.CELParseError, TypeError, ValueError) as error:
        raise InputError(f"cannot evaluate {expression!r}: {_explain(error)}") from error
    return _from_cel(result)


def _explain(error: Exception) -> str:
    parts = [str(part) for part in error.args if isinstance(part, str)]
    missing = [item for part in error.args if isinstance(part, tuple) for item in part]
    return " ".join((*parts, *(f"{item}" for item in missing))) or str(error)


@functools.lru_cache(maxsize=1024)
def _compile(expression: str) -> Any:  # a celpy Runner: the library carries no types
    import celpy

    environment = celpy.Environment()
    return environment.program(environment.compile(expression), functions=_functions())


@functools.cache
def _functions() -> dict[str, Callable[..., Any]]:
    import celpy
    from celpy import celtypes

    def passing_errors(function: Callable[..., Any]) -> Callable[..., Any]:
        # An error is a value in celpy, so that `false && error` can be false.
        def wrapper(*arguments: Any) -> Any:
            errors = (item for item in arguments if isinstance(item, celpy.CELEvalError))
            return next(errors, None) or function(*arguments)

        return wrapper

    def number(value: Any) -> Any:
        is_number = isinstance(value, int | float) and not isinstance(value, celtypes.BoolType)
        return float(value) if is_number else value

    def compare(compared: Callable[[Any, Any], Any], name: str) -> Callable[[Any, Any], Any]:
        def function(left: Any, right: Any) -> Any:
            left, right = number(left), number(right)
            if isinstance(left, float) != isinstance(right, float) and name in ("_==_", "_!=_"):
                return celtypes.BoolType(name == "_!=_")
            return celtypes.BoolType(compared(left, right))

        return function

    compared = {
        "_==_": operator.eq,
        "_!=_": operator.ne,
        "_<_": operator.lt,
        "_<=_": operator.le,
        "_>_": operator.gt,
        "_>=_": operator.ge,
    }
    functions: dict[str, Callable[..., Any]] = {
        **{name: compare(function, name) for name, function in compared.items()},
        "parseJson": lambda text: _to_cel(json.loads(text)),
        "string": lambda value: celtypes.StringType(to_text(_from_cel(value))),
        "int": lambda value: celtypes.IntType(int(float(value))),
    }
    return {name: passing_errors(function) for name, function in functions.items()}


def _to_cel(value: JsonValue) -> Any:
    from celpy import celtypes

    if isinstance(value, bool):
        return celtypes.BoolType(value)
    if isinstance(value, int | float):
        return celtypes.DoubleType(value)
    if isinstance(value, str):
        return celtypes.StringType(value)
    if isinstance(value, dict):
        return celtypes.MapType(
            {celtypes.StringType(key): _to_cel(item) for key, item in value.items()}
        )
    if isinstance(value, list):
        return celtypes.ListType([_to_cel(item) for item in value])
    return None


def _from_cel(value: Any) -> JsonValue:
    from celpy import celtypes

    if value is None:
        return None
    if isinstance(value, celtypes.BoolType | bool):
        return bool(value)
    if isinstance(value, dict):
        return {str(key): _from_cel(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_from_cel(item) for item in value]
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return canonical(float(value))
    raise InputError(f"the expression yields a {type(value).__name__}, which no parameter can hold")
