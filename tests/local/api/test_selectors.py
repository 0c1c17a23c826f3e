"""Selectors parse as kubectl's do, and what does not parse is named."""

from __future__ import annotations

import pytest

from kubeloop.errors import ApiError
from kubeloop.local.api.resources import PODS
from kubeloop.local.api.selectors import parse_label_selector, parse_selection
from kubeloop.local.api.storage import index_object


def matches(selector: str, labels: dict[str, str]) -> bool:
    stored = index_object(
        PODS, {"metadata": {"name": "p", "resourceVersion": "1", "labels": labels}}
    )
    return all(requirement.matches(stored) for requirement in parse_label_selector(selector))


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        ("a=b", {"a": "b"}, True),
        ("a = b , c != d", {"a": "b"}, True),
        ("a=", {"a": ""}, True),
        ("example.com/a.b-c_d=1", {"example.com/a.b-c_d": "1"}, True),
        ("a in (b, c),d", {"a": "c", "d": ""}, True),
        ("a notin (b)", {}, True),
        ("a notin (b)", {"a": "b"}, False),
        ("a in ()", {"a": ""}, True),
        ("!a", {"a": ""}, False),
        ("a!=b", {"a": "b"}, False),
    ],
)
def test_label_selectors_match(selector: str, labels: dict[str, str], expected: bool) -> None:
    assert matches(selector, labels) is expected


@pytest.mark.parametrize("selector", ["a b", "a in b", "=b", "a=b=c", "a in (b", "a,,b", "ä=b"])
def test_bad_label_selectors_are_refused(selector: str) -> None:
    with pytest.raises(ApiError, match="unable to parse requirement") as caught:
        parse_label_selector(selector)
    assert caught.value.status == 400


def test_a_field_selector_may_name_the_only_object() -> None:
    assert parse_selection(PODS, field_selector="metadata.name=p").name == "p"
    assert parse_selection(PODS, field_selector="metadata.name!=p").name is None


@pytest.mark.parametrize("selector", ["metadata.labels=x", "metadata.name"])
def test_bad_field_selectors_are_refused(selector: str) -> None:
    with pytest.raises(ApiError, match="invalid field selector"):
        parse_selection(PODS, field_selector=selector)
