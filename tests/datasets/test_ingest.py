import json
import os
import resource
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kubeloop.datasets import (
    Commit,
    IngestConfig,
    Progress,
    ScanOptions,
    SplitConfig,
    ingest,
    open_store,
    read_commit,
)
from kubeloop.datasets.history import list_hashes
from kubeloop.errors import InputError, IntegrityError, PermanentError
from kubeloop.testing.image_folders import write_image_folder
from kubeloop.testing.s3_server import Fault, failing_proxy, s3_server

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_image_folder(tmp_path / "source", {"cat": 10, "dog": 20})


def commit(source: Path, store: Path | str, **settings: Any) -> Commit:
    config = IngestConfig(name="pets", source=str(source), store=str(store), **settings)
    return ingest(config, clock=lambda: NOW)


def files_below(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_commit_describes_its_data(source: Path, tmp_path: Path) -> None:
    made = commit(source, tmp_path / "store", message="first")

    assert made.uri == f"{tmp_path}/store/pets/commits/{made.version_hash}.json"
    assert (made.name, made.labels, made.num_examples) == ("pets", ("cat", "dog"), 30)
    assert (made.source_uri, made.message) == (str(source), "first")
    assert (made.created_at, made.is_new) == ("2026-01-02T03:04:05+00:00", True)
    assert made.statistics["labels"] == {"cat": 10, "dog": 20}
    assert made.statistics["splits"] == {
        "train": {"cat": 6, "dog": 14},
        "validation": {"cat": 2, "dog": 3},
        "test": {"cat": 2, "dog": 3},
    }
    assert made.statistics["image_classification"]["format"]["most_common"] == {"PNG": 30}
    width = made.statistics["image_classification"]["width"]
    assert (width["min"], width["max"], width["mean"], width["std"]) == (8, 8, 8, 0)
    assert made.statistics["image_classification"]["color"]["most_common"] == {"grey": 30}
    assert (made.record.parent, len(made.manifest.sample)) == ("", 10)


def test_a_commit_is_read_back_as_it_was_made(source: Path, tmp_path: Path) -> None:
    (source / "cat" / "notes.txt").write_text("not an image")
    made = commit(source, tmp_path / "store", message="first")

    assert read_commit(made.uri) == made


def test_the_same_content_has_the_same_hash_anywhere(source: Path, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(source, tmp_path / "elsewhere")
    for path in elsewhere.rglob("*"):
        os.utime(path, (1, 1))

    first = commit(source, tmp_path / "store", message="one")
    second = commit(elsewhere, tmp_path / "other-store", message="two")

    assert second.version_hash == first.version_hash
    assert Path(second.uri).read_bytes() == Path(first.uri).read_bytes()
    assert second.source_uri == str(elsewhere)


@pytest.mark.parametrize(
    "change",
    [
        lambda source: (source / "cat" / "000.png").rename(source / "cat" / "renamed.png"),
        lambda source: (source / "cat" / "000.png").unlink(),
        lambda source: shutil.move(source / "dog" / "000.png", source / "cat" / "dog.png"),
        lambda source: write_image_folder(source, {"emu": 3}),
    ],
)
def test_other_content_has_another_hash(source: Path, tmp_path: Path, change: Any) -> None:
    first = commit(source, tmp_path / "store")
    change(source)

    second = commit(source, tmp_path / "store")

    assert second.version_hash != first.version_hash
    assert second.source_digest != first.source_digest
    assert read_commit(first.uri) == first


def test_another_seed_splits_differently(source: Path, tmp_path: Path) -> None:
    first = commit(source, tmp_path / "store")
    second = commit(source, tmp_path / "store", splits=SplitConfig(seed=1))

    assert second.version_hash != first.version_hash
    assert second.source_digest == first.source_digest


def test_unchanged_data_is_recognised_and_adds_nothing(source: Path, tmp_path: Path) -> None:
    first = commit(source, tmp_path / "store")
    before = files_below(tmp_path / "store")
    stages: set[str] = set()
    config = IngestConfig(name="pets", source=str(source), store=str(tmp_path / "store"))

    again = ingest(config, on_progress=lambda progress: stages.add(progress.stage))

    assert (again.version_hash, again.is_new) == (first.version_hash, False)
    assert files_below(tmp_path / "store") == before
    assert stages == set()


def test_a_full_ingestion_finds_unchanged_data_by_its_content(source: Path, tmp_path: Path) -> None:
    first = commit(source, tmp_path / "store")
    shards = files_below(tmp_path / "store" / "pets" / "shards")

    again = commit(source, tmp_path / "store", full=True)

    assert (again.version_hash, again.is_new) == (first.version_hash, False)
    assert files_below(tmp_path / "store" / "pets" / "shards") == shards


def test_a_file_changed_under_its_old_size_and_time_is_seen(source: Path, tmp_path: Path) -> None:
    first = commit(source, tmp_path / "store")
    image = source / "cat" / "000.png"
    status = image.stat()
    other = write_image_folder(tmp_path / "other", {"x": 40}) / "x"
    same_size = next(p for p in other.iterdir() if p.stat().st_size == status.st_size)
    image.write_bytes(same_size.read_bytes())
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))

    assert commit(source, tmp_path / "store").version_hash != first.version_hash


