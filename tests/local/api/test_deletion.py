"""What a crash cuts off is finished at the next start, and old Events go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kubeloop.errors import ApiError, NotFoundError
from kubeloop.local.api import expiry
from kubeloop.local.api.deletion import DeleteOptions
from kubeloop.local.api.resources import CONFIG_MAPS, EVENTS, NAMESPACES, PODS, Resource
from kubeloop.local.api.selectors import parse_selection
from kubeloop.local.api.storage import ObjectStorage
from kubeloop.local.api.verbs import ApiServer, ensure_namespace
from kubeloop.local.client import Manifest, Propagation
from kubeloop.testing.manifests import build_config_map, build_pod, own


def restarted(path: Path) -> ApiServer:
    return ApiServer(ObjectStorage(path))


def started(path: Path | None = None, **options: Any) -> ApiServer:
    api = ApiServer(ObjectStorage(path), **options)
    ensure_namespace(api, "default")
    return api


def names(api: ApiServer, resource: Resource = CONFIG_MAPS) -> list[str]:
    return [stored.name for stored in api.list(resource, parse_selection(resource))]


def create(api: ApiServer, manifest: Manifest) -> Manifest:
    resource = PODS if manifest["kind"] == "Pod" else CONFIG_MAPS
    return api.create(resource, manifest).load()


def test_dependents_of_an_owner_lost_before_a_crash_go_at_the_start(tmp_path: Path) -> None:
    api = started(tmp_path / "objects.db")
    owner = create(api, build_config_map("owner"))
    create(api, own(build_config_map("dependent"), owner))
    stored = api.get(CONFIG_MAPS, "owner", namespace="default")
    api.storage.remove(stored)  # the removal alone, as if the process died after it
    api.storage.close()
    assert names(restarted(tmp_path / "objects.db")) == []


def test_a_namespace_in_termination_is_emptied_at_the_start(tmp_path: Path) -> None:
    api = started(tmp_path / "objects.db")
    ensure_namespace(api, "team")
    create(api, build_config_map("a", namespace="team"))
    manifest = api.get(NAMESPACES, "team").load()
    manifest["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    api.storage.put(NAMESPACES, manifest)  # marked, and then the process died
    api.storage.close()
    api = restarted(tmp_path / "objects.db")
    assert names(api) == []
    assert names(api, NAMESPACES) == ["default"]


def test_a_foreground_deletion_goes_on_at_the_start(tmp_path: Path) -> None:
    api = started(tmp_path / "objects.db")
    owner = create(api, build_config_map("owner"))
    create(api, own(build_config_map("dependent"), owner))
    owner["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    owner["metadata"]["finalizers"] = ["foregroundDeletion"]
    api.storage.put(CONFIG_MAPS, owner)
    api.storage.close()
    assert names(restarted(tmp_path / "objects.db")) == []


def test_foreground_deletion_without_dependents_is_immediate() -> None:
    api = started()
    create(api, build_config_map("a"))
    options = DeleteOptions(propagation=Propagation.FOREGROUND)
    assert api.delete(CONFIG_MAPS, name="a", namespace="default", options=options) is None


def test_foreground_deletion_does_not_wait_for_dependents_that_do_not_block() -> None:
    api = started()
    owner = create(api, build_config_map("owner"))
    dependent = own(build_config_map("dependent"), owner, blocks=False)
    dependent["metadata"]["finalizers"] = ["kubeloop.dev/test"]
    create(api, dependent)
    options = DeleteOptions(propagation=Propagation.FOREGROUND)
    api.delete(CONFIG_MAPS, name="owner", namespace="default", options=options)
    assert names(api) == ["dependent"]


def test_an_owner_of_another_namespace_is_no_owner() -> None:
    api = started()
    ensure_namespace(api, "team")
    owner = create(api, build_config_map("owner", namespace="team"))
    create(api, own(build_config_map("a"), owner))
    assert names(api) == ["owner"]


def test_a_cluster_scoped_owner_is_one() -> None:
    api = started()
    owner = api.get(NAMESPACES, "default").load()
    create(api, own(build_config_map("a"), owner))
    assert names(api) == ["a"]


def test_a_deletion_bumps_the_generation_and_is_one_event() -> None:
    api = started()
    create(api, build_pod("p", nodeName="laptop"))
    end = api.storage.logs[PODS].end
    api.delete(PODS, name="p", namespace="default")
    api.delete(PODS, name="p", namespace="default")
    assert api.storage.logs[PODS].end == end + 1


def test_a_shorter_grace_period_wins_and_a_longer_one_does_not() -> None:
    api = started()
    create(api, build_pod("p", nodeName="laptop"))
    for asked, expected in ((20, 20), (5, 5), (30, 5)):
        options = DeleteOptions(grace_period_seconds=asked)
        dying = api.delete(PODS, name="p", namespace="default", options=options)
        assert dying is not None
        assert dying.load()["metadata"]["deletionGracePeriodSeconds"] == expected


def test_finished_pods_need_no_grace() -> None:
    api = started()
    pod = create(api, build_pod("p", nodeName="laptop"))
    pod["status"] = {"phase": "Succeeded"}
    api.replace(PODS, pod, name="p", namespace="default", subresource="status")
    assert api.delete(PODS, name="p", namespace="default") is None


def test_the_default_namespace_cannot_be_deleted() -> None:
    with pytest.raises(ApiError, match="this namespace may not be deleted") as caught:
        started().delete(NAMESPACES, name="default")
    assert caught.value.status == 403


def test_a_dry_run_deletes_nothing() -> None:
    api = started()
    create(api, build_config_map("a"))
    api.delete(CONFIG_MAPS, name="a", namespace="default", options=DeleteOptions(dry_run=True))
    assert names(api) == ["a"]


def test_a_collection_is_deleted_by_selector() -> None:
    api = started()
    for name, label in (("a", "x"), ("b", "x"), ("c", "y")):
        create(api, build_config_map(name, labels={"k": label}))
    selection = parse_selection(CONFIG_MAPS, namespace="default", label_selector="k=x")
    deleted = api.delete_collection(CONFIG_MAPS, selection)
    assert [stored.name for stored in deleted] == ["a", "b"]
    assert names(api) == ["c"]


def test_events_go_after_a_day() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    api = started(clock=lambda: now)

    def record(name: str) -> None:
        manifest = {
            "metadata": {"name": name, "namespace": "default"},
            "involvedObject": {"kind": "Pod", "name": "p"},
        }
        api.create(EVENTS, manifest)

    record("old")
    now += timedelta(hours=23)
    record("young")
    assert names(api, EVENTS) == ["old", "young"]
    now += timedelta(hours=2)
    record("new")
    assert names(api, EVENTS) == ["new", "young"]


def test_of_too_many_events_the_newest_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "MAX_KEPT", 3)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    api = started(clock=lambda: now)
    for minute, name in enumerate("edcba"):
        now = datetime(2026, 1, 1, 0, 2 * minute, tzinfo=UTC)
        event = {"metadata": {"name": name}, "involvedObject": {}, "reason": "Created"}
        api.create(EVENTS, event, namespace="default")
    assert [stored.name for stored in api.storage.iterate(EVENTS)] == list("abcd")


def test_a_missing_object_cannot_be_deleted() -> None:
    with pytest.raises(NotFoundError, match='pods "p" not found'):
        started().delete(PODS, name="p", namespace="default")
