from dataclasses import replace

import pytest

from kubeloop.errors import InputError
from kubeloop.kserve.endpoints import Endpoint, parse_endpoint
from kubeloop.pipelines.lineage import trace_endpoint
from kubeloop.pipelines.metadata import Artifact, MetadataSource, TaskRecord

DATASET = Artifact(
    artifact_id="1",
    name="dataset",
    type="Dataset",
    uri="/store/datasets/digits/commits/abc.json",
    metadata={
        "dataset": "digits",
        "version_hash": "abc",
        "source_uri": "/data/digits",
        "source_digest": "fff",
    },
)
TRIALS = Artifact(
    artifact_id="2",
    name="trials",
    type="Artifact",
    uri="/store/trials",
    metadata={
        "experiment": "tune-1",
        "best_trial": "tune-1-x",
        "best_trial_digest": "sha256:77",
        "best_parameters": {"learning_rate": 0.01},
    },
)
MODEL = Artifact(
    artifact_id="3",
    name="model",
    type="Model",
    uri="/store/models/digits/def",
    metadata={
        "digest": "sha256:def",
        "training_job": "train-1",
        "training_job_digest": "sha256:99",
        "trial": "tune-1-x",
        "hyperparameters": {"learning_rate": 0.01},
    },
)


def record(name: str, *, inputs: list[Artifact], outputs: list[Artifact]) -> TaskRecord:
    return TaskRecord(
        task_id=f"task-{name}",
        name=name,
        run_id="run-1",
        state="SUCCEEDED",
        input_parameters={},
        output_parameters={},
        input_artifacts={a.name: (a,) for a in inputs},
        output_artifacts={a.name: (a,) for a in outputs},
    )


class Record(MetadataSource):
    def __init__(self, tasks: list[TaskRecord]) -> None:
        self.tasks = tasks

    def list_tasks(self, run_id: str) -> list[TaskRecord]:
        return [task for task in self.tasks if task.run_id == run_id]

    def find_producer(self, artifact: Artifact) -> TaskRecord | None:
        for task in self.tasks:
            if (artifact,) in task.output_artifacts.values():
                return task
        return None


TASKS = [
    record("ingest-dataset", inputs=[], outputs=[DATASET]),
    record("tune-hyperparameters", inputs=[DATASET], outputs=[TRIALS]),
    record("train-model", inputs=[DATASET], outputs=[MODEL]),
]


@pytest.fixture
def endpoint() -> Endpoint:
    return parse_endpoint(
        {
            "metadata": {
                "name": "digits",
                "namespace": "default",
                "annotations": {
                    "kubeloop.dev/run-id": "run-1",
                    "kubeloop.dev/model-digest": "sha256:def",
                },
            },
            "spec": {"predictor": {"model": {"storageUri": MODEL.uri}}},
            "status": {"url": "http://127.0.0.1:1/serving/default/digits"},
        }
    )


def test_chain_runs_from_the_endpoint_to_the_source_with_digests(endpoint: Endpoint) -> None:
    chain = trace_endpoint(endpoint, Record(TASKS))
    assert [(node.kind, node.id) for node in chain] == [
        ("endpoint", "default/digits"),
        ("model", "def"),
        ("training_job", "train-1"),
        ("trial", "tune-1-x"),
        ("dataset", "digits@abc"),
        ("source", "digits"),
    ]
    assert [node.digest for node in chain[1:]] == [
        "sha256:def",
        "sha256:99",
        "sha256:77",
        "sha256:abc",
        "sha256:fff",
    ]
    assert chain[-1].uri == "/data/digits"


def test_model_trained_without_tuning_has_no_trial_in_its_chain(endpoint: Endpoint) -> None:
    model = replace(MODEL, metadata={**MODEL.metadata, "trial": ""})
    tasks = [TASKS[0], record("train-model", inputs=[DATASET], outputs=[model])]
    kinds = [node.kind for node in trace_endpoint(endpoint, Record(tasks))]
    assert kinds == ["endpoint", "model", "training_job", "dataset", "source"]


def test_endpoint_of_another_tool_is_refused_by_name(endpoint: Endpoint) -> None:
    with pytest.raises(InputError, match=r"default/digits has no annotation kubeloop\.dev/run-id"):
        trace_endpoint(replace(endpoint, annotations={}), Record(TASKS))


def test_lost_record_is_said(endpoint: Endpoint) -> None:
    with pytest.raises(InputError, match=r"Run run-1 has no record of a model at /store/models"):
        trace_endpoint(endpoint, Record([]))
