import json
from typing import Any

import pytest

from kubeloop.datasets.stores import OBJECT_STORE_SECRET
from kubeloop.errors import InputError
from kubeloop.training.job_options import parse_job_options
from kubeloop.training.jobs import ElasticConfig, PyTorchJobBuilder, TrainingJobConfig

EVERYTHING = """{
    "image": "me/runtime:2",
    "env": {"NCCL_DEBUG": "INFO"},
    "env_secrets": ["hub-token"],
    "annotations": {"example.com/owner": "me"},
    "restart_policy": "OnFailure",
    "run_policy": {
        "backoff_limit": 3.0, "active_deadline_seconds": 7200, "ttl_seconds_after_finished": 60,
        "clean_pod_policy": "Running"
    },
    "pod": {
        "node_selector": {"gpu": "h200"},
        "tolerations": [{"key": "nvidia.com/gpu", "effect": "NoExecute", "seconds": 30.0}],
        "affinity": {"nodeAffinity": {"preferred": []}},
        "priority_class": "high",
        "gang": {"scheduler": "volcano", "queue": "team-a", "min_available": 2},
        "volumes": [
            {"name": "cache", "kind": "claim", "source": "cache", "mount_path": "/cache"},
            {"name": "keys", "kind": "secret", "source": "keys", "mount_path": "/keys",
             "read_only": true}
        ],
        "shared_memory": "8Gi",
        "service_account": "trainer",
        "image_pull_secrets": ["registry"],
        "image_pull_policy": "Always",
        "termination_grace_seconds": 120
    }
}"""


def render(options: dict[str, Any], **settings: Any) -> dict[str, Any]:
    config = TrainingJobConfig(name="job", num_workers=2, **settings, **parse_job_options(options))
    return PyTorchJobBuilder().render(config)


def test_all_that_a_job_can_have_is_given_as_json() -> None:
    job = render(json.loads(EVERYTHING))

    assert job["metadata"]["annotations"] == {"example.com/owner": "me"}
    assert job["spec"]["runPolicy"] == {
        "backoffLimit": 3,
        "activeDeadlineSeconds": 7200,
        "ttlSecondsAfterFinished": 60,
        "cleanPodPolicy": "Running",
        "schedulingPolicy": {"queue": "team-a", "minAvailable": 2},
    }
    replica = job["spec"]["pytorchReplicaSpecs"]["Worker"]
    assert replica["restartPolicy"] == "OnFailure"
    pod = replica["template"]["spec"]
    (container,) = pod.pop("containers")
    assert container["image"] == "me/runtime:2"
    assert {"name": "NCCL_DEBUG", "value": "INFO"} in container["env"]
    assert [source["secretRef"]["name"] for source in container["envFrom"]] == [
        OBJECT_STORE_SECRET,
        "hub-token",
    ]
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == [
        "/cache",
        "/keys",
        "/dev/shm",
    ]
    assert pod == {
        "nodeSelector": {"gpu": "h200"},
        "tolerations": [
            {
                "key": "nvidia.com/gpu",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 30,
            }
        ],
        "affinity": {"nodeAffinity": {"preferred": []}},
        "priorityClassName": "high",
        "schedulerName": "volcano",
        "serviceAccountName": "trainer",
        "imagePullSecrets": [{"name": "registry"}],
        "terminationGracePeriodSeconds": 120,
        "volumes": [
            {"name": "cache", "persistentVolumeClaim": {"claimName": "cache"}},
            {"name": "keys", "secret": {"secretName": "keys"}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}},
        ],
    }


def test_an_elastic_job_is_given_as_json() -> None:
    options = parse_job_options({"elastic": {"min_workers": 1.0, "max_workers": 4.0}})

    assert options == {"elastic": ElasticConfig(min_workers=1, max_workers=4)}


def test_nothing_given_is_nothing_changed() -> None:
    assert render({}) == PyTorchJobBuilder().render(TrainingJobConfig(name="job", num_workers=2))
    assert parse_job_options({"pod": {"gang": None}})["pod"].gang is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pods": {}}, "job_options has no field 'pods', only image, .*; do you mean 'pod'?"),
        ({"num_gpus": 1}, "job_options has no field 'num_gpus', only image"),
        ({"pod": []}, r"job_options.pod must be an object, not \[\]"),
        ({"pod": {"gpu": 1}}, "job_options.pod has no field 'gpu', only node_selector"),
        ({"pod": {"node_selector": {"a": 1}}}, r"node_selector\['a'\] must be text, not 1"),
        ({"pod": {"volumes": {}}}, "job_options.pod.volumes must be a list"),
        (
            {"pod": {"volumes": [{"name": "a", "kind": "claim"}]}},
            r"job_options.pod.volumes\[0\].mount_path is missing; VolumeConfig needs it",
        ),
        (
            {"pod": {"volumes": [{"name": "a", "kind": "nfs", "mount_path": "/a"}]}},
            r"volumes\[0\].kind must be one of claim, config_map, secret, empty, not 'nfs'",
        ),
        (
            {"pod": {"volumes": [{"name": "a", "kind": "claim", "mount_path": "a"}]}},
            r"job_options.pod.volumes\[0\]: mount_path must be absolute, not 'a'",
        ),
        (
            {"pod": {"gang": {"scheduler": "kueue", "queue": "q", "min_available": 1}}},
            "job_options.pod.gang: min_available and timeout_seconds are Volcano's",
        ),
        (
            {"run_policy": {"backoff_limit": 1.5}},
            "job_options.run_policy.backoff_limit must be a whole number, not 1.5",
        ),
        ({"run_policy": {"suspend": "yes"}}, "run_policy.suspend must be true or false"),
        ({"run_policy": {"backoff_limit": True}}, "must be a whole number, not True"),
        ({"elastic": {"min_workers": 3}}, "job_options.elastic: min_workers must be at least 1"),
    ],
)
def test_what_does_not_fit_is_told_by_its_path(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_job_options(options)
