"""How a client creates and replaces objects. A part of the clients' contract."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kubeloop.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidError,
    NotFoundError,
)
from kubeloop.local.api.resources import CONFIG_MAPS, PYTORCH_JOBS
from kubeloop.local.client import (
    Client,
)
from kubeloop.testing.client_harness import ClientHarness
from kubeloop.testing.manifests import build_config_map, build_job


class WritingContract(ClientHarness):
    """Tests of one part of the contract."""

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
