import csv
import datetime as dt
import json
import math
import sqlite3
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kubeloop.datasets import Commit, ScanOptions, SplitConfig, csv_tables, open_dataset, tables
from kubeloop.datasets.sources import sql
from kubeloop.errors import InputError, TransientError

Rows = list[tuple[str, str]]
Ingest = Callable[..., Commit]


def write_csv(path: Path, rows: Rows, *, header: bool = True) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        if header:
            writer.writerow(["text", "label"])
        writer.writerows(rows)
    return path


def write_json_lines(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps({"text": t, "label": n}) + "\n" for t, n in rows))
    return path


def write_parquet(path: Path, rows: Rows) -> Path:
    pq.write_table(pa.table({"text": [t for t, _ in rows], "label": [n for _, n in rows]}), path)
    return path


def write_sqlite(path: Path, rows: Rows) -> str:
    with sqlite3.connect(path) as database:
        database.execute("create table messages (text, label)")
        database.executemany("insert into messages values (?, ?)", rows)
    database.close()
    return f"sqlite:///{path}?query=SELECT text, label FROM messages"


def write_hugging_face(folder: Path, rows: Rows) -> Path:
    """A dataset as `save_to_disk` lays it out: a folder a split, labels as numbers."""
    names = sorted({label for _, label in rows})
    features = {
        "text": {"dtype": "string", "_type": "Value"},
        "label": {"names": names, "_type": "ClassLabel"},
    }
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    schema = pa.schema([("text", pa.string()), ("label", pa.int64())], metadata=metadata)
    for split, part in (("train", rows[50:]), ("test", rows[:50])):
        (folder / split).mkdir(parents=True)
        batch = pa.record_batch(
            {"text": [t for t, _ in part], "label": [names.index(n) for _, n in part]},
            schema=schema,
        )
        with (
            pa.OSFile(str(folder / split / "data-00000-of-00001.arrow"), "wb") as file,
            pa.ipc.new_stream(file, schema) as writer,
        ):
            writer.write_batch(batch)
        state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
        (folder / split / "state.json").write_text(json.dumps(state))
        (folder / split / "dataset_info.json").write_text("{}")
        (folder / split / "cache-123.arrow").write_bytes(b"left over")
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    return folder


def read_all(commit: Commit) -> list[tuple[str, str]]:
    dataset = open_dataset(commit.uri)
    return sorted(
        (text, dataset.labels[index])
        for split in dataset.splits
        for text, index in dataset.split(split)
    )


def test_the_same_rows_in_any_form_are_the_same_commit(
    tmp_path: Path, rows: Rows, ingest_text: Ingest
) -> None:
    sources = [
        write_csv(tmp_path / "rows.csv", rows),
        write_csv(tmp_path / "headless.csv", rows, header=False),
        write_json_lines(tmp_path / "rows.jsonl", rows),
        write_parquet(tmp_path / "rows.parquet", rows),
        write_sqlite(tmp_path / "rows.db", rows),
    ]

    commits = [ingest_text(source) for source in sources]

    assert len({commit.version_hash for commit in commits}) == 1
    assert read_all(commits[0]) == sorted(rows)


def test_what_was_guessed_is_said(tmp_path: Path, rows: Rows, ingest_text: Ingest) -> None:
    swapped = [(label, text) for text, label in rows]
    made = ingest_text(write_csv(tmp_path / "rows.csv", swapped, header=False))

    assert read_all(made) == sorted(rows)
    notes = " ".join(made.record.notes)
    assert "rows.csv seems to have no header" in notes
    assert "Text column: 'column_2', guessed as the one with the longest texts" in notes
    assert "Label column: 'column_1', guessed as the one whose values repeat most" in notes


def test_columns_may_be_named(tmp_path: Path, rows: Rows, ingest_text: Ingest) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text(
        "".join(json.dumps({"a": t, "text": "other", "b": n}) + "\n" for t, n in rows)
    )

    made = ingest_text(source, scan=ScanOptions(text_column="a", label_column="b"))

    assert read_all(made) == sorted(rows)
    assert open_dataset(made.uri).split("train").metadata(0) == {"original_text": "other"}


