"""What every `Client` does, whatever its transport. Subclass it and say how to open one.

The server behind the client starts with the namespaces default and kubeflow.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path
from typing import Any

import pytest
from kubeloop.errors import (
    AlreadyExistsError,
    ApiError,
    ConflictError,
    ExpiredError,
    InvalidError,
    NotFoundError,
)
from kubeloop.local.api.events import EventLogConfig
from kubeloop.local.api.resources import CONFIG_MAPS, NAMESPACES, PODS, PYTORCH_JOBS
from kubeloop.local.client import (
    Client,
    EventType,
    Manifest,
    PatchType,
    Propagation,
    WatchEvent,
)

_DEADLINE_SECONDS = 20.0


def build_config_map(name: str, **metadata: Any) -> Manifest:  # any JSON of metadata
    """A small object."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", **metadata},
        "data": {"key": "value"},
    }


def build_pod(name: str, **spec: Any) -> Manifest:  # any JSON of a pod's spec
    """A pod that nothing runs."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "main", "image": "busybox"}], **spec},
    }


def build_job(name: str, *, num_workers: int = 1) -> Manifest:
    """A custom resource with a status."""
    template = {"spec": {"containers": [{"name": "pytorch", "image": "train"}]}}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "pytorchReplicaSpecs": {
                "Master": {"replicas": 1, "template": template},
                "Worker": {"replicas": num_workers, "template": template},
            }
        },
    }


def own(manifest: Manifest, owner: Manifest, *, blocks: bool = True) -> Manifest:
    """`manifest` with `owner` as its controller."""
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": blocks,
    }
    manifest["metadata"]["ownerReferences"] = [reference]
    return manifest


class ClientContract(ABC):
    """The tests; `self.run` opens a client and gives it to one."""

    @abstractmethod
    def open(
        self, folder: Path, *, log_config: EventLogConfig | None = None
    ) -> AbstractAsyncContextManager[Client]:
        """A client of a fresh server; logs of pods are in `folder/pods`."""

    def run(
        self,
        folder: Path,
        test: Callable[[Client], Awaitable[None]],
        *,
        log_config: EventLogConfig | None = None,
    ) -> None:
        """Run a test to its end or its deadline."""

        async def limited() -> None:
            async with (
                asyncio.timeout(_DEADLINE_SECONDS),
                self.open(folder, log_config=log_config) as client,
            ):
                await test(client)

        asyncio.run(limited())

    def test_create_fills_in_what_the_server_owns(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            created = await client.create(build_job("a"))
            metadata = created["metadata"]
            assert metadata["uid"]
            assert metadata["creationTimestamp"].endswith("Z")
            assert metadata["generation"] == 1
            assert int(metadata["resourceVersion"]) > 0
            assert await client.get(PYTORCH_JOBS, "a", namespace="default") == created

        self.run(tmp_path, test)

    def test_create_of_a_taken_name_is_refused(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            await client.create(build_config_map("a"))
            with pytest.raises(AlreadyExistsError, match='configmaps "a" already exists'):
                await client.create(build_config_map("a"))

        self.run(tmp_path, test)

    def test_create_in_a_missing_namespace_is_refused(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            with pytest.raises(NotFoundError, match='namespaces "nowhere" not found'):
                await client.create(build_config_map("a", namespace="nowhere"))

        self.run(tmp_path, test)

    def test_create_of_a_bad_name_names_the_field(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            fault = r'ConfigMap "A_b" is invalid: metadata\.name'
            with pytest.raises(InvalidError, match=fault) as caught:
                await client.create(build_config_map("A_b"))
            assert caught.value.details.causes[0]["field"] == "metadata.name"
            assert caught.value.status == 422

        self.run(tmp_path, test)

    def test_generated_names_start_with_the_prefix_and_differ(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            manifest = build_config_map("")
            manifest["metadata"] = {"generateName": "step-", "namespace": "default"}
            names = {(await client.create(manifest))["metadata"]["name"] for _ in range(20)}
            assert len(names) == 20
            assert all(name.startswith("step-") and len(name) == 10 for name in names)

        self.run(tmp_path, test)

    def test_get_of_a_missing_object_is_not_found(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            with pytest.raises(
                NotFoundError, match=r'^pytorchjobs\.kubeflow\.org "a" not found$'
            ) as caught:
                await client.get(PYTORCH_JOBS, "a", namespace="default")
            details = caught.value.details
            assert (details.name, details.group, details.kind) == (
                "a",
                "kubeflow.org",
                "pytorchjobs",
            )

        self.run(tmp_path, test)

    def test_manifests_belong_to_the_caller(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            sent = build_config_map("a", labels={"x": "1"})
            created = await client.create(sent)
            sent["data"]["key"] = "changed"
            created["metadata"]["labels"]["x"] = "2"
            stored = await client.get(CONFIG_MAPS, "a", namespace="default")
            assert stored["data"] == {"key": "value"}
            assert stored["metadata"]["labels"] == {"x": "1"}

        self.run(tmp_path, test)

    @pytest.mark.parametrize(
        ("selector", "expected"),
        [
            ("", ["a", "b", "c"]),
            ("tier=web", ["a"]),
            ("tier!=web", ["b", "c"]),
            ("tier in (web,db)", ["a", "b"]),
            ("tier notin (web, db)", ["c"]),
            ("tier", ["a", "b"]),
            ("!tier", ["c"]),
            ("tier==db,color", ["b"]),
        ],
    )
    def test_list_selects_by_labels(
        self, tmp_path: Path, selector: str, expected: list[str]
    ) -> None:
        async def test(client: Client) -> None:
            await client.create(build_config_map("a", labels={"tier": "web"}))
            await client.create(build_config_map("b", labels={"tier": "db", "color": "red"}))
            await client.create(build_config_map("c"))
            listed = await client.list(CONFIG_MAPS, namespace="default", label_selector=selector)
            assert [item["metadata"]["name"] for item in listed.items] == expected

        self.run(tmp_path, test)

    def test_list_selects_by_fields(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            await client.create(build_pod("a"))
            await client.create(build_pod("b", nodeName="laptop"))
            listed = await client.list(PODS, field_selector="spec.nodeName=laptop")
            assert [item["metadata"]["name"] for item in listed.items] == ["b"]
            listed = await client.list(PODS, field_selector="metadata.name!=b,status.phase=Pending")
            assert [item["metadata"]["name"] for item in listed.items] == ["a"]

        self.run(tmp_path, test)

    def test_list_by_an_unknown_field_is_refused(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            with pytest.raises(ApiError, match=r"field label not supported: spec\.color") as caught:
                await client.list(PODS, field_selector="spec.color=red")
            assert caught.value.status == 400

        self.run(tmp_path, test)

    def test_list_covers_one_namespace_or_all(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            await client.create(build_config_map("a"))
            await client.create(build_config_map("b", namespace="kubeflow"))
            inside = await client.list(CONFIG_MAPS, namespace="kubeflow")
            everywhere = await client.list(CONFIG_MAPS)
            assert [item["metadata"]["name"] for item in inside.items] == ["b"]
            assert [item["metadata"]["name"] for item in everywhere.items] == ["a", "b"]

        self.run(tmp_path, test)

    def test_replace_of_a_stale_version_conflicts(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            first = await client.create(build_config_map("a"))
            await client.replace({**first, "data": {"key": "second"}})
            with pytest.raises(ConflictError, match="the object has been modified"):
                await client.replace({**first, "data": {"key": "third"}})
            stored = await client.get(CONFIG_MAPS, "a", namespace="default")
            assert stored["data"] == {"key": "second"}

        self.run(tmp_path, test)

    def test_replace_of_a_custom_resource_needs_a_version(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            created = await client.create(build_job("a"))
            del created["metadata"]["resourceVersion"]
            with pytest.raises(InvalidError, match="must be specified for an update"):
                await client.replace(created)

        self.run(tmp_path, test)

    def test_replace_without_a_change_writes_nothing(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            created = await client.create(build_job("a"))
            assert await client.replace(created) == created

        self.run(tmp_path, test)

    def test_status_and_spec_are_written_apart(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            created = await client.create({**build_job("a"), "status": {"startTime": "ignored"}})
            assert "status" not in created
            created["status"] = {"conditions": [{"type": "Created", "status": "True"}]}
            created["spec"]["runPolicy"] = {"suspend": True}
            updated = await client.replace_status(created)
            assert updated["status"] == created["status"]
            assert "suspend" not in updated["spec"].get("runPolicy", {})
            updated["status"] = {}
            updated["spec"]["runPolicy"] = {"suspend": True}
            replaced = await client.replace(updated)
            assert replaced["status"] == created["status"]
            assert replaced["spec"]["runPolicy"]["suspend"] is True

        self.run(tmp_path, test)

    def test_generation_grows_with_the_spec_only(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            created = await client.create(build_job("a"))
            status = await client.replace_status({**created, "status": {"startTime": "now"}})
            assert status["metadata"]["generation"] == 1
            status["metadata"]["labels"] = {"x": "y"}
            labelled = await client.replace(status)
            assert labelled["metadata"]["generation"] == 1
            labelled["spec"]["runPolicy"] = {"suspend": True}
            changed = await client.replace(labelled)
            assert changed["metadata"]["generation"] == 2

        self.run(tmp_path, test)

    def test_identity_survives_any_write(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            created = await client.create(build_config_map("a"))
            body = {"metadata": {"uid": None, "creationTimestamp": None, "labels": {"x": "y"}}}
            patched = await client.patch(CONFIG_MAPS, "a", namespace="default", body=body)
            assert patched["metadata"]["uid"] == created["metadata"]["uid"]
            stamp = patched["metadata"]["creationTimestamp"]
            assert stamp == created["metadata"]["creationTimestamp"]

        self.run(tmp_path, test)

    def test_merge_patch_merges_objects_and_removes_nulls(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            await client.create(build_config_map("a", labels={"x": "1", "y": "2"}))
            body = {"metadata": {"labels": {"x": None, "z": "3"}}, "data": {"other": "added"}}
            patched = await client.patch(CONFIG_MAPS, "a", namespace="default", body=body)
            assert patched["metadata"]["labels"] == {"y": "2", "z": "3"}
            assert patched["data"] == {"key": "value", "other": "added"}

        self.run(tmp_path, test)

    def test_json_patch_applies_operations_in_order(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            await client.create(build_config_map("a"))
            patched = await client.patch(
                CONFIG_MAPS,
                "a",
                namespace="default",
                patch_type=PatchType.JSON,
                body=[
                    {"op": "test", "path": "/data/key", "value": "value"},
                    {"op": "move", "from": "/data/key", "path": "/data/moved"},
                    {"op": "add", "path": "/metadata/labels", "value": {"a/b": "c"}},
                    {"op": "replace", "path": "/metadata/labels/a~1b", "value": "d"},
                ],
            )
            assert patched["data"] == {"moved": "value"}
            assert patched["metadata"]["labels"] == {"a/b": "d"}

        self.run(tmp_path, test)

    def test_json_patch_that_does_not_apply_changes_nothing(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            created = await client.create(build_config_map("a"))
            with pytest.raises(InvalidError, match="test failed"):
                await client.patch(
                    CONFIG_MAPS,
                    "a",
                    namespace="default",
                    patch_type=PatchType.JSON,
                    body=[
                        {"op": "add", "path": "/data/new", "value": "x"},
                        {"op": "test", "path": "/data/key", "value": "other"},
                    ],
                )
            assert await client.get(CONFIG_MAPS, "a", namespace="default") == created

        self.run(tmp_path, test)

    def test_strategic_patch_merges_lists_of_built_in_kinds_by_key(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            await client.create(build_pod("a"))
            patched = await client.patch(
                PODS,
                "a",
                namespace="default",
                patch_type=PatchType.STRATEGIC,
                body={"spec": {"containers": [{"name": "main", "image": "busybox:2"}]}},
            )
            assert [c["image"] for c in patched["spec"]["containers"]] == ["busybox:2"]
            assert patched["spec"]["containers"][0]["terminationMessagePolicy"] == "File"

        self.run(tmp_path, test)

    def test_strategic_patch_of_a_custom_resource_is_refused(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            await client.create(build_job("a"))
            with pytest.raises(ApiError) as caught:
                await client.patch(
                    PYTORCH_JOBS,
                    "a",
                    namespace="default",
                    patch_type=PatchType.STRATEGIC,
                    body={"spec": {}},
                )
            assert caught.value.status == 415

        self.run(tmp_path, test)

    def test_patch_of_the_status_leaves_the_spec(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            await client.create(build_job("a"))
            patched = await client.patch(
                PYTORCH_JOBS,
                "a",
                namespace="default",
                body={"status": {"startTime": "now"}, "spec": {"runPolicy": {"suspend": True}}},
                subresource="status",
            )
            assert patched["status"] == {"startTime": "now"}
            assert "suspend" not in patched["spec"].get("runPolicy", {})

        self.run(tmp_path, test)

    def test_patch_with_a_stale_version_conflicts(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            first = await client.create(build_job("a"))
            await client.patch(
                PYTORCH_JOBS, "a", namespace="default", body={"metadata": {"labels": {"x": "y"}}}
            )
            with pytest.raises(ConflictError):
                await client.patch(PYTORCH_JOBS, "a", namespace="default", body=first)

        self.run(tmp_path, test)

    def test_deleted_objects_are_gone(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            await client.create(build_config_map("a"))
            await client.delete(CONFIG_MAPS, "a", namespace="default")
            with pytest.raises(NotFoundError):
                await client.get(CONFIG_MAPS, "a", namespace="default")
            with pytest.raises(NotFoundError):
                await client.delete(CONFIG_MAPS, "a", namespace="default")

        self.run(tmp_path, test)

    def test_delete_of_another_uid_conflicts(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            created = await client.create(build_config_map("a"))
            with pytest.raises(ConflictError, match="Precondition failed: UID"):
                await client.delete(CONFIG_MAPS, "a", namespace="default", uid="other")
            uid = created["metadata"]["uid"]
            await client.delete(CONFIG_MAPS, "a", namespace="default", uid=uid)

        self.run(tmp_path, test)

    def test_finalizers_hold_an_object_until_they_are_removed(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            await client.create(build_config_map("a", finalizers=["kubeloop.dev/test"]))
            await client.delete(CONFIG_MAPS, "a", namespace="default")
            held = await client.get(CONFIG_MAPS, "a", namespace="default")
            assert held["metadata"]["deletionTimestamp"]
            held["metadata"]["finalizers"].append("kubeloop.dev/late")
            with pytest.raises(InvalidError, match="no new finalizers can be added"):
                await client.replace(held)
            body = {"metadata": {"finalizers": None}}
            await client.patch(CONFIG_MAPS, "a", namespace="default", body=body)
            with pytest.raises(NotFoundError):
                await client.get(CONFIG_MAPS, "a", namespace="default")

        self.run(tmp_path, test)

    def test_pods_on_a_node_get_their_grace_period(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            await client.create(build_pod("a", nodeName="laptop", terminationGracePeriodSeconds=7))
            await client.delete(PODS, "a", namespace="default")
            dying = await client.get(PODS, "a", namespace="default")
            assert dying["metadata"]["deletionGracePeriodSeconds"] == 7
            await client.delete(PODS, "a", namespace="default", grace_period_seconds=0)
            with pytest.raises(NotFoundError):
                await client.get(PODS, "a", namespace="default")

        self.run(tmp_path, test)

    def test_background_deletion_takes_dependents_along(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            owner = await client.create(build_job("a"))
            pod = await client.create(own(build_pod("b"), owner))
            await client.create(own(build_config_map("c"), pod))
            await client.delete(PYTORCH_JOBS, "a", namespace="default")
            assert not (await client.list(PODS)).items
            assert not (await client.list(CONFIG_MAPS)).items

        self.run(tmp_path, test)

    def test_foreground_deletion_waits_for_blocking_dependents(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            owner = await client.create(build_job("a"))
            held = own(build_config_map("b"), owner)
            held["metadata"]["finalizers"] = ["kubeloop.dev/test"]
            await client.create(held)
            await client.delete(
                PYTORCH_JOBS, "a", namespace="default", propagation=Propagation.FOREGROUND
            )
            waiting = await client.get(PYTORCH_JOBS, "a", namespace="default")
            assert waiting["metadata"]["finalizers"] == ["foregroundDeletion"]
            assert waiting["metadata"]["deletionTimestamp"]
            body: Manifest = {"metadata": {"finalizers": []}}
            await client.patch(CONFIG_MAPS, "b", namespace="default", body=body)
            with pytest.raises(NotFoundError):
                await client.get(PYTORCH_JOBS, "a", namespace="default")

        self.run(tmp_path, test)

    def test_orphaning_deletion_leaves_dependents(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            owner = await client.create(build_job("a"))
            await client.create(own(build_pod("b"), owner))
            await client.delete(
                PYTORCH_JOBS, "a", namespace="default", propagation=Propagation.ORPHAN
            )
            left = await client.get(PODS, "b", namespace="default")
            assert "ownerReferences" not in left["metadata"]

        self.run(tmp_path, test)

    def test_a_second_owner_keeps_a_dependent(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            first = await client.create(build_job("a"))
            second = await client.create(build_config_map("b"))
            shared = own(build_pod("c"), first)
            other = own(build_pod("c"), second)["metadata"]["ownerReferences"][0]
            shared["metadata"]["ownerReferences"].append({**other, "controller": False})
            await client.create(shared)
            await client.delete(PYTORCH_JOBS, "a", namespace="default")
            kept = await client.get(PODS, "c", namespace="default")
            assert [o["name"] for o in kept["metadata"]["ownerReferences"]] == ["b"]

        self.run(tmp_path, test)

    def test_an_object_of_an_owner_that_is_gone_goes_too(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            owner = await client.create(build_job("a"))
            await client.delete(PYTORCH_JOBS, "a", namespace="default")
            await client.create(own(build_pod("late"), owner))
            assert not (await client.list(PODS)).items

        self.run(tmp_path, test)

    def test_a_namespace_goes_with_its_contents(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            await client.create(
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}
            )
            held = build_config_map("a", namespace="team", finalizers=["kubeloop.dev/test"])
            await client.create(held)
            await client.create(build_config_map("b", namespace="team"))
            await client.delete(NAMESPACES, "team")
            dying = await client.get(NAMESPACES, "team")
            assert dying["status"]["phase"] == "Terminating"
            with pytest.raises(ApiError, match="because it is being terminated") as caught:
                await client.create(build_config_map("c", namespace="team"))
            assert caught.value.status == 403
            body = {"metadata": {"finalizers": None}}
            await client.patch(CONFIG_MAPS, "a", namespace="team", body=body)
            with pytest.raises(NotFoundError):
                await client.get(NAMESPACES, "team")
            assert not (await client.list(CONFIG_MAPS, namespace="team")).items

        self.run(tmp_path, test)

    def test_watch_starts_with_what_exists(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            await client.create(build_config_map("a"))
            await client.create(build_config_map("b"))
            async with aclosing(client.watch(CONFIG_MAPS)) as events:  # type: ignore[type-var]  # an async generator
                seen = [await anext(events), await anext(events)]
                await client.create(build_config_map("c"))
                seen.append(await anext(events))
            assert [_brief(event) for event in seen] == [
                (EventType.ADDED, "a"),
                (EventType.ADDED, "b"),
                (EventType.ADDED, "c"),
            ]

        self.run(tmp_path, test)

    def test_watch_from_a_list_misses_and_repeats_nothing(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            created = await client.create(build_config_map("a"))
            listed = await client.list(CONFIG_MAPS)
            await client.replace({**created, "data": {}})
            await client.delete(CONFIG_MAPS, "a", namespace="default")
            await client.create(build_config_map("b"))
            seen = await _take(client, 3, resource_version=listed.resource_version)
            assert [_brief(event) for event in seen] == [
                (EventType.MODIFIED, "a"),
                (EventType.DELETED, "a"),
                (EventType.ADDED, "b"),
            ]
            versions = [int(event.object["metadata"]["resourceVersion"]) for event in seen]
            assert versions == sorted(set(versions))
            assert versions[0] > int(listed.resource_version)

        self.run(tmp_path, test)

    def test_watch_of_a_selection_sees_objects_enter_and_leave(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            listed = await client.list(CONFIG_MAPS)
            await client.create(build_config_map("a"))
            for color in ("red", "red2", "blue"):
                body = {"metadata": {"labels": {"color": color}}}
                await client.patch(CONFIG_MAPS, "a", namespace="default", body=body)
            await client.delete(CONFIG_MAPS, "a", namespace="default")
            await client.create(build_config_map("end", labels={"color": "red"}))
            seen = await _take(
                client,
                4,
                resource_version=listed.resource_version,
                label_selector="color in (red,red2)",
            )
            assert [_brief(event) for event in seen] == [
                (EventType.ADDED, "a"),
                (EventType.MODIFIED, "a"),
                (EventType.DELETED, "a"),
                (EventType.ADDED, "end"),
            ]

        self.run(tmp_path, test)

    def test_watch_from_a_forgotten_version_expires(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            listed = await client.list(CONFIG_MAPS)
            for index in range(5):
                await client.create(build_config_map(f"a{index}"))
            with pytest.raises(ExpiredError, match="too old resource version"):
                await _take(client, 1, resource_version=listed.resource_version)

        self.run(tmp_path, test, log_config=EventLogConfig(max_events=3))

    def test_watchers_see_every_event_of_a_busy_time(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            listed = await client.list(CONFIG_MAPS)

            async def watch() -> list[str]:
                seen = await _take(client, 300, resource_version=listed.resource_version)
                return [event.object["metadata"]["name"] for event in seen]

            watchers = [asyncio.create_task(watch()) for _ in range(3)]
            names = [f"a{index}" for index in range(300)]
            for start in range(0, 300, 30):
                batch = names[start : start + 30]
                await asyncio.gather(*(client.create(build_config_map(name)) for name in batch))
            for watcher in watchers:
                assert sorted(await watcher) == sorted(names)

        self.run(tmp_path, test)

    def test_concurrent_writers_lose_no_update(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            await client.create({**build_config_map("a"), "data": {"count": "0"}})

            async def increment() -> None:
                while True:
                    stored = await client.get(CONFIG_MAPS, "a", namespace="default")
                    stored["data"]["count"] = str(int(stored["data"]["count"]) + 1)
                    try:
                        await client.replace(stored)
                    except ConflictError:
                        continue
                    return

            await asyncio.gather(*(increment() for _ in range(10)))
            stored = await client.get(CONFIG_MAPS, "a", namespace="default")
            assert stored["data"]["count"] == "10"

        self.run(tmp_path, test)

    def test_log_is_what_the_container_wrote(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            pod = await client.create(build_pod("a"))
            with pytest.raises(ApiError, match='container "main" in pod "a" is waiting to start'):
                await client.read_log("a", namespace="default")
            pod["status"] = {
                "phase": "Running",
                "containerStatuses": [
                    {
                        "name": "main",
                        "image": "busybox",
                        "imageID": "",
                        "ready": True,
                        "restartCount": 0,
                        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
                    }
                ],
            }
            await client.replace_status(pod)
            folder = tmp_path / "pods" / pod["metadata"]["uid"] / "logs" / "main"
            folder.mkdir(parents=True)
            (folder / "0.log").write_text("epoch=1\naccuracy=0.5\n")
            assert await client.read_log("a", namespace="default") == "epoch=1\naccuracy=0.5\n"
            with pytest.raises(ApiError, match="container other is not valid for pod a"):
                await client.read_log("a", namespace="default", container="other")

        self.run(tmp_path, test)


def _brief(event: WatchEvent) -> tuple[EventType, str]:
    return event.type, event.object["metadata"]["name"]


async def _take(
    client: Client, count: int, *, resource_version: str = "", label_selector: str = ""
) -> list[WatchEvent]:
    seen = []
    events = client.watch(
        CONFIG_MAPS, resource_version=resource_version, label_selector=label_selector
    )
    async with aclosing(events):  # type: ignore[type-var]  # an async generator
        async for event in events:
            seen.append(event)
            if len(seen) == count:
                break
    return seen
