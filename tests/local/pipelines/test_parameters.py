"""Parameters of every type, through runs."""

# KFP reads annotations that are no types to mypy.
# mypy: disable-error-code="no-untyped-def, valid-type, type-arg, no-any-return, name-match"

from typing import Any, NamedTuple

import pytest
from kfp import dsl
from kfp_server_api.exceptions import ApiException

component = dsl.component(base_image="python:3.11", install_kfp_package=False)


@component
def show_types(
    text: str, whole: int, real: float, flag: bool, items: list, fields: dict
) -> NamedTuple(
    "Outputs",
    [
        ("text", str),
        ("whole", int),
        ("real", float),
        ("flag", bool),
        ("items", list),
        ("fields", dict),
        ("types", str),
    ],
):
    given = (text, whole, real, flag, items, fields)
    types = " ".join(type(value).__name__ for value in given)
    return (*given, types)


@component
def add(a: int, b: int = 2) -> int:
    return a + b


@component
def describe(required: str, note: str = None, count: int = None) -> str:  # type: ignore[assignment]  # noqa: RUF013  # KFP's way of optional
    return f"{required} {note} {count}"


@dsl.pipeline(name="all-types")
def all_types(
    text: str = "a b",
    whole: int = 3,
    real: float = 2.5,
    flag: bool = False,
    items: list = [1, "x", 2.5],  # noqa: B006
    fields: dict = {"k": [1, 2]},  # noqa: B006
):
    show_types(text=text, whole=whole, real=real, flag=flag, items=items, fields=fields)


@dsl.pipeline(name="passed-on")
def passed_on(n: int) -> int:
    first = add(a=n)
    return add(a=first.output, b=first.output).output


@dsl.pipeline(name="optional")
def optional(required: str, note: str = None):  # type: ignore[assignment]  # noqa: RUF013
    describe(required=required, note=note)
    describe(required=f"<{required}>", count=7)


def test_defaults_of_every_type_arrive_with_their_types(runner: Any) -> None:
    run = runner.run(all_types)
    assert run.state == "SUCCEEDED"
    assert run.output("show-types", "types") == "str int float bool list dict"
    assert run.output("show-types", "items") == [1, "x", 2.5]
    assert run.output("show-types", "fields") == {"k": [1, 2]}
    assert run.output("show-types", "flag") is False


def test_given_values_win_over_defaults(runner: Any) -> None:
    run = runner.run(all_types, text="ü\n'\"$HOME", whole=-4, flag=True, items=[], fields={})
    assert run.state == "SUCCEEDED"
    assert run.output("show-types", "text") == "ü\n'\"$HOME"
    assert run.output("show-types", "whole") == -4
    assert run.output("show-types", "flag") is True
    assert run.output("show-types", "items") == []


def test_outputs_are_passed_on_and_become_the_pipelines_output(runner: Any) -> None:
    run = runner.run(passed_on, n=5)
    assert run.output("add") == 7
    assert run.output("add-2") == 14
    assert run.output("") == 14
    producer = run.task("add-2")["inputs"]["parameters"][0]["producer"]
    assert producer == {"task_name": "add", "key": "Output"}


def test_optional_inputs_may_be_left_out_and_texts_may_hold_parameters(runner: Any) -> None:
    run = runner.run(optional, required="r")
    assert run.output("describe") == "r None None"
    assert run.output("describe-2") == "<r> None 7"


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (
            {"n": 1, "m": 2},
            ["Parameter 'm'", "does not exist; it accepts", "n: NUMBER_INTEGER, required"],
        ),
        ({"n": "three"}, ["Parameter 'n'", "a whole number (NUMBER_INTEGER)", "'three' (str)"]),
        ({"n": 1.5}, ["Parameter 'n'", "1.5 (float)"]),
        ({"n": True}, ["Parameter 'n'", "True (bool)"]),
        ({}, ["Parameter 'n'", "required and missing"]),
    ],
)
def test_wrong_parameters_are_refused_by_name_and_type(
    runner: Any, arguments: dict[str, Any], fragments: list[str]
) -> None:
    with pytest.raises(ApiException) as refused:
        runner.submit(passed_on, **arguments)
    assert refused.value.status == 400
    for fragment in fragments:
        assert fragment in refused.value.body