def test_files_named_after_splits_are_those_splits(
    tmp_path: Path, rows: Rows, ingest_text: Ingest
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write_csv(folder / "train.csv", rows[:120])
    write_csv(folder / "dev.csv", rows[120:])

    made = ingest_text(folder)

    assert made.statistics["num_examples"] == {"train": 120, "validation": 80}
    assert [text for text, _ in open_dataset(made.uri).split("train")] == [t for t, _ in rows[:120]]


def test_a_split_column_decides(tmp_path: Path, rows: Rows, ingest_text: Ingest) -> None:
    source = tmp_path / "rows.csv"
    lines = [f"t{number},{'ab'[number % 2]},{'train' if number < 30 else 'test'}\n"
             for number in range(40)]  # fmt: skip
    source.write_text("text,label,split\n" + "".join(lines))

    assert ingest_text(source).statistics["num_examples"] == {"train": 30, "test": 10}


def test_a_hugging_face_folder_is_read_with_its_class_names(
    tmp_path: Path, rows: Rows, ingest_text: Ingest
) -> None:
    made = ingest_text(write_hugging_face(tmp_path / "saved", rows))

    assert made.statistics["num_examples"] == {"train": 150, "test": 50}
    assert read_all(made) == sorted(rows)


def test_other_columns_are_kept_beside_the_text(tmp_path: Path, ingest_text: Ingest) -> None:
    source = tmp_path / "rows.csv"
    lines = [f"t{number},{'ab'[number % 2]},en\n" for number in range(40)]
    source.write_text("text,label,language\n" + "".join(lines))

    made = ingest_text(source)

    assert open_dataset(made.uri).split("train").metadata(3) == {"language": "en"}
    language = made.statistics["text_classification"]["language"]
    assert language["most_common"] == {"en": 40}


def test_a_table_is_described_by_column(tmp_path: Path, ingest_text: Ingest) -> None:
    source = tmp_path / "rows.csv"
    lines = [f"{number / 4},{'' if number % 4 else 'x'},{'ab'[number % 2]}\n" for number in
             range(80)]  # fmt: skip
    source.write_text("width,note,label\n" + "".join(lines))

    made = ingest_text(source, kind="tabular")

    assert made.manifest.schema == {"width": "double", "note": "string", "label": "string"}
    columns = made.statistics["tabular"]
    assert (columns["width"]["min"], columns["width"]["max"]) == (0, 19.75)
    assert (columns["note"]["count"], columns["note"]["missing"]) == (20, 60)
    assert made.labels == ("a", "b")
    assert open_dataset(made.uri).split("train")[0].keys() == {"width", "note", "label"}
    assert [finding.rule for finding in made.record.findings] == ["missing_values"]


def test_shards_are_plain_parquet(tmp_path: Path, rows: Rows, ingest_text: Ingest) -> None:
    made = ingest_text(write_csv(tmp_path / "rows.csv", rows))

    read = [
        row
        for shards in made.manifest.splits.values()
        for shard in shards
        for row in pq.read_table(tmp_path / "store" / "texts" / shard.key).to_pylist()
    ]
    assert sorted((row["text"], row["label"]) for row in read) == sorted(rows)


def test_a_large_table_is_cut_into_shards_that_stay(tmp_path: Path, ingest_text: Ingest) -> None:
    many = [(f"text {number} " + "x" * 300, "ab"[number % 2]) for number in range(6000)]
    first = ingest_text(write_csv(tmp_path / "rows.csv", many))
    grown = ingest_text(write_csv(tmp_path / "rows.csv", [*many, ("new", "c"), ("newer", "c")]))

    before, after = (
        {shard.sha256 for shard in commit.manifest.splits["train"]} for commit in (first, grown)
    )
    assert len(before) > 5
    assert len(before - after) <= 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", b"", "is empty"),
        ("header.csv", b"text,label\n", "has no rows"),
        ("latin.csv", "text,label\ncaf\xe9,a\n".encode("latin-1"), "is not utf-8; give its enc"),
        ("binary.csv", bytes(range(256)) * 9, "is not utf-8"),
        ("twice.csv", b"text,text\na,b\n", "names must be given and different"),
        ("ragged.csv", b"text,label\na,b\nc\nd,e\n", "1 of 3 examples .*ragged.csv, row 3: 1 col"),
        ("bad.jsonl", b'{"text": "a", "label": "b"}\nnope\n', "Line 2 of 'bad.jsonl' is not JSON"),
        ("list.jsonl", b"[1]\n", "Line 1 of 'list.jsonl' is not a JSON object"),
        ("mixed.jsonl", b'{"text": "a"}\n{"text": 1}\n', "do not have the types of those before"),
        ("deep.jsonl", b'{"text": ' + b"[" * 50_000 + b"}\n", "Line 1 of 'deep.jsonl' is not JSON"),
        ("half.jsonl", b'{"text": "\\ud800", "label": "b"}\n', "hold text that is no Unicode"),
        ("big.jsonl", b'{"text": "a", "n": 1' + b"0" * 30 + b"}\n", "a number beyond 64 bits"),
        ("open.csv", b'text,label\n"a,b\nc,d\n', r"has no rows \(open.csv, row 2: 1 columns"),
        ("cut.parquet", b"PAR1 and no more", "Failed to read 'cut.parquet'"),
        ("one.csv", b"text,label\na,b\nc,b\n", "has one class, 'b'"),
        ("words.txt", b"hello", "holds no table"),
    ],
)
def test_unusable_tables_are_refused(
    tmp_path: Path, ingest_text: Ingest, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(InputError, match=message):
        ingest_text(tmp_path / name)
    assert not (tmp_path / "store" / "texts" / "commits").exists()


def test_tables_of_other_columns_are_refused(
    tmp_path: Path, rows: Rows, ingest_text: Ingest
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write_csv(folder / "a.csv", rows)
    (folder / "b.csv").write_text("review,label,stars\nx,a,1\n")

    with pytest.raises(InputError, match=r"'b\.csv' has the columns .*'a\.csv' has"):
        ingest_text(folder)


def test_a_wrong_encoding_may_be_named(tmp_path: Path, ingest_text: Ingest) -> None:
    source = tmp_path / "latin.csv"
    text = "text,label\n" + "".join(f"caf\xe9 {n},{'ab'[n % 2]}\n" for n in range(20))
    source.write_bytes(text.encode("latin-1"))

    made = ingest_text(source, scan=ScanOptions(encoding="latin-1"))

    assert ("caf\xe9 3", "b") in read_all(made)


@pytest.mark.parametrize(
    ("uri", "error", "message"),
    [
        ("sqlite:///{folder}/none.db?table=t", InputError, "does not exist"),
        ("sqlite:///{folder}/some.db?table=t", InputError, "no such table: t"),
        ("sqlite:///{folder}/some.db", InputError, r"must end in \?query=SELECT"),
        ("postgresql://u:word@127.0.0.1:1/d?table=t", TransientError, "Failed to connect"),
    ],
)
def test_unusable_databases_are_refused(
    tmp_path: Path, ingest_text: Ingest, uri: str, error: type[Exception], message: str
) -> None:
    write_sqlite(tmp_path / "some.db", [])

    with pytest.raises(error, match=message) as caught:
        ingest_text(uri.format(folder=tmp_path))
    assert "word" not in str(caught.value)


def test_options_are_checked() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"header": "maybe"}, "header must be auto, yes or no"),
        ({"encoding": "klingon"}, "Unknown encoding 'klingon'"),
        ({"delimiter": "||"}, "must be one character"),
        ({"colour": 1}, "Unknown option 'colour'; there are: text_column"),
    ]
    for options, message in cases:
        with pytest.raises(InputError, match=message):
            ScanOptions.parse(options)


