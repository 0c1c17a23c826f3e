import re
import resource
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kubeloop.datasets import (
    Commit,
    IngestConfig,
    ScanOptions,
    SplitConfig,
    ingest,
    open_dataset,
    open_store,
    read_commit,
    snapshots,
)
from kubeloop.datasets.commits import publish
from kubeloop.datasets.history import (
    add_tag,
    list_datasets,
    open_named,
    read_log,
    remove_tag,
    resolve,
    select,
)
from kubeloop.datasets.housekeeping import (
    collect_garbage,
    delete_commit,
    delete_dataset,
    diff,
)
from kubeloop.datasets.images import DEFAULT_MAX_PIXELS
from kubeloop.datasets.leases import (
    LEASE_SECONDS,
    TURN_SECONDS,
    collecting,
    ingesting,
    taking_turns,
)
from kubeloop.datasets.snapshots import take_snapshot
from kubeloop.errors import InputError, IntegrityError, PermanentError, TransientError
from kubeloop.testing.image_folders import write_image_folder

Make = Callable[..., Commit]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_image_folder(tmp_path / "source", {"cat": 40, "dog": 40}, grey=False)


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
def make(source: Path, store: str) -> Make:
    """Commit the source; each commit is a minute later than the one before."""
    minutes = iter(range(60))

    def run(message: str = "", **settings: object) -> Commit:
        config = IngestConfig(
            **{"name": "pets", "source": str(source), "store": store, "message": message} | settings  # type: ignore[arg-type]  # of several types
        )
        return ingest(config, clock=lambda: datetime(2026, 1, 1, 0, next(minutes), tzinfo=UTC))

    return run


def shards(commit: Commit) -> set[str]:
    return {shard.sha256 for shard in commit.manifest.shards}


def paths(commit: Commit) -> list[str]:
    dataset = open_dataset(commit.uri)
    return sorted(row.path for split in dataset.splits for row in dataset.split(split))


def test_a_new_label_writes_only_what_is_new(source: Path, make: Make) -> None:
    first = make()
    write_image_folder(source, {"emu": 40}, grey=False)

    second = make()

    assert shards(first) < shards(second)
    assert second.record.parent == first.version_hash


def test_the_log_tells_the_newest_first(source: Path, make: Make, store: str) -> None:
    first = make("first")
    write_image_folder(source, {"emu": 8})
    second = make("second")
    dataset = open_named(store, "pets")
    add_tag(dataset, first.version_hash, "golden")

    log = read_log(dataset)

    assert [(e.version_hash, e.record.message, e.tags, e.is_latest) for e in log] == [
        (second.version_hash, "second", (), True),
        (first.version_hash, "first", ("golden",), False),
    ]
    assert list_datasets(store) == ["pets"]


def test_data_put_back_is_the_newest_again(source: Path, make: Make, store: str) -> None:
    first = make()
    (source / "cat" / "000.png").rename(source / "cat" / "moved.png")
    make()
    (source / "cat" / "moved.png").rename(source / "cat" / "000.png")

    again = make()

    assert (again.version_hash, again.is_new) == (first.version_hash, False)
    assert resolve(store, "pets").version_hash == first.version_hash


def test_versions_are_found_by_what_people_write(source: Path, make: Make, store: str) -> None:
    first = make()
    write_image_folder(source, {"emu": 8})
    second = make()
    dataset = open_named(store, "pets")
    add_tag(dataset, first.version_hash, "golden")

    assert resolve(store, "pets") == second
    assert resolve(store, "pets@latest") == second
    assert resolve(store, "pets@golden") == first
    assert resolve(store, f"pets@{first.version_hash[:8]}") == first
    assert resolve(store, first.uri) == first
    assert select(store, ["pets"], tag="golden") == [first]
    remove_tag(dataset, first.version_hash, "golden")
    for reference, message in (
        ("pets@golden", "'golden' of dataset 'pets' does not exist"),
        ("pets@ab", "too short for a version hash"),
        ("cars", "No dataset 'cars' in .*; there are: pets"),
    ):
        with pytest.raises(InputError, match=message):
            resolve(store, reference)
    for tag in ("latest", "abcdef12", "a b", "../x"):
        with pytest.raises(InputError, match="must be at most 63 letters"):
            add_tag(dataset, first.version_hash, tag)


