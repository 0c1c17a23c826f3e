"""Strategic merge patches of built-in kinds."""

from __future__ import annotations

from typing import Any

import pytest

from kubeloop.errors import ApiError
from kubeloop.local.api.strategic import apply_strategic_patch

POD: dict[str, Any] = {
    "metadata": {"finalizers": ["a"]},
    "spec": {
        "containers": [
            {
                "name": "one",
                "image": "x",
                "env": [{"name": "A", "value": "1"}],
                "ports": [{"containerPort": 80}],
            },
            {"name": "two", "image": "y"},
        ],
        "tolerations": [{"key": "a"}],
    },
}


def patched(spec: dict[str, Any]) -> Any:
    return apply_strategic_patch(POD, {"spec": spec})["spec"]


def test_entries_of_keyed_lists_merge_at_any_depth() -> None:
    env = [{"name": "B", "value": "2"}, {"name": "A", "value": "9"}]
    one = patched({"containers": [{"name": "one", "env": env}]})["containers"][0]
    assert one["image"] == "x"
    assert one["env"] == [{"name": "A", "value": "9"}, {"name": "B", "value": "2"}]


def test_new_entries_are_added_and_others_kept() -> None:
    containers = patched({"containers": [{"name": "three", "image": "z"}]})["containers"]
    assert [container["name"] for container in containers] == ["one", "two", "three"]


def test_ports_of_containers_and_services_have_their_own_keys() -> None:
    ports = [{"containerPort": 80, "name": "web"}, {"containerPort": 81}]
    one = patched({"containers": [{"name": "one", "ports": ports}]})["containers"][0]
    assert one["ports"] == [{"containerPort": 80, "name": "web"}, {"containerPort": 81}]
    service = {"spec": {"ports": [{"port": 80, "targetPort": 1}]}}
    merged = apply_strategic_patch(service, {"spec": {"ports": [{"port": 80, "name": "x"}]}})
    assert merged["spec"]["ports"] == [{"port": 80, "targetPort": 1, "name": "x"}]


def test_lists_without_a_key_are_replaced() -> None:
    assert patched({"tolerations": [{"key": "b"}]})["tolerations"] == [{"key": "b"}]


def test_finalizers_are_merged_as_values() -> None:
    merged = apply_strategic_patch(POD, {"metadata": {"finalizers": ["b", "a"]}})
    assert merged["metadata"]["finalizers"] == ["a", "b"]
    body = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}
    assert apply_strategic_patch(POD, body)["metadata"]["finalizers"] == []


def test_delete_directives_remove_entries() -> None:
    containers = patched({"containers": [{"name": "one", "$patch": "delete"}]})["containers"]
    assert [container["name"] for container in containers] == ["two"]


def test_replace_directives_replace_objects_and_lists() -> None:
    assert patched({"$patch": "replace", "nodeName": "n"}) == {"nodeName": "n"}
    only = [{"name": "three"}, {"$patch": "replace"}]
    assert patched({"containers": only})["containers"] == [{"name": "three"}]


def test_retain_keys_drops_the_others() -> None:
    deployment = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    body = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert apply_strategic_patch(deployment, body)["spec"]["strategy"] == {"type": "Recreate"}


def test_element_order_is_followed() -> None:
    order = [{"name": "two"}, {"name": "one"}]
    body = {"$setElementOrder/containers": order, "containers": [{"name": "two", "image": "new"}]}
    containers = patched(body)["containers"]
    assert [container["name"] for container in containers] == ["two", "one"]
    assert containers[0]["image"] == "new"


def test_null_removes_a_field() -> None:
    assert "tolerations" not in patched({"tolerations": None})


@pytest.mark.parametrize(
    "body", [{"$patch": "explode"}, {"spec": {"containers": [{"image": "no name"}]}}, [1]]
)
def test_bad_patches_are_refused(body: Any) -> None:
    with pytest.raises(ApiError) as caught:
        apply_strategic_patch(POD, body)
    assert caught.value.status == 400
