"""Runs whose artifacts are in an object store."""

# KFP reads annotations that are no types to mypy.
# mypy: disable-error-code="no-untyped-def, valid-type, type-arg, no-any-return, name-match"

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import dsl
from kfp_server_api.exceptions import ApiException
from minio import Minio

from kubeloop.testing.pipelines import PipelinesStage, running_pipelines
from kubeloop.testing.s3_server import ACCESS_KEY, SECRET_KEY, s3_server

component = dsl.component(base_image="python:3.11", install_kfp_package=False)


@component
def write(text: str, data: dsl.Output[dsl.Dataset], parts: dsl.Output[dsl.Artifact]) -> str:
    from pathlib import Path

    Path(data.path).write_text(text)
    Path(parts.path, "deeper").mkdir(parents=True)
    Path(parts.path, "deeper", "part").write_text(f"part of {text}")
    return data.uri


@component
def read(data: dsl.Input[dsl.Dataset], parts: dsl.Input[dsl.Artifact]) -> str:
    from pathlib import Path

    return f"{Path(data.path).read_text()}, {Path(parts.path, 'deeper', 'part').read_text()}"


@component
def read_one(data: dsl.Input[dsl.Dataset]) -> str:
    from pathlib import Path

    return Path(data.path).read_text()


@dsl.container_component
def copy(data: dsl.Input[dsl.Dataset], made: dsl.Output[dsl.Dataset]):
    return dsl.ContainerSpec(image="busybox", command=["cp"], args=[data.path, made.path])


@dsl.pipeline(name="in-a-store")
def in_a_store(text: str):
    written = write(text=text)
    read(data=written.outputs["data"], parts=written.outputs["parts"])
    read_one(data=copy(data=written.outputs["data"]).outputs["made"])


@dsl.pipeline(name="from-a-store")
def from_a_store(uri: str):
    imported = dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset)
    read_one(data=imported.output)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server("data") as url:
        yield url


@pytest.fixture
def bucket(endpoint: str) -> Minio:
    address = endpoint.removeprefix("http://")
    return Minio(address, access_key=ACCESS_KEY, secret_key=SECRET_KEY, secure=False)


@pytest.fixture(scope="module")
def configured(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PipelinesStage]:
    """A stage of its own, whose namespace is configured for the store as KFP's is."""
    default = {
        "endpoint": endpoint,
        "region": "us-east-1",
        "credentials": {
            "secretRef": {
                "secretName": "store-keys",
                "accessKeyKey": "accesskey",
                "secretKeyKey": "secretkey",
            }
        },
    }
    providers = yaml.safe_dump({"s3": {"default": default}})
    pair = {"accesskey": ACCESS_KEY, "secretkey": SECRET_KEY}
    keys = {name: base64.b64encode(key.encode()).decode() for name, key in pair.items()}
    with running_pipelines(tmp_path_factory.mktemp("stores")) as stage:
        for kind, name, data in (
            ("Secret", "store-keys", keys),
            ("ConfigMap", "kfp-launcher", {"providers": providers}),
        ):
            metadata = {"name": name, "namespace": "default"}
            manifest = {"apiVersion": "v1", "kind": kind, "metadata": metadata, "data": data}
            stage.call(stage.client.create(manifest))
        yield stage


@pytest.fixture
def runner(configured: PipelinesStage, make_runner: Callable[[Any], Any]) -> Any:
    return make_runner(configured)


def run_in(runner: Any, root: str, pipeline: Any, **arguments: Any) -> Any:
    started = runner.client.create_run_from_pipeline_package(
        runner.compile(pipeline), arguments=arguments, pipeline_root=root
    )
    return runner.wait(started.run_id)


def test_outputs_are_written_to_the_store_and_read_by_the_next_step(
    runner: Any, bucket: Minio
) -> None:
    run = run_in(runner, "s3://data/runs", in_a_store, text="hello")

    assert run.state == "SUCCEEDED", run.error
    (data,) = run.artifacts("write", "data")
    assert data["uri"].startswith(f"s3://data/runs/in-a-store/{run.run_id}/write/")
    assert data["uri"] == run.output("write")
    assert data["digest"].startswith("sha256:")
    assert bucket.get_object("data", data["uri"].removeprefix("s3://data/")).data == b"hello"
    assert run.output("read") == "hello, part of hello"
    assert run.output("read-one") == "hello"
    (parts,) = run.artifacts("write", "parts")
    key = f"{parts['uri'].removeprefix('s3://data/')}/deeper/part"
    assert bucket.get_object("data", key).data == b"part of hello"


def test_a_second_run_takes_outputs_in_the_store_from_the_cache(runner: Any) -> None:
    first = run_in(runner, "s3://data/runs", in_a_store, text="again")
    second = run_in(runner, "s3://data/runs", in_a_store, text="again")
    assert second.states()["write"] == second.states()["read"] == "CACHED"
    assert second.artifacts("write", "data") == first.artifacts("write", "data")


def test_an_imported_object_is_fetched_and_a_changed_one_misses_the_cache(
    runner: Any, bucket: Minio, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    outputs = []
    for text in ("before", "after"):
        file.write_text(text)
        bucket.fput_object("data", "imported/file", str(file))
        run = runner.run(from_a_store, uri="s3://data/imported/file")
        assert run.state == "SUCCEEDED", run.error
        outputs.append(run.output("read-one"))
    assert outputs == ["before", "after"]
    assert runner.run(from_a_store, uri="s3://data/imported/file").states()["read-one"] == "CACHED"


def test_an_object_that_does_not_exist_fails_the_step_that_needs_it(runner: Any) -> None:
    run = runner.run(from_a_store, uri="s3://data/no/such")
    assert run.state == "FAILED"
    assert "Task 'read-one' failed: there is nothing at s3://data/no/such" in run.error


def test_a_bucket_that_does_not_exist_fails_the_step_that_writes(runner: Any) -> None:
    run = run_in(runner, "s3://other", in_a_store, text="x")
    assert run.state == "FAILED"
    assert "Task 'write' failed: cannot write s3://other/in-a-store" in run.error


def test_a_store_that_is_not_configured_fails_the_step_before_it_starts(runner: Any) -> None:
    run = run_in(runner, "minio://data", in_a_store, text="x")
    assert run.state == "FAILED"
    assert "nothing says how to open minio://data; create the Secret" in run.error
    assert not run.task("write").get("pods")


@pytest.mark.parametrize("root", ["gs://bucket/x", "s3://", "s3://data/x?region=r"])
def test_other_roots_are_refused(runner: Any, root: str) -> None:
    with pytest.raises(ApiException) as refused:
        run_in(runner, root, in_a_store, text="x")
    assert refused.value.status == 400
    assert f"pipeline_root '{root}' cannot be used" in refused.value.body


@pytest.mark.parametrize(
    ("root", "hint"),
    [("gs://bucket/x", "storage.googleapis.com"), ("abfss://box@account/x", "Azure's storage")],
)
def test_roots_in_other_clouds_say_what_to_do_instead(runner: Any, root: str, hint: str) -> None:
    with pytest.raises(ApiException) as refused:
        run_in(runner, root, in_a_store, text="x")
    assert hint in refused.value.body
    assert "s3://BUCKET/KEY" in refused.value.body
    assert "on a cluster (--context) the root works as it is" in refused.value.body