def test_options_have_their_type_wherever_they_come_from() -> None:
    texts = ScanOptions.parse({"text_column": "0", "max_pixels": "9", "decode_images": "true"})

    assert texts == ScanOptions(text_column="0", max_pixels=9, decode_images=True)
    assert ScanOptions.parse({"text_column": 0, "max_pixels": 9, "decode_images": True}) == texts
    for name, value in (("max_pixels", "many"), ("decode_images", 2), ("encoding", ["utf-8"])):
        with pytest.raises(InputError, match=f"Option '{name}' must be"):
            ScanOptions.parse({name: value})


def test_a_text_longer_than_other_readers_take_is_read(tmp_path: Path, ingest_text: Ingest) -> None:
    long = "word " * 60_000
    others = [(f"text {n}", "ab"[n % 2]) for n in range(4)]
    path = write_csv(tmp_path / "rows.csv", [(long, "a"), *others])

    made = ingest_text(path, splits=SplitConfig(train=1, validation=0, test=0))

    assert long in [example.text for example in open_dataset(made.uri).split("train")]


@pytest.mark.parametrize("num_rows_before", [200, 2000])
@pytest.mark.parametrize(
    "row", ["x" * (9 << 20) + ",a\n", '"never closed,a\n' + "y,b\n" * 3_000_000]
)
def test_a_row_longer_than_a_block_is_said(
    tmp_path: Path, ingest_text: Ingest, num_rows_before: int, row: str
) -> None:
    rows = [(f"text {n}", "ab"[n % 2]) for n in range(num_rows_before)]
    path = write_csv(tmp_path / "rows.csv", rows)
    path.write_text(path.read_text() + row)

    with pytest.raises(InputError, match="a row is longer than 4 MiB, or a quote is not closed"):
        ingest_text(path)