def test_a_difference_is_told_by_example(source: Path, make: Make) -> None:
    first = make()
    (source / "cat" / "000.png").unlink()
    write_image_folder(source, {"emu": 40}, grey=False)
    second = make()

    change = diff(first, second)

    assert (change.added_labels, change.removed_labels) == (("emu",), ())
    added = sum(split.added.get("emu", 0) for split in change.splits.values())
    assert added == 40
    assert change.num_new_bytes > 0
    assert diff(second, second).splits == {}


def test_a_snapshot_of_a_state_and_its_successor_is_the_successor(source: Path, make: Make) -> None:
    first = make()
    write_image_folder(source, {"emu": 8})
    second = make()

    assert take_snapshot([first, second]) == second
    assert take_snapshot([second, first]) == second


def test_a_snapshot_depends_on_content_alone(source: Path, make: Make, tmp_path: Path) -> None:
    other = write_image_folder(tmp_path / "more", {"emu": 30, "fox": 30})
    snapshots = []
    for order in (1, -1):
        store = str(tmp_path / f"store{order}")
        sources = [str(source), str(other)][::order]
        commits = [make(f"{order}", store=store, source=uri) for uri in sources]
        snapshots.append(take_snapshot(commits, labels=["cat", "emu"], message=f"{order}"))

    assert len({Path(snapshot.uri).read_bytes() for snapshot in snapshots}) == 1
    assert snapshots[0].labels == ("cat", "emu")
    assert all(path.split("/")[0] in ("cat", "emu") for path in paths(snapshots[0]))
    assert len(paths(snapshots[0])) == 70


def test_a_snapshot_may_keep_one_split(make: Make) -> None:
    made = make()

    snapshot = take_snapshot([made], splits=["test"])

    assert open_dataset(snapshot.uri).splits == ("test",)
    assert snapshot.statistics["splits"]["test"] == made.statistics["splits"]["test"]
    with pytest.raises(InputError, match="no label 'cow'; they have cat, dog"):
        take_snapshot([made], labels=["cow"])
    with pytest.raises(InputError, match="no split 'dev'"):
        take_snapshot([made], splits=["dev"])


def test_extending_adds_a_label_and_doubles_nothing(
    source: Path, make: Make, tmp_path: Path
) -> None:
    first = make()
    more = write_image_folder(tmp_path / "more", {"emu": 20})
    (more / "cat").mkdir()
    (more / "cat" / "again.png").write_bytes((source / "cat" / "003.png").read_bytes())

    both = make(source=str(more), extend=True)

    assert both.statistics["labels"] == {"cat": 40, "dog": 40, "emu": 20}
    assert shards(first) < shards(both)
    assert not make(source=str(more), extend=True).is_new


def test_extending_keeps_images_as_big_as_were_allowed(
    source: Path, make: Make, tmp_path: Path
) -> None:
    splits = SplitConfig(train=1, validation=0, test=0)
    make(splits=splits)
    more = write_image_folder(tmp_path / "more", {"emu": 3})
    Image.new("1", (DEFAULT_MAX_PIXELS + 1, 1)).save(more / "emu" / "wide.png")
    (more / "cat").mkdir()
    (more / "cat" / "again.png").write_bytes((source / "cat" / "003.png").read_bytes())
    options = ScanOptions(max_pixels=2 * DEFAULT_MAX_PIXELS)

    both = make(source=str(more), extend=True, splits=splits, scan=options)

    assert both.statistics["labels"] == {"cat": 40, "dog": 40, "emu": 4}


def test_deleting_and_collecting_frees_what_nothing_uses(
    source: Path, make: Make, store: str
) -> None:
    first = make()
    write_image_folder(source, {"emu": 40}, grey=False)
    second = make()
    dataset = open_named(store, "pets")
    add_tag(dataset, second.version_hash, "golden")
    own = shards(second) - shards(first)

    delete_commit(second)
    planned = collect_garbage(dataset, dry_run=True)
    freed = collect_garbage(dataset)

    assert planned.keys == freed.keys
    assert freed.num_shards == len(own)
    assert resolve(store, "pets") == first
    assert len(paths(first)) == 80
    with pytest.raises(InputError, match="there is none"):
        read_commit(second.uri)
    delete_dataset(dataset)
    assert list_datasets(store) == []


