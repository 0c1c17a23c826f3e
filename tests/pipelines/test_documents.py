"""What the documents tell a user to give is what the pipelines and the job builder take."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import fields
from itertools import pairwise

import pytest

from kubeloop.pipelines.packages import COMPILED, read_package
from kubeloop.pipelines.parameters import declared_parameters, parse_parameters
from kubeloop.training.job_options import JOB_OPTIONS, parse_job_options
from kubeloop.training.jobs import ElasticConfig, PyTorchJobBuilder, TrainingJobConfig
from kubeloop.training.placement import PodConfig, RunPolicyConfig

ROOT = COMPILED.parents[1]
TRAINING_JOBS = (ROOT / "docs" / "training-jobs.md").read_text("utf-8")
JOB_JSON = re.findall(r"```json\n(.*?)```", TRAINING_JOBS, re.DOTALL)[0]


def list_runs() -> list[str]:
    """Return what follows `kubeloop run` in the documents, each in one line."""
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    text = "\n".join(path.read_text("utf-8") for path in documents).replace("\\\n", "")
    return re.findall(r"^ +kubeloop run (pipelines/compiled/.*)$", text, re.MULTILINE)


@pytest.mark.parametrize("run", list_runs())
def test_parameters_in_the_documents_are_of_their_pipelines(run: str) -> None:
    pipeline, *words = shlex.split(re.sub(r"\$\(kubeloop [^)]*\)", "file:///code", run))
    given = [after for word, after in pairwise(words) if word == "-p"]
    spec = read_package(ROOT / pipeline).spec
    declared = declared_parameters(spec)

    values = parse_parameters(
        [text.replace("$(cat job.json)", JOB_JSON) for text in given], spec=spec
    )

    assert values.keys() <= declared.keys()
    assert all(
        isinstance(value, str) == (declared[name]["parameterType"] == "STRING")
        for name, value in values.items()
    )
    parse_job_options(values.get("job_options", {}))


def test_the_example_of_job_options_builds_a_job() -> None:
    options = parse_job_options(json.loads(JOB_JSON))
    config = TrainingJobConfig(name="job", num_workers=2, num_gpus=1, **options)

    job = PyTorchJobBuilder().render(config)

    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    assert job["spec"]["runPolicy"]["activeDeadlineSeconds"] == 7200
    pod = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H200"}
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    mounts = [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]]
    assert mounts == ["/cache", "/dev/shm"]


def test_the_table_of_job_options_is_whole() -> None:
    rows = re.findall(r"^\| (`.*?) \| (.*) \|$", TRAINING_JOBS, re.MULTILINE)
    table = {name: held for names, held in rows for name in re.findall(r"`(\w+)`", names)}

    assert table.keys() == {*JOB_OPTIONS}
    for name, kind in (
        ("pod", PodConfig),
        ("run_policy", RunPolicyConfig),
        ("elastic", ElasticConfig),
    ):
        assert {field.name for field in fields(kind)} <= {*re.findall(r"`(\w+)`", table[name])}
