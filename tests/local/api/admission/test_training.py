"""What the PyTorchJob webhook refuses, with upstream's words."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kubeloop.errors import ApiError, InvalidError
from kubeloop.local.api.admission.training import PyTorchJobAdmission
from kubeloop.local.api.resources import PYTORCH_JOBS
from kubeloop.local.client import Manifest
from kubeloop.testing.api import memory_api

DENIED = (
    'admission webhook "validator.pytorchjob.training-operator.kubeflow.org" denied the request: '
)
REPLICA_SPECS = "spec.pytorchReplicaSpecs"
CONTAINERS = f"{REPLICA_SPECS}[Master].template.spec.containers"


def replica(num_replicas: int | None = 1, **container: Any) -> Manifest:  # any fields
    spec: Manifest = {
        "template": {"spec": {"containers": [{"name": "pytorch", "image": "x", **container}]}}
    }
    return spec if num_replicas is None else {"replicas": num_replicas, **spec}


def build_job(name: str = "digits", **spec: Any) -> Manifest:  # any fields of the spec
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"pytorchReplicaSpecs": {"Master": replica()}, **spec},
    }


def refusal_of(job: Manifest, old: Manifest | None = None) -> ApiError:
    with pytest.raises(ApiError) as caught:
        PyTorchJobAdmission().validate(job, old)
    return caught.value


@pytest.mark.parametrize(
    ("job", "text"),
    [
        pytest.param(
            build_job(pytorchReplicaSpecs=None),
            f"{REPLICA_SPECS}: Required value: must be required",
            id="no replica specs",
        ),
        pytest.param(
            build_job(pytorchReplicaSpecs={"Chief": replica()}),
            f'{REPLICA_SPECS}[Chief]: Unsupported value: "Chief": '
            'supported values: "Master", "Worker"',
            id="unknown replica type",
        ),
        pytest.param(
            build_job(pytorchReplicaSpecs={"Master": replica(image="")}),
            f"{CONTAINERS}[0].image: Required value: must be required",
            id="no image",
        ),
        pytest.param(
            build_job(pytorchReplicaSpecs={"Master": replica(name="main")}),
            f"{CONTAINERS}: Required value: must have at least one container with name pytorch",
            id="no container pytorch",
        ),
        pytest.param(
            build_job(pytorchReplicaSpecs={"Master": replica(2)}),
            f"{REPLICA_SPECS}[Master].replicas: Forbidden: must be 1",
            id="two masters",
        ),
        pytest.param(
            build_job(pytorchReplicaSpecs={"Master": replica(None)}),
            f"{REPLICA_SPECS}[Master].replicas: Forbidden: must be 1",
            id="number of masters not given",
        ),
        pytest.param(
            build_job(pytorchReplicaSpecs={"Worker": replica(0)}),
            f"{REPLICA_SPECS}[Worker].replicas: Forbidden: must be at least 1",
            id="no workers",
        ),
        pytest.param(
            build_job(elasticPolicy={}),
            f"{REPLICA_SPECS}[Worker]: Required value: "
            "must be configured if elastic policy is used",
            id="elastic without workers",
        ),
        pytest.param(
            build_job(
                pytorchReplicaSpecs={"Worker": replica()},
                elasticPolicy={"nProcPerNode": 2},
                nprocPerNode="2",
            ),
            "spec.elasticPolicy.nProcPerNode: Forbidden: must not be used with spec.nprocPerNode",
            id="processes per node twice",
        ),
        pytest.param(
            build_job(runPolicy={"managedBy": "me"}),
            'spec.runPolicy.managedBy: Unsupported value: "me": supported values: '
            '"kubeflow.org/training-operator", "kueue.x-k8s.io/multikueue"',
            id="unknown manager",
        ),
    ],
)
def test_one_fault_is_refused_with_403_and_its_field(job: Manifest, text: str) -> None:
    error = refusal_of(job)

    assert (error.status, error.reason) == (403, "Forbidden")
    assert error.message == DENIED + text


def test_a_name_that_is_no_dns_label_is_refused() -> None:
    text = refusal_of(build_job("digits.v1")).message

    assert text.startswith(
        DENIED + 'metadata.name: Invalid value: "digits.v1": should match: a DNS-1035 label must'
    )
    assert "must be no more than 63 characters" in refusal_of(build_job("d" * 64)).message


def test_all_faults_are_collected() -> None:
    job = build_job(pytorchReplicaSpecs={"Master": {"template": {"spec": {}}}})

    assert refusal_of(job).message == DENIED + (
        f"[{CONTAINERS}: Required value: must be specified, "
        f"{CONTAINERS}: Required value: must have at least one container with name pytorch, "
        f"{REPLICA_SPECS}[Master].replicas: Forbidden: must be 1]"
    )


def test_an_update_is_held_to_the_rules_of_a_create() -> None:
    changed = build_job(pytorchReplicaSpecs={"Master": replica(2)})

    assert refusal_of(changed, build_job()).status == 403


def test_good_jobs_pass() -> None:
    admission = PyTorchJobAdmission()

    admission.validate(build_job(), None)
    admission.validate(build_job(pytorchReplicaSpecs={"Worker": replica(None)}), None)
    admission.validate(
        build_job(
            pytorchReplicaSpecs={"Master": replica(), "Worker": replica(4)},
            runPolicy={"managedBy": "kueue.x-k8s.io/multikueue", "suspend": True},
            elasticPolicy={"rdzvConf": [{"key": "a", "value": "b"}]},
        ),
        build_job(),
    )


@pytest.mark.parametrize(
    ("job", "field", "given"),
    [
        (build_job(nprocPerNode=2), "spec.nprocPerNode", "integer"),
        (build_job(runPolicy={"suspend": "yes"}), "spec.runPolicy.suspend", "string"),
        (build_job(runPolicy={"backoffLimit": True}), "spec.runPolicy.backoffLimit", "boolean"),
        (build_job(pytorchReplicaSpecs=[]), "spec.pytorchReplicaSpecs", "array"),
        (
            build_job(pytorchReplicaSpecs={"Master": {**replica(), "replicas": "1"}}),
            "spec.pytorchReplicaSpecs.Master.replicas",
            "string",
        ),
        ({**build_job(), "spec": "x"}, "spec", "string"),
    ],
)
def test_a_field_of_the_wrong_type_is_refused_with_422(
    job: Manifest, field: str, given: str
) -> None:
    error = refusal_of(job)

    assert isinstance(error, InvalidError)
    assert f'{field}: Invalid value: "{given}": {field} in body must be of type' in error.message
    assert error.details.causes[0]["field"] == field


def test_a_run_policy_says_whether_the_job_is_suspended() -> None:
    admission = PyTorchJobAdmission()

    def default(**spec: Any) -> Manifest:  # any fields of the spec
        return dict(admission.default(build_job(**spec))["spec"].get("runPolicy") or {})

    assert default(runPolicy={"backoffLimit": 1}) == {"backoffLimit": 1, "suspend": False}
    assert default(runPolicy={"suspend": True}) == {"suspend": True}
    assert default() == {}


def test_the_queue_cannot_change() -> None:
    old = build_job(runPolicy={"schedulingPolicy": {"queue": "a"}})
    new = build_job(runPolicy={"schedulingPolicy": {"queue": "b"}})

    assert "schedulingPolicy.queue is immutable" in refusal_of(new, old).message


def test_the_deprecated_field_is_warned_about() -> None:
    job = build_job(elasticPolicy={"nProcPerNode": 2})

    assert list(PyTorchJobAdmission().warn(job)) == [
        "spec.elasticPolicy.nProcPerNode is deprecated, use spec.nprocPerNode instead"
    ]
    assert list(PyTorchJobAdmission().warn(build_job())) == []


def test_the_api_server_asks_the_hook() -> None:
    async def scenario() -> None:
        async with memory_api() as client:
            with pytest.raises(ApiError, match="denied the request"):
                await client.create(build_job(pytorchReplicaSpecs={"Master": replica(2)}))
            await client.create(build_job())
            with pytest.raises(ApiError, match="denied the request"):
                await client.patch(
                    PYTORCH_JOBS,
                    "digits",
                    namespace="default",
                    body={"spec": {"pytorchReplicaSpecs": {"Master": {"replicas": 3}}}},
                )

    asyncio.run(scenario())
