"""Datasets on the plane: a source in parts, a table of texts, and what a run still uses."""

import shutil
from collections.abc import Iterator

import pytest

from kubeloop.pipelines.packages import COMPILED
from kubeloop.testing.laptop import Laptop

pytestmark = [pytest.mark.loop, pytest.mark.pinned]
IN_PARTS = COMPILED / "ingest_in_parts.yaml"


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    with Laptop(tmp_path_factory.mktemp("datasets")) as laptop:
        laptop.up()
        yield laptop


def test_parts_of_a_source_become_one_version(laptop: Laptop) -> None:
    done = laptop.command.call(
        *("run", str(IN_PARTS), "-p", f"source={laptop.images}", "-p", "name=images"),
        *("-p", "numbers=[0, 1, 2]", "-p", "count=3"),
    )
    assert done.code == 0, done

    shown = laptop.command.call("datasets", "show", "images", "-o", "json").json
    assert shown["num_examples"] == 36
    assert shown["labels"] == ["a", "b", "c"]
    assert len(laptop.command.call("datasets", "log", "images", "-o", "json").json) == 1
    assert laptop.command.call("datasets", "verify", "images").code == 0


def test_a_version_that_no_run_uses_any_more_is_deleted_and_its_space_freed(
    laptop: Laptop,
) -> None:
    source = laptop.folder / "texts.csv"
    rows = [f"text number {number},{'ab'[number % 2]}\n" for number in range(100)]
    source.write_text("text,label\n" + "".join(rows))
    arguments = ("--name", "texts", "--kind", "text_classification", "-o", "json")
    made = laptop.command.call("datasets", "ingest", str(source), *arguments).json
    assert made["is_new"]

    deleted = laptop.command.call("datasets", "delete", "texts", "--yes")
    freed = laptop.command.call("datasets", "gc", "images", "-o", "json").json

    assert deleted.code == 0, deleted
    assert laptop.command.call("datasets", "show", "texts").code == 2
    assert freed["num_shards"] == 0


def test_a_part_that_fails_ends_the_run_without_a_version(laptop: Laptop) -> None:
    source = laptop.folder / "broken"
    shutil.copytree(laptop.images, source)
    next(source.rglob("*.png")).write_bytes(b"no image")
    arguments = ("-p", f"source={source}", "-p", "name=broken", "-p", "numbers=[0, 1]")

    failed = laptop.command.call("run", str(IN_PARTS), *arguments, "-p", "count=2")

    assert failed.code == 1
    assert "cannot be read" in failed.err
    assert laptop.command.call("datasets", "show", "broken").code == 2
