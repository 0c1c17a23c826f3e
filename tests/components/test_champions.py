from typing import Any

import pytest

from kubeloop.components.champions import find_model
from kubeloop.errors import InputError
from kubeloop.kserve.endpoints import Endpoint, parse_endpoint


def build_endpoint(predictor: dict[str, Any]) -> Endpoint:
    return parse_endpoint({"metadata": {"name": "digits"}, "spec": {"predictor": predictor}})


def test_the_champion_is_the_model_that_is_served() -> None:
    endpoint = build_endpoint({"model": {"storageUri": "s3://models/1"}})

    assert find_model(endpoint) == "s3://models/1"
    assert find_model(None) == ""


def test_an_endpoint_that_serves_no_model_is_not_replaced_uncompared() -> None:
    endpoint = build_endpoint({"containers": [{"name": "kserve-container", "image": "mine"}]})

    with pytest.raises(InputError, match=r"'digits' serves a program of its own .* another name"):
        find_model(endpoint)
