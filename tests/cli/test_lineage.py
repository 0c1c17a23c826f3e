import json
import re
from pathlib import Path

import pytest

from kubeloop.cli import lineage as lineage_command
from kubeloop.cli.main import run
from kubeloop.cli.options import Session
from kubeloop.digests import digest_path
from kubeloop.kserve.endpoints import parse_endpoint
from kubeloop.testing.recorded_runs import (
    GivenArtifact,
    GivenRun,
    GivenTask,
    MemoryMetadata,
    digits_run,
)

VERSION = "a" * 64
RUN = "10000000-0000-4000-8000-000000000000"


@pytest.fixture(autouse=True)
def record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A record with a run of the image pipeline and one that wrote a file; gives the file."""
    report = tmp_path / "report.txt"
    report.write_text("fine")
    given = GivenArtifact(name="report", uri=str(report), digest=digest_path(report))
    own = GivenRun(run_id=RUN, tasks=[GivenTask(name="write", gives={"out": [given]})])
    source = MemoryMetadata([digits_run(1), own])
    annotations = {"kubeloop.dev/run-id": "run-1", "kubeloop.dev/model-digest": f"sha256:{1:064x}"}
    endpoint = parse_endpoint(
        {
            "metadata": {"name": "digits", "namespace": "default", "annotations": annotations},
            "spec": {"predictor": {"model": {"storageUri": f"/store/models/digits/{1:064x}"}}},
        }
    )
    monkeypatch.setattr(Session, "connect_metadata", lambda session: source)
    monkeypatch.setattr(Session, "namespace", "default")
    monkeypatch.setattr(lineage_command, "list_endpoints", lambda session: [endpoint])
    return report


def test_tree_leads_from_the_endpoint_to_the_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lineage", "digits"]) == 0

    assert capsys.readouterr().out.splitlines() == [
        "endpoint  default/digits  sha256:2b53d01624cf",
        "└── model  000000000000  sha256:000000000000",
        f"    /store/models/digits/{1:064x}",
        "    └── training job  default/train-1  sha256:999999999999",
        "        pytorchjobs/default/train-1",
        "        ├── task  train-model (run run-1)",
        "        │   └── dataset  digits@aaaaaaaaaaaa  sha256:aaaaaaaaaaaa",
        f"        │       /store/datasets/digits/commits/{VERSION}.json",
        "        │       ├── source  digits  sha256:ffffffffffff",
        "        │       │   /data/digits",
        "        │       └── task  ingest-dataset (run run-1)",
        "        └── trial  tune-1-x  sha256:777777777777",
        "            experiments/default/tune-1/trials/tune-1-x",
        "            └── experiment  default/tune-1",
        "                experiments/default/tune-1",
        "                └── task  tune-hyperparameters (run run-1)",
        "                    └── dataset  digits@aaaaaaaaaaaa  sha256:aaaaaaaaaaaa  (see above)",
        "1 endpoint, 1 model, 1 training job, 1 trial, 1 experiment, 1 run, 3 tasks, 1 dataset,"
        " 1 source",
    ]


def test_forward_tree_of_a_run_begins_with_what_began_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["lineage", RUN, "--forward"]) == 0

    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"run  {RUN}"
    assert shown[1] == "└── task  write (run 10000000)"
    assert shown[2].startswith("    └── artifact  report")


def test_json_holds_nodes_and_links(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lineage", f"digits@{VERSION}", "--forward", "--output", "json"]) == 0

    graph = json.loads(capsys.readouterr().out)
    kinds = {node["key"]: node["kind"] for node in graph["nodes"]}
    assert kinds[graph["target"]] == "dataset"
    assert set(kinds.values()) >= {"model", "endpoint", "run", "task"}
    assert all(edge["cause"] in kinds and edge["effect"] in kinds for edge in graph["edges"])


def test_mermaid_escapes_what_would_mean_something(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = 'a"] --> x; end <b>`'
    given = GivenRun(
        run_id=RUN,
        tasks=[GivenTask(name="t", gives={"out": [GivenArtifact(name=name, uri="/x")]})],
    )
    monkeypatch.setattr(Session, "connect_metadata", lambda session: MemoryMetadata([given]))

    assert run(["lineage", "/x", "--output", "mermaid"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "flowchart LR"
    node = re.compile(r'  n\d+\["([A-Za-z0-9 ./_@#;-]|<br/>)*"\]:::[a-z_]+')
    edge = re.compile(r'  n\d+ -->\|"[a-z ]+"\| n\d+')
    style = re.compile(r"  classDef [a-z_]+ fill:#[0-9a-f]{6},stroke:#444,color:#111")
    assert all(node.fullmatch(x) or edge.fullmatch(x) or style.fullmatch(x) for x in lines[1:])
    assert "#34;" in lines[1]


def test_page_is_written_to_the_file(tmp_path: Path) -> None:
    file = tmp_path / "new" / "lineage.html"

    assert run(["lineage", "digits", "--output", "html", "--save", str(file)]) == 0

    page = file.read_text()
    assert page.startswith("<!doctype html>")
    assert page.count('<g class="box') == 10
    assert "https://" not in page.replace("http://www.w3.org", "")


def test_depth_that_leaves_something_out_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lineage", "digits", "--depth", "1"]) == 0

    shown = capsys.readouterr().out
    assert "model" in shown
    assert "training job" not in shown
    assert "Not all: stopped after 1 links" in shown


def test_verify_tells_what_was_tampered_with_by_exit_code(
    record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["lineage", RUN, "--verify"]) == 0
    assert "1 intact, 0 changed, 0 not checked" in capsys.readouterr().err

    record.write_text("tampered")

    assert run(["lineage", RUN, "--verify", "--output", "json"]) == 1
    shown = capsys.readouterr()
    assert "changed  artifact report: its content has digest" in shown.err
    json.loads(shown.out)


def test_openlineage_is_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lineage", RUN, "--output", "openlineage"]) == 0

    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["eventType"] for event in events] == ["START", "START", "COMPLETE", "COMPLETE"]
    assert events[0]["run"]["runId"] == RUN


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody"], "Nothing is known as 'nobody'"),
        (["digits", "--output", "openlineage"], "OpenLineage events are of a run"),
        (["digits", "--send", "http://127.0.0.1:9"], "--send goes with --output openlineage"),
    ],
)
def test_wrong_input_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["lineage", *arguments]) == 2

    assert message in capsys.readouterr().err
