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
        (["source=x", "epoch=5"], "no parameter 'epoch'; it has epochs, fast, rate"),
        (["source=x", "epochs=five"], "'epochs' takes a whole number, not 'five'"),
        (["source=x", "epochs=5.5"], "'epochs' takes a whole number"),
        (["source=x", "rate=fast"], "'rate' takes a number"),
        (["source=x", "fast=maybe"], "'fast' takes true or false"),
        (["source=x", "space=[1]"], "'space' takes a JSON object"),
        (["source=x", "sizes={}"], "'sizes' takes a JSON list"),
        (["source=x", "source=y"], "'source' is given twice"),
        (["source"], "not of the form name=value"),
        (["epochs=5"], "needs 'source': add -p source="),
    ],
)
def test_wrong_parameters_are_refused_by_name(texts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        parse_parameters(texts, spec=SPEC)


def test_pipeline_without_parameters_takes_none() -> None:
    assert parse_parameters([], spec={"root": {}}) == {}
    with pytest.raises(InputError, match="it has none"):
        parse_parameters(["a=1"], spec={"root": {}})