def test_a_file_of_one_line_has_no_rows(tmp_path: Path, ingest_text: Ingest) -> None:
    (tmp_path / "rows.csv").write_text("text,label")

    with pytest.raises(InputError, match="it has one line, so no rows"):
        ingest_text(tmp_path / "rows.csv")


def test_the_types_of_a_long_file_are_those_of_all_its_rows(
    tmp_path: Path, ingest_text: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_tables, "BLOCK_BYTES", 1024)
    lines = [f"{n},,{n},{n}.5,{'ab'[n % 2]}" for n in range(500)]
    late = "0.5,7,unknown,,a\n1,2,3,too many,4,5\n"
    path = tmp_path / "rows.csv"
    path.write_text("whole,rare,mixed,fraction,label\n" + "\n".join(lines) + "\n" + late)

    made = ingest_text(path, kind="tabular", max_corrupt_fraction=0.01)

    schema = {name: made.manifest.schema[name] for name in ("whole", "rare", "mixed", "fraction")}
    assert schema == {"whole": "double", "rare": "int64", "mixed": "string", "fraction": "double"}
    assert (made.num_examples, made.num_rejected) == (501, 1)
    assert made.statistics["tabular"]["rare"]["missing"] == 500


@pytest.mark.parametrize("num_rows", [2, 5000, 400_000])
@pytest.mark.parametrize("kind", ["text_classification", "tabular"])
def test_a_wrong_encoding_is_said_wherever_it_begins(
    tmp_path: Path, ingest_text: Ingest, num_rows: int, kind: str
) -> None:
    lines = [f"text {n},{'ab'[n % 2]}" for n in range(num_rows)]
    text = "\n".join(["text,label", *lines, "café,a", "thé,b"])
    (tmp_path / "rows.csv").write_bytes(text.encode("latin-1"))

    with pytest.raises(InputError, match="the file is not utf-8; give its encoding"):
        ingest_text(tmp_path / "rows.csv", kind=kind)


def test_the_types_of_several_files_are_those_of_all_their_rows(
    tmp_path: Path, ingest_text: Ingest
) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    numbers = {"a": "1", "b": "2.5", "c": "", "d": "3"}
    for name, number in numbers.items():
        lines = [f"{number},{n},{'ab'[n % 2]}" for n in range(20)]
        (folder / f"{name}.csv").write_text("\n".join(["x,n,label", *lines]))

    made = ingest_text(folder, kind="tabular")

    assert dict(made.manifest.schema) == {"x": "double", "n": "int64", "label": "string"}
    assert made.statistics["tabular"]["x"]["missing"] == 20


def test_columns_of_one_name_are_refused(tmp_path: Path, ingest_text: Ingest) -> None:
    column = pa.array(["a", "b"])
    table = pa.table([column, column, column], names=["text", "label", "label"])
    pq.write_table(table, tmp_path / "rows.parquet")

    for kind in ("text_classification", "tabular"):
        with pytest.raises(InputError, match="Several columns are named 'label'"):
            ingest_text(tmp_path / "rows.parquet", kind=kind)


def test_a_delimiter_that_was_not_given_is_proposed(tmp_path: Path, ingest_text: Ingest) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text;label\n" + "".join(f"text {n};{'ab'[n % 2]}\n" for n in range(30)))

    with pytest.raises(InputError, match=r"has one column, 'text;label'; give its delimiter.*';'"):
        ingest_text(path)
    assert ingest_text(path, scan=ScanOptions(delimiter=";")).labels == ("a", "b")


