"""What every object store must do; subclass `StoreContract` and give it a `store` fixture."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from kubeloop.datasets.stores import ObjectStore
from kubeloop.errors import InputError

_BIG = 20 << 20
"""More than one part of an upload."""


class StoreContract:
    """Tests of `ObjectStore`; the fixture gives an empty store."""

    @pytest.fixture
    def store(self) -> ObjectStore:
        """Return an empty store."""
        raise NotImplementedError

    def test_what_is_written_is_read(self, store: ObjectStore) -> None:
        store.write("a/b.bin", b"\x00\xffdata")

        assert store.read("a/b.bin") == b"\x00\xffdata"

    def test_writing_again_replaces(self, store: ObjectStore) -> None:
        store.write("a", b"a longer first version")
        store.write("a", b"second")

        assert store.read("a") == b"second"

    def test_an_empty_object_exists(self, store: ObjectStore) -> None:
        store.write("empty", b"")

        assert store.exists("empty")
        assert store.read("empty") == b""

    def test_a_missing_object_is_the_users_to_put_right(
        self, store: ObjectStore, tmp_path: Path
    ) -> None:
        with pytest.raises(InputError, match="there is none"):
            store.read("missing")
        with pytest.raises(InputError, match="there is none"):
            store.download("missing", tmp_path / "copy")
        assert not store.exists("missing")

    def test_deleting_is_idempotent(self, store: ObjectStore) -> None:
        store.write("a", b"1")

        store.delete("a")
        store.delete("a")

        assert not store.exists("a")

    def test_clearing_removes_all_and_is_idempotent(self, store: ObjectStore) -> None:
        store.write("a", b"1")
        store.write("b/c", b"2")

        store.clear()
        store.clear()

        assert list(store.list()) == []
        store.write("a", b"3")
        assert store.read("a") == b"3"

    def test_nothing_lies_below_an_object(self, store: ObjectStore) -> None:
        store.write("a", b"1")

        assert list(store.list("a")) == []
        assert list(store.list_folders("a")) == []

    def test_keys_are_listed_below_a_folder_in_order(self, store: ObjectStore) -> None:
        for key in ("b/2", "b/10", "bb/1", "a"):
            store.write(key, b"x")

        assert list(store.list("b")) == ["b/10", "b/2"]
        assert list(store.list()) == ["a", "b/10", "b/2", "bb/1"]
        assert list(store.list("nothing")) == []

    def test_folders_are_listed_in_order(self, store: ObjectStore) -> None:
        for key in ("b/2", "b/deep/1", "a/1", "c"):
            store.write(key, b"x")

        assert list(store.list_folders()) == ["a", "b"]
        assert list(store.list_folders("b")) == ["deep"]
        assert list(store.list_folders("nothing")) == []

    def test_the_size_of_an_object_is_known(self, store: ObjectStore) -> None:
        store.write("a", b"12345")

        assert store.size("a") == 5
        with pytest.raises(InputError, match="there is none"):
            store.size("missing")

    def test_a_staged_file_is_adopted(self, store: ObjectStore) -> None:
        staged = store.staging_folder() / ".staging-file"
        staged.write_bytes(b"data")
        assert list(store.list()) == []

        store.adopt("folder/a", staged)

        assert store.read("folder/a") == b"data"
        assert not staged.exists()

    @pytest.mark.parametrize("num_bytes", [0, 10, _BIG])
    def test_files_go_up_and_come_down_unchanged(
        self, store: ObjectStore, tmp_path: Path, num_bytes: int
    ) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_bytes(bytes(range(256)) * (num_bytes // 256) + b"x" * (num_bytes % 256))

        store.upload("folder/file", source)
        store.download("folder/file", target)

        assert target.read_bytes() == source.read_bytes()
        assert store.read("folder/file") == source.read_bytes()

    @pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/../b", ".", "a\\b", "a\0"])
    def test_keys_stay_inside_the_store(self, store: ObjectStore, key: str) -> None:
        with pytest.raises(InputError, match="plain names"):
            store.write(key, b"x")
        with pytest.raises(InputError, match="plain names"):
            store.read(key)

    def test_odd_names_are_names(self, store: ObjectStore) -> None:
        for key in ("a b", "ä/ö", "100%", "a+b", "..a", "x#y?z=1&q"):
            store.write(key, key.encode())

            assert store.read(key) == key.encode()

    def test_readers_never_see_part_of_an_object(self, store: ObjectStore) -> None:
        versions = [bytes([number]) * 300_000 for number in range(2)]
        store.write("shared", versions[0])
        seen: set[bytes] = set()
        done = threading.Event()

        def read() -> None:
            while not done.is_set():
                seen.add(store.read("shared"))

        reader = threading.Thread(target=read)
        reader.start()
        for number in range(20):
            store.write("shared", versions[number % 2])
        done.set()
        reader.join()

        assert seen <= set(versions)

    def test_uris_name_objects_below_the_root(self, store: ObjectStore) -> None:
        assert store.uri_of("a/b") == f"{store.uri}/a/b"
