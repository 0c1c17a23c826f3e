"""How a client deletes objects, and what goes with them. A part of the clients' contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubeloop.errors import (
    ApiError,
    ConflictError,
    InvalidError,
    NotFoundError,
)
from kubeloop.local.api.resources import CONFIG_MAPS, NAMESPACES, PODS, PYTORCH_JOBS
from kubeloop.local.client import (
    Client,
    Manifest,
    Propagation,
)
from kubeloop.testing.client_harness import ClientHarness
from kubeloop.testing.manifests import build_config_map, build_job, build_pod, own


class DeletingContract(ClientHarness):
    """Tests of one part of the contract."""

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
