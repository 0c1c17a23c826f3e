import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from kubeloop.datasets import IngestConfig, ingest
from kubeloop.digests import digest_path
from kubeloop.kserve.endpoints import parse_endpoint
from kubeloop.pipelines.lineage import find_target, trace
from kubeloop.pipelines.lineage.verification import Check, Outcome, verify
from kubeloop.testing.image_folders import write_image_folder
from kubeloop.testing.recorded_runs import GivenArtifact, GivenRun, GivenTask, MemoryMetadata
from kubeloop.training.code import publish_code
from kubeloop.training.package import PROGRAM_FILE, PackageManifest, write_package


@dataclass(frozen=True, kw_only=True)
class Loop:
    """What a run left on disk, and the record of it."""

    source: MemoryMetadata
    images: Path
    commit: Path
    package: Path
    report: Path
    code: Path

    def verify(self, *, target: str = "run-1", model_digest: str = "") -> dict[str, Check]:
        digest = model_digest or f"sha256:{self.package.name}"
        endpoint = parse_endpoint(
            {
                "metadata": {
                    "name": "digits",
                    "namespace": "default",
                    "annotations": {
                        "kubeloop.dev/run-id": "run-1",
                        "kubeloop.dev/model-uri": str(self.package),
                        "kubeloop.dev/model-digest": digest,
                    },
                }
            }
        )
        found = find_target(target, self.source, endpoints=[endpoint])
        graph = trace(found, self.source, endpoints=[endpoint])
        return {check.node.kind.value: check for check in verify(graph)}


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    images = write_image_folder(tmp_path / "images", {"a": 8, "b": 8})
    commit = ingest(IngestConfig(name="digits", source=str(images), store=str(tmp_path / "data")))
    package = write_small_package(tmp_path)
    report = tmp_path / "report.txt"
    report.write_text("fine")
    script = tmp_path / "train.py"
    script.write_text("print('loss=0')")
    code = publish_code(script, str(tmp_path / "code"))
    ingested = GivenTask(
        name="ingest",
        gives={
            "dataset": [
                GivenArtifact(
                    name="dataset",
                    type="Dataset",
                    uri=commit.uri,
                    metadata={
                        "dataset": "digits",
                        "version_hash": commit.version_hash,
                        "source_uri": commit.source_uri,
                        "source_digest": commit.source_digest,
                    },
                )
            ]
        },
    )
    metadata = {
        "digest": f"sha256:{package.name}",
        "training_job": "job",
        "trial": "",
        "code_uri": code,
    }
    trained = GivenTask(
        name="train",
        takes={"dataset": [("run-1/ingest", "dataset")]},
        gives={
            "model": [
                GivenArtifact(name="model", type="Model", uri=str(package), metadata=metadata)
            ],
            "report": [
                GivenArtifact(name="report", uri=str(report), digest=digest_path(report)),
            ],
        },
    )
    return Loop(
        source=MemoryMetadata([GivenRun(run_id="run-1", tasks=[ingested, trained])]),
        images=images,
        commit=Path(commit.uri),
        package=package,
        report=report,
        code=Path(code),
    )


def write_small_package(folder: Path) -> Path:
    program = folder / "program"
    program.write_bytes(b"weights")
    draft = folder / "draft"
    digest = write_package(
        str(draft),
        PackageManifest(name="digits", inputs=(), outputs=()),
        files={PROGRAM_FILE: program},
    )
    return draft.rename(folder / digest)


def test_untouched_lineage_is_intact(loop: Loop) -> None:
    checks = loop.verify()

    outcomes = {kind: check.outcome for kind, check in checks.items()}
    assert outcomes == {
        "endpoint": Outcome.INTACT,
        "model": Outcome.INTACT,
        "dataset": Outcome.INTACT,
        "source": Outcome.INTACT,
        "code": Outcome.INTACT,
        "artifact": Outcome.INTACT,
        "training_job": Outcome.UNCHECKED,
    }
    assert checks["training_job"].reason == "only the record holds what the training job was"


def flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def tamper_manifest(loop: Loop) -> None:
    flip_last_byte(loop.commit)


def tamper_shard(loop: Loop) -> None:
    shard = max((p for p in loop.commit.parents[1].glob("shards/**/*") if p.is_file()), key=str)
    flip_last_byte(shard)


def lose_shard(loop: Loop) -> None:
    next(p for p in loop.commit.parents[1].glob("shards/**/*") if p.is_file()).unlink()


def lose_dataset(loop: Loop) -> None:
    loop.commit.unlink()


def tamper_weights(loop: Loop) -> None:
    flip_last_byte(loop.package / PROGRAM_FILE)


def tamper_model_manifest(loop: Loop) -> None:
    path = loop.package / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "labels": ["other"]}))


def lose_model(loop: Loop) -> None:
    shutil.rmtree(loop.package)


def add_image(loop: Loop) -> None:
    shutil.copy(next((loop.images / "a").iterdir()), loop.images / "b" / "new.png")


def tamper_report(loop: Loop) -> None:
    loop.report.write_text("finer")


def lose_report(loop: Loop) -> None:
    loop.report.unlink()


def tamper_code(loop: Loop) -> None:
    flip_last_byte(loop.code)


def lose_code(loop: Loop) -> None:
    loop.code.unlink()


@pytest.mark.parametrize(
    ("tamper", "kind", "reason"),
    [
        (tamper_manifest, "dataset", "differs from the hash that names it"),
        (tamper_shard, "dataset", "differs from its sha256"),
        (lose_shard, "dataset", "is missing"),
        (lose_dataset, "dataset", "there is none"),
        (tamper_weights, "model", "has sha256"),
        (tamper_model_manifest, "model", "the model package there has digest"),
        (lose_model, "model", "there is no model.json"),
        (add_image, "source", "not the recorded"),
        (tamper_code, "code", "it was changed"),
        (lose_code, "code", "there is none"),
        (tamper_report, "artifact", "not the recorded"),
        (lose_report, "artifact", "nothing is there any more"),
    ],
)
def test_tampering_is_found_where_it_was_done(
    loop: Loop, tamper: Callable[[Loop], None], kind: str, reason: str
) -> None:
    tamper(loop)

    checks = loop.verify()

    changed = {name for name, check in checks.items() if check.outcome is Outcome.CHANGED}
    assert changed == {kind}
    assert reason in checks[kind].reason


def test_source_that_is_gone_cannot_be_checked(loop: Loop) -> None:
    shutil.rmtree(loop.images)

    check = loop.verify()["source"]

    assert check.outcome is Outcome.UNCHECKED
    assert "does not exist" in check.reason


def test_endpoint_of_another_model_than_lies_there_is_found(loop: Loop) -> None:
    checks = loop.verify(target="digits", model_digest="sha256:" + "1" * 64)

    assert checks["model"].outcome is Outcome.CHANGED
    assert f"has digest {loop.package.name}" in checks["model"].reason


def test_artifacts_elsewhere_or_without_a_digest_are_named_as_not_checked() -> None:
    given = [
        GivenArtifact(name="far", uri="gs://bucket/table", digest="sha256:" + "a" * 64),
        GivenArtifact(name="bare", uri="/somewhere"),
    ]
    run = GivenRun(run_id="run-1", tasks=[GivenTask(name="a", gives={"out": given})])
    source = MemoryMetadata([run])

    checks = verify(trace(find_target("run-1", source, endpoints=()), source))

    assert {check.node.id: (check.outcome, check.reason) for check in checks} == {
        "far": (Outcome.UNCHECKED, "it does not lie on this machine"),
        "bare": (Outcome.UNCHECKED, "no digest was recorded"),
    }
