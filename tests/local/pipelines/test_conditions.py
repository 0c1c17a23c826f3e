"""CEL as KFP's conditions and selectors use it."""

from __future__ import annotations

from typing import Any

import pytest

from kubeloop.errors import InputError
from kubeloop.local.pipelines.spec.conditions import evaluate_condition, select


def _holds(condition: str, **parameters: Any) -> bool:
    return evaluate_condition(condition, parameters=parameters, artifacts={})


@pytest.mark.parametrize(
    ("condition", "value", "holds"),
    [
        ("int(inputs.parameter_values['x']) > 3", 4, True),
        ("int(inputs.parameter_values['x']) > 3", "4", True),
        ("inputs.parameter_values['x'] == 3", 3, True),
        ("inputs.parameter_values['x'] >= 2.5", 3, True),
        ("inputs.parameter_values['x'] >= 2.5", 2.25, False),
        ("inputs.parameter_values['x'] == 'a'", "a", True),
        ("inputs.parameter_values['x'] == 'a'", 1, False),
        ("inputs.parameter_values['x'] != 'a'", 1, True),
        ("!(inputs.parameter_values['x'] == true)", False, True),
        ("inputs.parameter_values['x'] == 1", True, False),
        ("string(inputs.parameter_values['x']) == '3'", 3.0, True),
        ("double(inputs.parameter_values['x']) == 3", "3", True),
        ("parseJson(inputs.parameter_values['x'])['k'] == 2", '{"k": 2}', True),
        ("inputs.parameter_values['x']['k'][1] == 'b'", {"k": ["a", "b"]}, True),
        ("'b' in inputs.parameter_values['x']", ["a", "b"], True),
        ("inputs.parameter_values['x'] == 1 || inputs.parameter_values['other'] == 1", 1, True),
    ],
)
def test_conditions(condition: str, value: Any, holds: bool) -> None:
    assert _holds(condition, x=value) is holds


@pytest.mark.parametrize(
    ("condition", "fault"),
    [
        ("inputs.parameter_values['other'] == 1", "other"),
        ("inputs.parameter_values['x']", "yields 1, not true or false"),
        ("inputs.parameter_values['x'] ==", "cannot evaluate"),
        ("int(inputs.parameter_values['text']) == 1", "cannot evaluate"),
        ("inputs.parameter_values['text'] < 1", "cannot evaluate"),
    ],
)
def test_what_is_no_condition_is_refused(condition: str, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        _holds(condition, x=1, text="t")


def test_selectors_take_a_part_of_a_value() -> None:
    assert select({"a": {"b": [1.0]}}, 'parseJson(string_value)["a"]') == {"b": [1]}
    assert select([1, 2], "list_value[1]") == 2
    assert select('{"a": "t"}', 'parseJson(string_value)["a"]') == "t"
    with pytest.raises(InputError, match="no such key"):
        select({"a": 1}, 'parseJson(string_value)["b"]')
