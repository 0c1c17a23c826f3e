"""How a client patches objects. A part of the clients' contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubeloop.errors import (
    ApiError,
    ConflictError,
    InvalidError,
)
from kubeloop.local.api.resources import CONFIG_MAPS, PODS, PYTORCH_JOBS
from kubeloop.local.client import (
    Client,
    PatchType,
)
from kubeloop.testing.client_harness import ClientHarness
from kubeloop.testing.manifests import build_config_map, build_job, build_pod


class PatchingContract(ClientHarness):
    """Tests of one part of the contract."""

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
