import json
from pathlib import Path
from typing import Any

import pytest

from kubeloop.cli import dataset_uses
from kubeloop.cli.main import run
from kubeloop.cli.options import Session
from kubeloop.errors import PermanentError
from kubeloop.kserve.endpoints import parse_endpoint
from kubeloop.testing.recorded_runs import GivenArtifact, GivenRun, GivenTask, MemoryMetadata

RUN = "10000000-0000-4000-8000-000000000000"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    store = str(tmp_path / "store")
    monkeypatch.setenv("KUBELOOP_DATASETS", store)
    return store


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(60)))
    return path


@pytest.fixture
def ingested(source: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    arguments = ["--name", "rows", "--kind", "text_classification", "-m", "first", "-o", "json"]
    assert run(["datasets", "ingest", str(source), *arguments]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def read(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run(["datasets", *arguments, "-o", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def use_record(
    monkeypatch: pytest.MonkeyPatch, *, runs: list[GivenRun], endpoints: list[Any]
) -> None:
    monkeypatch.setattr(Session, "connect_metadata", lambda session: MemoryMetadata(runs))
    monkeypatch.setattr(dataset_uses, "list_endpoints", lambda session: endpoints)


def test_a_dataset_is_listed_logged_sampled_and_shown(
    ingested: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ingested["is_new"]
    assert [row["name"] for row in read(capsys, "list")] == ["rows"]
    assert [entry["record"]["message"] for entry in read(capsys, "log", "rows")] == ["first"]
    assert len(read(capsys, "sample", "rows")) == 10
    assert read(capsys, "show", "rows")["version_hash"] == ingested["version_hash"]


@pytest.mark.parametrize("head", ['{"version_h', '{"version_hash": "gone"}'])
def test_a_damaged_dataset_is_named_and_the_others_are_listed(
    ingested: dict[str, Any], store: str, capsys: pytest.CaptureFixture[str], head: str
) -> None:
    (Path(store) / "broken").mkdir()
    (Path(store) / "broken" / "head.json").write_text(head)

    assert run(["datasets", "list", "-o", "json"]) == 1

    printed = capsys.readouterr()
    assert [row["name"] for row in json.loads(printed.out)] == ["rows"]
    assert "Failed to list 1 of 2 datasets: 'broken'" in printed.err


def test_what_is_shown_to_people_names_labels_and_findings(
    ingested: dict[str, Any], source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with source.open("a") as file:
        file.write("text 1,a\n")

    assert run(["datasets", "ingest", str(source), "--name", "rows", "--kind",
                "text_classification"]) == 0  # fmt: skip

    out = capsys.readouterr().out
    assert "conflicting_labels: 1 contents have more than one label" in out
    assert "A new version." in out


def test_a_report_is_written(
    ingested: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["datasets", "show", "rows", "--html", str(tmp_path / "report.html")]) == 0
    assert "Dataset rows" in (tmp_path / "report.html").read_text()


def test_a_version_is_tagged_compared_and_put_together(
    ingested: dict[str, Any], source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["datasets", "tag", "rows", "golden"]) == 0
    source.write_text(source.read_text() + "more,c\nyet more,c\n")
    arguments = ("--name", "rows", "--kind", "text_classification")
    capsys.readouterr()
    read(capsys, "ingest", str(source), *arguments)

    change = read(capsys, "diff", "rows@golden", "rows")
    taken = read(capsys, "snapshot", "rows", "--label", "c", "--label", "a")

    assert change["added_labels"] == ["c"]
    assert taken["labels"] == ["a", "c"]
    assert taken["num_examples"] == 32
    assert run(["datasets", "verify", "rows@golden"]) == 0


def test_a_damaged_version_fails_verification(
    ingested: dict[str, Any], store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = next((Path(store) / "rows" / "shards").iterdir())
    shard.write_bytes(shard.read_bytes()[:-1])

    assert run(["datasets", "verify", "rows"]) == 1
    assert "differs from its sha256" in capsys.readouterr().err


def test_what_a_run_or_endpoint_uses_is_not_deleted(
    ingested: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    artifact = GivenArtifact(name="dataset", uri=ingested["uri"])
    task = GivenTask(name="ingest", gives={"dataset": [artifact]})
    annotations = {"kubeloop.dev/dataset-version": ingested["version_hash"]}
    endpoint = parse_endpoint(
        {
            "metadata": {"name": "intents", "namespace": "default", "annotations": annotations},
            "spec": {"predictor": {"model": {"storageUri": "/m"}}},
        }
    )
    going = GivenRun(run_id=RUN, state="RUNNING", tasks=[task])
    ended = GivenRun(run_id=RUN, state="SUCCEEDED", tasks=[task])
    cases: list[tuple[list[GivenRun], list[Any], str]] = [
        ([going], [], "in use by run"),
        ([ended], [endpoint], "in use by endpoint intents"),
    ]
    for runs, endpoints, message in cases:
        use_record(monkeypatch, runs=runs, endpoints=endpoints)
        assert run(["datasets", "delete", "rows", "--yes"]) == 1
        assert message in capsys.readouterr().err

    use_record(monkeypatch, runs=[ended], endpoints=[])
    assert run(["datasets", "delete", "rows", "--yes"]) == 0
    capsys.readouterr()
    assert read(capsys, "list") == []


def test_without_a_record_only_force_deletes(
    ingested: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(session: Session) -> None:
        raise PermanentError("No control plane runs.")

    monkeypatch.setattr(dataset_uses, "list_endpoints", fail)

    assert run(["datasets", "delete", "rows", "--yes"]) == 1
    assert "Nobody can tell what uses the data" in capsys.readouterr().err
    assert run(["datasets", "delete", "rows", "--all", "--force", "--yes"]) == 0


def test_garbage_is_counted(
    ingested: dict[str, Any], store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (Path(store) / "rows" / "shards" / ("0" * 64 + ".parquet")).write_bytes(b"12345")

    assert read(capsys, "gc", "rows", "--dry-run")["num_bytes"] == 5
    assert read(capsys, "gc", "rows")["num_shards"] == 1
    assert read(capsys, "gc", "rows")["num_shards"] == 0


def test_wrong_arguments_are_the_users_to_put_right(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = ["--name", "rows"]
    for arguments, message in (
        (["show", "cars"], "No dataset 'cars'"),
        (["ingest", str(source), *name, "-O", "colour=1"], "Unknown option 'colour'"),
        (["ingest", str(source), *name, "-O", "header"], "is not NAME=VALUE"),
        (["ingest", str(source), *name, "--tag", "a b"], "Tag 'a b' must be"),
        (["ingest", "nowhere", *name], "does not exist; give its absolute path"),
    ):
        assert run(["datasets", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_what_is_left_without_a_version_is_freed(
    ingested: dict[str, Any], store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    read(capsys, "delete", "rows", "--force", "--yes")

    assert run(["datasets", "show", "rows"]) == 2
    assert "Version 'latest' of dataset 'rows' does not exist" in capsys.readouterr().err
    assert read(capsys, "gc", "rows")["num_shards"] > 0
    assert not list((Path(store) / "rows").rglob("*.parquet"))


def test_a_snapshot_that_a_run_uses_is_not_deleted_with_its_dataset(
    ingested: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = read(capsys, "snapshot", "rows", "--split", "train")
    artifact = GivenArtifact(name="dataset", uri=taken["uri"])
    task = GivenTask(name="ingest", gives={"dataset": [artifact]})
    going = GivenRun(run_id=RUN, state="RUNNING", tasks=[task])
    use_record(monkeypatch, runs=[going], endpoints=[])

    assert run(["datasets", "delete", "rows", "--all", "--yes"]) == 1
    assert "in use by run" in capsys.readouterr().err
    use_record(monkeypatch, runs=[], endpoints=[])
    deleted = read(capsys, "delete", "rows", "--all", "--yes")
    assert deleted == {"deleted": [ingested["uri"], taken["uri"]]}


def test_a_dataset_with_a_damaged_version_can_be_deleted(
    ingested: dict[str, Any],
    source: Path,
    store: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What uses its versions is asked once for all of them."""
    asked: list[Session] = []

    def list_endpoints(session: Session) -> list[Any]:
        asked.append(session)
        return []

    source.write_text(source.read_text() + "more,a\n")
    read(capsys, "ingest", str(source), "--name", "rows", "--kind", "text_classification")
    use_record(monkeypatch, runs=[], endpoints=[])
    monkeypatch.setattr(dataset_uses, "list_endpoints", list_endpoints)
    Path(ingested["uri"]).write_text("{")

    assert len(read(capsys, "delete", "rows", "--all", "--yes")["deleted"]) == 2

    assert len(asked) == 1
    assert list(Path(store).rglob("*.*")) == []


def test_tags_are_told_as_json(
    ingested: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert read(capsys, "tag", "rows", "golden", "old")["tags"] == ["golden", "old"]
    assert read(capsys, "tag", "rows", "old", "--remove")["tags"] == ["golden"]


def test_a_column_may_be_named_by_a_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As pandas names them where nobody does."""
    path = tmp_path / "rows.csv"
    path.write_text("0,1\n" + "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(60)))
    columns = ["-O", "header=yes", "-O", "text_column=0", "-O", "label_column=1"]
    arguments = ["--name", "rows", "--kind", "text_classification", *columns]

    assert read(capsys, "ingest", str(path), *arguments)["labels"] == ["a", "b"]


def test_splits_are_shown_in_one_order(
    ingested: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = read(capsys, "show", "rows")

    for document in (ingested, shown):
        assert list(document["statistics"]["splits"]) == ["train", "validation", "test"]