def test_a_snapshot_keeps_its_shards(source: Path, make: Make, store: str) -> None:
    snapshot = take_snapshot([make()], labels=["cat"])
    delete_commit(resolve(store, "pets"))

    collect_garbage(open_store(f"{store}/pets"))

    assert len(paths(snapshot)) == 40


def test_garbage_is_not_collected_beside_an_ingestion(make: Make, store: str) -> None:
    make()
    dataset = open_named(store, "pets")
    now = 1000.0

    with ingesting(dataset, now=lambda: now):
        with pytest.raises(TransientError, match=r"An ingestion into .* is running"):
            collect_garbage(dataset, now=lambda: now)
        # The lease of a process that died runs out.
        collect_garbage(dataset, now=lambda: now + LEASE_SECONDS)

    assert not list(dataset.list("leases"))


def test_an_ingestion_waits_for_a_collection(make: Make, store: str) -> None:
    make()
    dataset = open_named(store, "pets")
    collection = collecting(dataset)
    collection.__enter__()
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            collection.__exit__(None, None, None)

    with ingesting(dataset, sleep=sleep):
        pass

    assert len(waits) == 3


def test_writers_at_once_all_succeed(make: Make, source: Path, store: str) -> None:
    sources = [write_image_folder(source.parent / f"s{n}", {"a": 5 + n, "b": 9}) for n in range(4)]
    made: list[Commit] = []
    threads = [
        threading.Thread(target=lambda uri=uri: made.append(make(source=str(uri))))
        for uri in [*sources, sources[0]]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({commit.version_hash for commit in made}) == 4
    assert len(read_log(open_named(store, "pets"))) == 4
    assert all(paths(commit) for commit in made)


def test_additions_at_once_are_all_in_the_newest(make: Make, source: Path, store: str) -> None:
    make()
    sources = [
        write_image_folder(source.parent / f"more{n}", {f"new{n}": 8, "cat": 2}) for n in range(4)
    ]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda uri: make(source=str(uri), extend=True), sources))

    newest = resolve(store, "pets")

    assert newest.labels == ("cat", "dog", "new0", "new1", "new2", "new3")
    assert len(read_log(open_named(store, "pets"))) == 5
    assert not list(open_named(store, "pets").list("leases"))


def test_those_who_commit_take_turns(make: Make, store: str) -> None:
    make()
    dataset = open_named(store, "pets")
    first = taking_turns(dataset)
    first.__enter__()
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            first.__exit__(None, None, None)

    with taking_turns(dataset, sleep=sleep):
        assert len(waits) == 3


@pytest.mark.parametrize(
    ("hold", "wait", "said"),
    [
        (taking_turns, taking_turns, "another process makes or removes a commit .* after 60 s"),
        (collecting, ingesting, "a garbage collection .* is running; giving up after 600 s"),
    ],
)
def test_who_waits_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, hold: Any, wait: Any, said: str
) -> None:
    dataset = open_store(str(tmp_path))
    held = hold(dataset)
    held.__enter__()
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if sum(waits) > 5:
            held.__exit__(None, None, None)

    with wait(dataset, sleep=sleep):
        pass

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert re.search(f"Waiting: {said}", caplog.text)


def test_the_turn_of_a_process_that_died_runs_out(make: Make, store: str) -> None:
    make()
    dataset = open_named(store, "pets")
    dataset.write("leases/turn-0.json", b'{"renewed_at": 1000}')

    with taking_turns(dataset, now=lambda: 1000 + TURN_SECONDS):
        pass
    make("again", source=str(write_image_folder(Path(store).parent / "x", {"a": 9, "b": 9})))
    collect_garbage(dataset)

    assert not list(dataset.list("leases"))


