"""Parameter values: one form, one text, checked types."""

from __future__ import annotations

import pytest

from kubeloop.errors import InputError
from kubeloop.local.pipelines.spec.values import (
    ParameterType,
    canonical,
    convert,
    is_of_type,
    parse_text,
    to_text,
)


def test_whole_doubles_become_integers_also_inside_lists_and_objects() -> None:
    value = canonical({"a": [1.0, 2.5, {"b": -3.0}], "c": True})
    assert value == {"a": [1, 2.5, {"b": -3}], "c": True}
    assert isinstance(value["a"][0], int)
    assert isinstance(value["a"][2]["b"], int)


def test_integers_beyond_64_bits_become_doubles() -> None:
    assert isinstance(canonical(2**70), float)


def test_not_a_number_becomes_its_name() -> None:
    assert canonical([float("nan"), float("-inf")]) == ["NaN", "-Infinity"]


@pytest.mark.parametrize(
    ("value", "kind", "fits"),
    [
        (3, ParameterType.NUMBER_INTEGER, True),
        (3.5, ParameterType.NUMBER_INTEGER, False),
        (True, ParameterType.NUMBER_INTEGER, False),
        (3, ParameterType.NUMBER_DOUBLE, True),
        ("3", ParameterType.NUMBER_DOUBLE, False),
        (True, ParameterType.BOOLEAN, True),
        (1, ParameterType.BOOLEAN, False),
        ("x", ParameterType.STRING, True),
        ([1], ParameterType.LIST, True),
        ({"a": 1}, ParameterType.STRUCT, True),
        ([1], ParameterType.STRUCT, False),
    ],
)
def test_a_value_fits_its_own_type_only(value: object, kind: ParameterType, fits: bool) -> None:
    assert is_of_type(value, kind) is fits


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.0, "3"),
        (0.5, "0.5"),
        (True, "true"),
        (None, ""),
        ("as it is", "as it is"),
        ([1.0, "a"], '[1,"a"]'),
        ({"k": "ü"}, '{"k":"ü"}'),
    ],
)
def test_text_of_a_value(value: object, text: str) -> None:
    assert to_text(value) == text


def test_a_text_parameter_takes_any_value_and_others_take_json_texts() -> None:
    assert convert([1, 2], ParameterType.STRING) == "[1,2]"
    assert convert("[1, 2.0]", ParameterType.LIST) == [1, 2]
    assert convert("7", ParameterType.NUMBER_INTEGER) == 7


def test_a_value_that_does_not_fit_is_refused_with_what_does() -> None:
    with pytest.raises(InputError, match=r"'abc' is not a whole number \(NUMBER_INTEGER\)"):
        convert("abc", ParameterType.NUMBER_INTEGER)


def test_files_are_read_by_type() -> None:
    assert parse_text("12\n", ParameterType.NUMBER_INTEGER) == 12
    assert parse_text("True", ParameterType.BOOLEAN) is True
    assert parse_text(" keeps its spaces\n", ParameterType.STRING) == " keeps its spaces\n"
    with pytest.raises(InputError):
        parse_text("{}", ParameterType.LIST)
