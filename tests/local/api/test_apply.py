"""Server-side apply: whose field is whose."""

from __future__ import annotations

from typing import Any

import pytest

from kubeloop.errors import ApiError, ConflictError
from kubeloop.local.api.apply import ApplyRequest, apply_configuration
from kubeloop.local.api.resources import CONFIG_MAPS, DEPLOYMENTS, PYTORCH_JOBS, Resource


def apply(
    live: dict[str, Any],
    configuration: dict[str, Any],
    *,
    manager: str = "one",
    resource: Resource = CONFIG_MAPS,
    force: bool = False,
) -> dict[str, Any]:
    request = ApplyRequest(
        configuration=configuration, manager=manager, force=force, now="2026-01-01T00:00:00Z"
    )
    return apply_configuration(resource, live, request)


def bare() -> dict[str, Any]:
    return {"metadata": {"name": "x"}}


def test_fields_that_are_no_longer_stated_go() -> None:
    live = apply(bare(), {"data": {"a": "1", "b": "2"}})
    assert apply(live, {"data": {"a": "1"}})["data"] == {"a": "1"}


def test_fields_of_nobody_stay() -> None:
    live = {**apply(bare(), {"data": {"a": "1"}})}
    live["data"] = {**live["data"], "typed": "by hand"}
    assert apply(live, {"data": {"a": "2"}})["data"] == {"a": "2", "typed": "by hand"}


def test_fields_of_another_manager_conflict_unless_forced() -> None:
    live = apply(bare(), {"data": {"a": "1"}})
    with pytest.raises(
        ConflictError, match=r'1 conflict: conflict with "one": \.data\.a'
    ) as caught:
        apply(live, {"data": {"a": "2"}}, manager="two")
    assert caught.value.details.causes[0]["field"] == ".data.a"
    live = apply(bare(), {"data": {"a": "1"}})
    live = apply(live, {"data": {"a": "2"}}, manager="two", force=True)
    assert live["data"] == {"a": "2"}
    assert [entry["manager"] for entry in live["metadata"]["managedFields"]] == ["two"]


def test_the_same_value_is_shared_and_stays_until_both_let_go() -> None:
    live = apply(bare(), {"data": {"a": "1"}})
    live = apply(live, {"data": {"a": "1"}}, manager="two")
    live = apply(live, {"data": {}})
    assert live["data"] == {"a": "1"}
    assert apply(live, {"data": {}}, manager="two")["data"] == {}


def test_entries_of_keyed_lists_are_owned_one_by_one() -> None:
    def build(*images: tuple[str, str]) -> dict[str, Any]:
        containers = [{"name": name, "image": image} for name, image in images]
        return {"spec": {"template": {"spec": {"containers": containers}}}}

    live = apply(bare(), build(("a", "1"), ("b", "1")), resource=DEPLOYMENTS)
    live = apply(live, build(("c", "1")), manager="two", resource=DEPLOYMENTS)
    live = apply(live, build(("a", "2")), resource=DEPLOYMENTS)
    containers = live["spec"]["template"]["spec"]["containers"]
    assert containers == [{"name": "a", "image": "2"}, {"name": "c", "image": "1"}]


def test_lists_of_custom_resources_are_one_value() -> None:
    live = apply(bare(), {"spec": {"volumes": [{"name": "a"}]}}, resource=PYTORCH_JOBS)
    live = apply(live, {"spec": {"volumes": [{"name": "b"}]}}, resource=PYTORCH_JOBS)
    assert live["spec"]["volumes"] == [{"name": "b"}]


def test_an_unchanged_apply_changes_nothing() -> None:
    live = apply(bare(), {"data": {"a": "1"}})
    request = ApplyRequest(
        configuration={"data": {"a": "1"}}, manager="one", force=False, now="2027-01-01T00:00:00Z"
    )
    before = repr(live)
    assert repr(apply_configuration(CONFIG_MAPS, live, request)) == before


def test_a_manager_is_needed() -> None:
    with pytest.raises(ApiError, match="fieldManager is required"):
        apply(bare(), {}, manager="")