def test_a_snapshot_is_not_taken_beside_a_collection(
    make: Make, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make()
    dataset = open_named(store, "pets")
    found: list[str] = []

    def collect_first(*arguments: Any, **settings: Any) -> Commit:
        with pytest.raises(TransientError, match=r"An ingestion into .* is running"):
            found.extend(collect_garbage(dataset).keys)
        return publish(*arguments, **settings)

    monkeypatch.setattr(snapshots, "publish", collect_first)
    taken = take_snapshot([made], labels=["cat"])

    assert found == []
    assert len(paths(taken)) == 40


def test_a_snapshot_of_a_deleted_commit_is_refused(make: Make, store: str) -> None:
    made = make()
    delete_commit(made)

    with pytest.raises(InputError, match=r"has no commits/.*\.json; was it deleted"):
        take_snapshot([made], labels=["cat"])


def test_a_folder_that_cannot_be_listed_is_not_taken_for_empty(make: Make, store: str) -> None:
    """Else all shards would be garbage."""
    made = make()
    commits = Path(store) / "pets" / "commits"
    commits.rename(commits.with_name("elsewhere"))
    commits.symlink_to(commits)

    with pytest.raises(PermanentError, match=r"Failed to list object .*commits"):
        collect_garbage(open_named(store, "pets"))

    commits.unlink()
    commits.with_name("elsewhere").rename(commits)
    assert len(paths(made)) == 80


@pytest.mark.parametrize("name", ["head.json", "records/*.json"])
def test_a_damaged_object_is_said(make: Make, store: str, name: str) -> None:
    make()
    path = next((Path(store) / "pets").glob(name))
    path.write_text('{"version_h')

    with pytest.raises(IntegrityError, match="damaged"):
        resolve(store, "pets")
    with pytest.raises(IntegrityError, match="damaged"):
        read_log(open_named(store, "pets"))


def test_what_a_dataset_has_is_counted_once_however_often_a_source_repeats_it(
    tmp_path: Path, ingest_text: Make
) -> None:
    rows = [f"text {n},{'ab'[n % 2]}" for n in range(200)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *rows]))
    ingest_text(tmp_path / "rows.csv")
    more = [*rows[:50], rows[0], rows[0], "text 1,a", *(f"more {n},c" for n in range(30))]
    (tmp_path / "more.csv").write_text("\n".join(["text,label", *more]))

    both = ingest_text(tmp_path / "more.csv", extend=True)

    dataset = open_dataset(both.uri)
    read = Counter(
        f"{row.text},{both.labels[row.class_index]}"
        for split in dataset.splits
        for row in dataset.split(split)
    )
    extra = Counter([rows[0], rows[0], "text 1,a", *(f"more {n},c" for n in range(30))])
    assert read == Counter(rows) + extra


def test_a_full_disk_is_said_of_snapshots(tmp_path: Path, ingest_text: Make) -> None:
    lines = [f"text {n},{'ab'[n % 2]}" for n in range(3000)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *lines]))
    made = ingest_text(tmp_path / "rows.csv")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(PermanentError, match="Failed to take a snapshot: File too large"):
            take_snapshot([made], labels=["a"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert take_snapshot([made], labels=["a"]).num_examples == 1500


def test_labels_of_a_column_that_the_user_named_are_kept(tmp_path: Path, ingest_text: Make) -> None:
    lines = [f"{n},{'ab'[n % 2]}" for n in range(90)]
    (tmp_path / "rows.csv").write_text("\n".join(["n,species", *lines[:60]]))
    (tmp_path / "more.csv").write_text("\n".join(["n,species", *lines[40:]]))
    options: dict[str, Any] = {"kind": "tabular", "scan": ScanOptions(label_column="species")}
    first = ingest_text(tmp_path / "rows.csv", **options)

    both = ingest_text(tmp_path / "more.csv", extend=True, **options)
    taken = take_snapshot([first, both], labels=["a"])
    again = take_snapshot([taken], splits=["train"], labels=["a"])

    assert both.statistics["labels"] == {"a": 45, "b": 45}
    assert taken.statistics["labels"] == {"a": 45}
    assert again.labels == ("a",)


@pytest.mark.parametrize("kind", ["text_classification", "tabular"])
def test_a_column_like_that_of_splits_is_no_matter_when_a_dataset_is_extended(
    tmp_path: Path, ingest_text: Make, kind: str
) -> None:
    lines = [f"text {n},{'ab'[n % 2]},train,s{n % 3}" for n in range(90)]
    columns = "text,label,split,subset"
    (tmp_path / "rows.csv").write_text("\n".join([columns, *lines[:60]]))
    (tmp_path / "more.csv").write_text("\n".join([columns, *lines[40:]]))
    ingest_text(tmp_path / "rows.csv", kind=kind)

    both = ingest_text(tmp_path / "more.csv", extend=True, kind=kind)

    assert both.statistics["num_examples"] == {"train": 90}
    train = open_dataset(both.uri).split("train")
    assert {train.metadata(n)["subset"] for n in range(90)} == {"s0", "s1", "s2"}