def test_progress_counts_every_file_of_every_pass(source: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    config = IngestConfig(name="pets", source=str(source), store=str(tmp_path / "store"))

    ingest(config, on_progress=seen.append)

    assert [(p.stage, p.done, p.total) for p in seen] == [("scan", 30, 0), ("pack", 30, 30)]


def test_corrupt_images_are_refused_by_name(source: Path, tmp_path: Path) -> None:
    (source / "cat" / "003.png").write_bytes(b"not a png")
    whole = (source / "dog" / "007.png").read_bytes()
    (source / "dog" / "007.png").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(InputError, match="2 of 30 examples") as caught:
        commit(source, tmp_path / "store")

    assert "cat/003.png: not an image" in str(caught.value)
    assert "dog/007.png: damaged image" in str(caught.value)
    assert not (tmp_path / "store" / "pets" / "commits").exists()


def test_few_corrupt_images_are_left_out_where_allowed(source: Path, tmp_path: Path) -> None:
    (source / "cat" / "003.png").write_bytes(b"not a png")

    made = commit(source, tmp_path / "store", max_corrupt_fraction=0.04)

    assert (made.num_examples, made.num_rejected) == (29, 1)
    assert made.rejected[0].path == "cat/003.png"
    with pytest.raises(InputError, match=r"allow max_corrupt_fraction 0\.0333"):
        commit(source, tmp_path / "other", max_corrupt_fraction=0.03)


def test_images_with_too_many_pixels_count_as_corrupt(source: Path, tmp_path: Path) -> None:
    write_image_folder(source / "big", {"x": 1}, size=(100, 100))
    shutil.move(source / "big" / "x" / "000.png", source / "cat" / "big.png")
    shutil.rmtree(source / "big")

    with pytest.raises(InputError, match="100 x 100 pixels are more than the 1000 allowed"):
        commit(source, tmp_path / "store", scan=ScanOptions(max_pixels=1000))


def test_other_files_are_listed_as_rejected(source: Path, tmp_path: Path) -> None:
    (source / "README.md").write_text("about")
    (source / "cat" / "model.pkl").write_bytes(b"\x80\x04.")
    (source / "cat" / "nothing").write_bytes(b"")

    made = commit(source, tmp_path / "store")

    assert {entry.path: entry.reason for entry in made.rejected} == {
        "README.md": "not in the folder of a class",
        "cat/model.pkl": "not an image (.pkl extension)",
        "cat/nothing": "not an image (no extension)",
    }
    assert made.num_rejected == 3


def test_hidden_files_and_folders_are_ignored(source: Path, tmp_path: Path) -> None:
    plain = commit(source, tmp_path / "store")
    (source / ".DS_Store").write_bytes(b"x")
    (source / "cat" / "._000.png").write_bytes(b"x")
    write_image_folder(source / ".thumbnails", {"cat": 2})

    assert commit(source, tmp_path / "store").version_hash == plain.version_hash


def test_images_may_lie_deeper_in_a_class(source: Path, tmp_path: Path) -> None:
    (source / "cat" / "indoor").mkdir()
    (source / "cat" / "000.png").rename(source / "cat" / "indoor" / "000.PNG")

    made = commit(source, tmp_path / "store")

    assert made.statistics["labels"] == {"cat": 10, "dog": 20}


def test_numbered_classes_are_in_numeric_order(tmp_path: Path) -> None:
    source = write_image_folder(tmp_path / "source", {"10": 3, "9": 3, "a": 3, "0": 3})

    assert commit(source, tmp_path / "store").labels == ("0", "9", "10", "a")


def test_shards_are_cut_at_the_size_asked_for(source: Path, tmp_path: Path) -> None:
    write_image_folder(source, {"emu": 300}, size=(64, 64), grey=False)
    made = commit(source, tmp_path / "store", shard_bytes=1 << 17)

    shards = made.manifest.splits["train"]
    sizes = [shard.statistics.num_bytes for shard in shards]
    assert len(shards) > 10
    assert sum(shard.num_rows for shard in shards) == 242
    assert max(sizes) <= 2 << 17


def test_a_class_with_one_image_is_refused_by_name(source: Path, tmp_path: Path) -> None:
    write_image_folder(source, {"emu": 1})

    with pytest.raises(InputError, match="Class 'emu' has 1 distinct example"):
        commit(source, tmp_path / "store")
    assert not (tmp_path / "store" / "pets" / "commits").exists()


def test_copies_of_one_image_are_one_example_to_split(source: Path, tmp_path: Path) -> None:
    write_image_folder(source, {"emu": 1})
    shutil.copy(source / "emu" / "000.png", source / "emu" / "copy.png")

    with pytest.raises(InputError, match="Class 'emu' has 1 distinct example"):
        commit(source, tmp_path / "store")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda root: None, "does not exist"),
        (lambda root: root.write_text("x"), "has no class folders"),
        (lambda root: root.mkdir(), "is empty"),
        (lambda root: write_image_folder(root.parent, {"source": 3}), "has no class folders"),
        (lambda root: write_image_folder(root, {"cat": 3}), "has one class, 'cat'"),
    ],
)
def test_unusable_sources_are_refused(tmp_path: Path, build: Any, message: str) -> None:
    build(tmp_path / "source")

    with pytest.raises(InputError, match=message):
        commit(tmp_path / "source", tmp_path / "store")
    assert not files_below(tmp_path / "store")


