import pytest

from kubeloop.errors import InputError
from kubeloop.pipelines.parameters import parse_parameters

SPEC = {
    "root": {
        "inputDefinitions": {
            "parameters": {
                "source": {"parameterType": "STRING"},
                "epochs": {"parameterType": "NUMBER_INTEGER", "defaultValue": 3.0},
                "rate": {"parameterType": "NUMBER_DOUBLE", "isOptional": True},
                "fast": {"parameterType": "BOOLEAN", "defaultValue": False},
                "space": {"parameterType": "STRUCT", "defaultValue": {}},
                "sizes": {"parameterType": "LIST", "defaultValue": []},
            }
        }
    }
}


def test_texts_become_the_declared_types() -> None:
    texts = ["source=a=b", "epochs=5", "rate=1e-3", "fast=True", 'space={"x": [1]}', "sizes=[1, 2]"]
    assert parse_parameters(texts, spec=SPEC) == {
        "source": "a=b",
        "epochs": 5,
        "rate": 0.001,
        "fast": True,
        "space": {"x": [1]},
        "sizes": [1, 2],
    }


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["source=x", "source=y"], "'source' is given twice"),
        (["source"], "not of the form name=value"),
    ],
)
def test_wrong_parameters_are_refused_by_name(texts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        parse_parameters(texts, spec=SPEC)


@pytest.mark.parametrize(
    "text", ["epochs=five", "rate=fast", "fast=maybe", "space={", "unknown=5", "source=5"]
)
def test_what_is_not_of_its_type_stays_text_for_the_rules_to_refuse(text: str) -> None:
    name, _, value = text.partition("=")
    assert parse_parameters([text], spec=SPEC) == {name: value}
