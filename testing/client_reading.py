"""What a client reads, and that what it reads is its own. A part of the clients' contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubeloop.errors import (
    ApiError,
    NotFoundError,
)
from kubeloop.local.api.resources import CONFIG_MAPS, PODS, PYTORCH_JOBS
from kubeloop.local.client import Client, ObjectChanges
from kubeloop.testing.client_harness import ClientHarness
from kubeloop.testing.manifests import build_config_map, build_pod


class ReadingContract(ClientHarness):
    """Tests of one part of the contract."""

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

    def test_changes_leave_out_what_is_known(self, tmp_path: Path) -> None:
        async def test(client: Client) -> None:
            labels = {"tier": "web"}
            for name in ("a", "b"):
                await client.create(build_config_map(name, labels=labels))
            await client.create(build_config_map("c"))

            async def read(known: dict[str, str]) -> ObjectChanges:
                return await client.list_changes(
                    CONFIG_MAPS, known=known, namespace="default", label_selector="tier=web"
                )

            first = await read({})
            listed = await client.list(CONFIG_MAPS, namespace="default", label_selector="tier=web")
            stored = listed.items
            assert first.changed == stored
            assert list(first.versions.items()) == [
                (item["metadata"]["uid"], item["metadata"]["resourceVersion"]) for item in stored
            ]
            assert (await read(first.versions)).changed == []

            await client.replace({**stored[1], "data": {"key": "new"}})
            await client.delete(CONFIG_MAPS, "a", namespace="default")
            second = await read(first.versions)
            assert [item["data"] for item in second.changed] == [{"key": "new"}]
            assert list(second.versions) == [stored[1]["metadata"]["uid"]]

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