def test_a_class_folder_without_images_is_refused(source: Path, tmp_path: Path) -> None:
    (source / "docs").mkdir()
    (source / "docs" / "readme.txt").write_text("x")

    with pytest.raises(InputError, match=r"Class folder 'docs' in .* holds no image"):
        commit(source, tmp_path / "store")


def test_a_source_that_changes_meanwhile_is_refused(source: Path, tmp_path: Path) -> None:
    def tamper(progress: Progress) -> None:
        if (progress.stage, progress.done) == ("scan", 30):
            shutil.copy(source / "dog" / "001.png", source / "dog" / "000.png")

    config = IngestConfig(name="pets", source=str(source), store=str(tmp_path / "store"))
    with pytest.raises(InputError, match=r"'dog/000\.png' in .* changed while it was ingested"):
        ingest(config, on_progress=tamper)


def test_a_store_inside_of_the_source_is_refused(source: Path) -> None:
    with pytest.raises(InputError, match="lies inside of the source"):
        commit(source, source / "store")


def test_an_interrupted_ingestion_is_invisible_and_repeatable(source: Path, tmp_path: Path) -> None:
    def interrupt(progress: Progress) -> None:
        if (progress.stage, progress.done) == ("pack", 30):
            raise KeyboardInterrupt

    config = IngestConfig(name="pets", source=str(source), store=str(tmp_path / "store"))
    with pytest.raises(KeyboardInterrupt):
        ingest(config, on_progress=interrupt)
    assert not (tmp_path / "store" / "pets" / "commits").exists()

    assert ingest(config).is_new


