"""JSON patches and merge patches, by their RFCs."""

from __future__ import annotations

from typing import Any

import pytest

from kubeloop.errors import ApiError
from kubeloop.local.api.patches import apply_json_patch, apply_merge_patch


@pytest.mark.parametrize(
    ("target", "patch", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ({"a": "foo"}, "bar", "bar"),
    ],
)
def test_merge_patches_follow_rfc_7386(target: Any, patch: Any, expected: Any) -> None:
    assert apply_merge_patch(target, patch) == expected


@pytest.mark.parametrize(
    ("target", "operations", "expected"),
    [
        ({"a": [1, 3]}, [{"op": "add", "path": "/a/1", "value": 2}], {"a": [1, 2, 3]}),
        ({"a": [1]}, [{"op": "add", "path": "/a/-", "value": 2}], {"a": [1, 2]}),
        ({"a": [1, 2]}, [{"op": "remove", "path": "/a/0"}], {"a": [2]}),
        ({"a": 1}, [{"op": "replace", "path": "/a", "value": None}], {"a": None}),
        (
            {"a": {"b": 1}},
            [{"op": "copy", "from": "/a", "path": "/c"}],
            {"a": {"b": 1}, "c": {"b": 1}},
        ),
        ({"a": 1}, [{"op": "move", "from": "/a", "path": "/b"}], {"b": 1}),
        ({"~/": 1}, [{"op": "test", "path": "/~0~1", "value": 1}], {"~/": 1}),
        ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}], {"b": 2}),
    ],
)
def test_json_patches_follow_rfc_6902(target: Any, operations: Any, expected: Any) -> None:
    before = repr(target)
    assert apply_json_patch(target, operations) == expected
    assert repr(target) == before


@pytest.mark.parametrize(
    ("operations", "status"),
    [
        ({"op": "add"}, 400),
        (["x"], 400),
        ([{"op": "jump", "path": "/a"}], 400),
        ([{"op": "add", "path": "/a"}], 400),
        ([{"op": "add", "path": "a", "value": 1}], 400),
        ([{"op": "remove", "path": "/missing"}], 422),
        ([{"op": "replace", "path": "/list/7", "value": 1}], 422),
        ([{"op": "remove", "path": "/list/-1"}], 422),
        ([{"op": "add", "path": "/list/x", "value": 1}], 422),
        ([{"op": "add", "path": "/text/x", "value": 1}], 422),
        ([{"op": "test", "path": "/text", "value": 1}], 422),
    ],
)
def test_bad_json_patches_are_refused(operations: Any, status: int) -> None:
    with pytest.raises(ApiError) as caught:
        apply_json_patch({"list": [1], "text": "t"}, operations)
    assert caught.value.status == status