def test_a_table_of_any_types_is_sampled_as_json(tmp_path: Path, ingest_text: Ingest) -> None:
    row = {
        "day": dt.date(2026, 1, 2),
        "price": Decimal("1.50"),
        "raw": b"\xff",
        "ratio": math.nan,
        "nested": {"at": dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC)},
    }
    rows = [row | {"number": n, "label": "ab"[n % 2]} for n in range(20)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")

    made = ingest_text(tmp_path / "rows.parquet", kind="tabular")

    sampled = made.manifest.sample[0]
    assert sampled["day"] == "2026-01-02"
    assert sampled["price"] == "1.50"
    assert sampled["nested"] == {"at": "2026-01-02 03:00:00+00:00"}
    assert sampled["ratio"] == "nan"


def test_long_texts_do_not_swell_the_manifest(tmp_path: Path, ingest_text: Ingest) -> None:
    rows = [{"essay": f"{n} " + "word " * 2000, "label": "ab"[n % 2]} for n in range(40)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")

    made = ingest_text(tmp_path / "rows.parquet", kind="tabular")

    assert len(Path(made.uri).read_bytes()) < 50_000
    assert made.statistics["tabular"]["essay"]["num_distinct"] == 40


def test_a_query_may_hold_colons(tmp_path: Path, ingest_text: Ingest) -> None:
    rows = [(f"a::b :smile 12:30 {n}", "ab"[n % 2]) for n in range(40)]
    write_sqlite(tmp_path / "rows.db", [*rows, ("other", "a")])
    query = "SELECT text, label FROM messages WHERE text LIKE 'a::b :smile 12:30 %25'"

    assert ingest_text(f"sqlite:///{tmp_path}/rows.db?query={query}").num_examples == 40


def test_a_database_url_without_a_user_is_refused(ingest_text: Ingest) -> None:
    with pytest.raises(InputError, match="'postgresql:///db' names no user"):
        ingest_text("postgresql:///db?table=messages")


@pytest.mark.parametrize("form", ["json", "sql"])
def test_a_fraction_among_whole_numbers_is_not_cut_off(
    tmp_path: Path, ingest_text: Ingest, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """Rows come in batches, and the first says what the columns hold."""
    monkeypatch.setattr(tables, "_BATCH_ROWS", 10)
    monkeypatch.setattr(sql, "_BATCH_ROWS", 10)
    numbers: list[float] = [*range(10), *(n + 0.5 for n in range(10))]
    if form == "json":
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps({"n": n}) + "\n" for n in numbers))
        source = str(path)
    else:
        with sqlite3.connect(tmp_path / "rows.db") as database:
            database.execute("create table numbers (n)")
            database.executemany("insert into numbers values (?)", [(n,) for n in numbers])
        database.close()
        source = f"sqlite:///{tmp_path}/rows.db?table=numbers"

    with pytest.raises(InputError, match=r"types.*0\.5.* was truncated"):
        ingest_text(source, kind="tabular")


def test_a_column_of_json_may_begin_empty(
    tmp_path: Path, ingest_text: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_BATCH_ROWS", 10)
    rows = [{"n": n / 2 if n < 30 else n, "note": None if n < 20 else n} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    made = ingest_text(tmp_path / "rows.jsonl", kind="tabular")

    assert dict(made.manifest.schema) == {"n": "double", "note": "string"}
    assert made.statistics["tabular"]["n"]["max"] == 39
    assert made.statistics["tabular"]["note"]["missing"] == 20


def test_a_parquet_file_of_texts_that_are_no_utf8_is_refused(
    tmp_path: Path, ingest_text: Ingest
) -> None:
    raw = pa.array([b"caf\xe9"] * 20)
    texts = pa.Array.from_buffers(pa.string(), 20, raw.buffers())
    pq.write_table(pa.table({"text": texts, "label": ["a", "b"] * 10}), tmp_path / "t.parquet")
    pq.write_table(pa.table({"text": ["a"] * 20, "label": raw}), tmp_path / "l.parquet")

    for kind in ("text_classification", "tabular"):
        with pytest.raises(InputError, match=r"Failed to read 't\.parquet' .*UTF8"):
            ingest_text(tmp_path / "t.parquet", kind=kind)
    with pytest.raises(InputError, match="label column 'label' does not hold texts: Invalid UTF8"):
        ingest_text(tmp_path / "l.parquet")


def test_a_class_number_without_a_name_is_refused(tmp_path: Path, ingest_text: Ingest) -> None:
    features = {"label": {"_type": "ClassLabel", "names": ["a", "b"]}}
    document = json.dumps({"info": {"features": features}}).encode()
    table = pa.table({"text": ["x", "y", "z"], "label": [0, 1, 2]})
    table = table.replace_schema_metadata({b"huggingface": document})
    pq.write_table(table, tmp_path / "rows.parquet")

    with pytest.raises(InputError, match="class has number 2, but the schema names 2 classes"):
        ingest_text(tmp_path / "rows.parquet")


def test_texts_may_be_categorical(tmp_path: Path, ingest_text: Ingest) -> None:
    texts = pa.array([f"text {n}" for n in range(20)]).dictionary_encode()
    pq.write_table(pa.table({"text": texts, "label": ["a", "b"] * 10}), tmp_path / "rows.parquet")

    assert ingest_text(tmp_path / "rows.parquet").num_examples == 20