@pytest.mark.parametrize("num_bytes", [10_000, 100])
def test_a_full_disk_is_said_and_leaves_no_commit(
    source: Path, tmp_path: Path, num_bytes: int
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))  # shards, then noted rows
    try:
        with pytest.raises(PermanentError, match=r"File too large.* TMPDIR .*/store"):
            commit(source, tmp_path / "store")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert not [path for path in files_below(tmp_path / "store") if "leases" not in path]
    assert commit(source, tmp_path / "store").is_new


def test_a_commit_lost_from_the_store_is_made_again(source: Path, tmp_path: Path) -> None:
    first = commit(source, tmp_path / "store")
    Path(first.uri).unlink()

    assert commit(source, tmp_path / "store") == first


def test_a_changed_manifest_is_noticed(source: Path, tmp_path: Path) -> None:
    made = commit(source, tmp_path / "store")
    document = json.loads(Path(made.uri).read_text())
    document["labels"] = ["dog", "cat"]
    Path(made.uri).write_text(json.dumps(document))

    with pytest.raises(IntegrityError, match="differs from the hash that names it"):
        read_commit(made.uri)


def test_what_is_not_a_commit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is none"):
        read_commit(f"{tmp_path}/pets/commits/0.json")
    (tmp_path / "commits").mkdir()
    name = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"  # sha256 of {}
    (tmp_path / "commits" / f"{name}.json").write_text("{}")
    with pytest.raises(InputError, match="Not the manifest of a dataset commit"):
        read_commit(f"{tmp_path}/commits/{name}.json")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "My Pets"}, "Dataset name 'My Pets' must be"),
        ({"name": "../up"}, "Dataset name"),
        ({"max_corrupt_fraction": 1.0}, "max_corrupt_fraction must be from 0 to below 1"),
        ({"shard_bytes": 0}, "must be positive"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        IngestConfig(**({"name": "pets", "source": "/s", "store": "/t"} | settings))


def test_unknown_kinds_and_sources_list_the_known_ones(source: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="Unknown dataset kind 'sound'; known are: image_classification"
    ):
        commit(source, tmp_path / "store", kind="sound")
    config = IngestConfig(name="pets", source="ftp://host/x", store=str(tmp_path / "store"))
    with pytest.raises(InputError, match="Unknown source scheme 'ftp'"):
        ingest(config)


def test_a_commit_in_s3_is_that_of_a_folder(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = commit(source, tmp_path / "store")
    with s3_server("bucket") as endpoint:
        monkeypatch.setenv("S3_ENDPOINT", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_REGION", "us-east-1")

        remote = commit(source, "s3://bucket/datasets")

        assert remote.uri == f"s3://bucket/datasets/pets/commits/{local.version_hash}.json"
        assert read_commit(remote.uri) == remote
        assert not commit(source, "s3://bucket/datasets").is_new


@pytest.mark.parametrize("failing", ["shards/", "records/", "commits/"])
def test_a_store_that_fails_in_the_middle_shows_no_commit(
    source: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    full = Fault(status=507, code="XMinioStorageFull")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")

    def fail(method: str, path: str, _: int) -> Fault | None:
        return full if method == "PUT" and failing in path else None

    with s3_server("bucket") as endpoint:
        monkeypatch.setenv("S3_ENDPOINT", endpoint)
        before = commit(source, "s3://bucket/datasets")
        write_image_folder(source, {"emu": 20})
        with failing_proxy(endpoint, fail) as url:
            monkeypatch.setenv("S3_ENDPOINT", url)
            with pytest.raises(PermanentError, match=f"Failed to write .*/{failing}.*StorageFull"):
                commit(source, "s3://bucket/datasets")
        monkeypatch.setenv("S3_ENDPOINT", endpoint)

        dataset = open_store("s3://bucket/datasets/pets")
        assert list_hashes(dataset) == [before.version_hash]
        assert commit(source, "s3://bucket/datasets").is_new
