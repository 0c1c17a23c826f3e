import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from kubeloop.errors import InputError
from kubeloop.training.jobs import (
    JOB_BUILDERS,
    ElasticConfig,
    PyTorchJobBuilder,
    RestartPolicy,
    TrainingJobConfig,
    render_value,
)
from kubeloop.training.placement import (
    CleanPodPolicy,
    GangConfig,
    GangScheduler,
    PodConfig,
    RunPolicyConfig,
    Toleration,
    VolumeConfig,
    VolumeKind,
)

BUILDER = PyTorchJobBuilder()


def replica(manifest: dict[str, Any], kind: str) -> dict[str, Any]:
    specs: dict[str, Any] = manifest["spec"]["pytorchReplicaSpecs"]
    result: dict[str, Any] = specs[kind]
    return result


def container(manifest: dict[str, Any], kind: str = "Master") -> dict[str, Any]:
    result: dict[str, Any] = replica(manifest, kind)["template"]["spec"]["containers"][0]
    return result


def test_one_worker_is_a_master_alone() -> None:
    manifest = BUILDER.render(TrainingJobConfig(name="digits"))

    assert list(manifest["spec"]["pytorchReplicaSpecs"]) == ["Master"]
    assert replica(manifest, "Master")["replicas"] == 1


def test_more_workers_share_the_masters_template() -> None:
    manifest = BUILDER.render(TrainingJobConfig(name="digits", num_workers=3))

    assert replica(manifest, "Worker")["replicas"] == 2
    assert replica(manifest, "Worker")["template"] == replica(manifest, "Master")["template"]


def test_program_contract_is_spelled_as_arguments() -> None:
    config = TrainingJobConfig(
        name="digits",
        dataset_uri="/data/m.json",
        model_uri="/models/a",
        checkpoint_uri="/checkpoints/a",
        variants=("onnx", "int8"),
        hyperparameters={"learning_rate": 1e-05, "epochs": 3, "augment": True},
    )

    rendered = container(BUILDER.render(config))

    assert rendered["command"] == ["python", "-u", "-m", "kubeloop.training.programs.image"]
    assert rendered["args"] == [
        "--dataset",
        "/data/m.json",
        "--model",
        "/models/a",
        "--checkpoint",
        "/checkpoints/a",
        "--variants",
        "onnx,int8",
        "--variant_tolerance",
        "0.01",
        "--learning_rate",
        "1e-05",
        "--epochs",
        "3",
        "--augment",
        "true",
    ]


def test_trial_placeholders_pass_through() -> None:
    config = TrainingJobConfig(
        name="digits",
        model_uri="/models/${trialParameters.name}",
        hyperparameters={"learning_rate": "${trialParameters.lr}"},
    )

    arguments = container(BUILDER.render(config))["args"]

    assert arguments == [
        *("--model", "/models/${trialParameters.name}"),
        *("--learning_rate", "${trialParameters.lr}"),
    ]


def test_own_command_replaces_the_program() -> None:
    config = TrainingJobConfig(name="mine", image="me/train:1", command=("python", "train.py"))

    rendered = container(BUILDER.render(config))

    assert (rendered["image"], rendered["command"]) == ("me/train:1", ["python", "train.py"])


def test_several_processes_start_under_torchrun() -> None:
    manifest = BUILDER.render(TrainingJobConfig(name="digits", processes_per_worker=2))

    assert manifest["spec"]["nprocPerNode"] == "2"
    assert "kubeloop.training.launch" in container(manifest)["command"]


def test_resources_are_requested_and_limited_alike() -> None:
    config = TrainingJobConfig(name="digits", cpu="2", memory="3Gi", num_gpus=1)

    resources = container(BUILDER.render(config))["resources"]

    assert resources["requests"] == {"cpu": "2", "memory": "3Gi", "nvidia.com/gpu": "1"}
    assert resources["limits"] == resources["requests"]


def test_environment_carries_provenance_secrets_and_the_users_variables() -> None:
    config = TrainingJobConfig(name="digits", run_id="r1", env={"A": "1"}, env_secrets=("s3",))

    manifest = BUILDER.render(config)

    env = {entry["name"]: entry for entry in container(manifest)["env"]}
    assert env["KUBELOOP_RUN_ID"]["value"] == "r1"
    assert env["A"]["value"] == "1"
    field_path = env["KUBELOOP_JOB_NAME"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert field_path == "metadata.labels['training.kubeflow.org/job-name']"
    assert container(manifest)["envFrom"] == [{"secretRef": {"name": "s3", "optional": True}}]
    assert manifest["metadata"]["labels"] == {"pipeline/runid": "r1"}


def test_run_policy_is_passed_on() -> None:
    config = TrainingJobConfig(
        name="digits",
        run_policy=RunPolicyConfig(backoff_limit=2, active_deadline_seconds=60),
        restart_policy=RestartPolicy.NEVER,
    )

    manifest = BUILDER.render(config)

    assert manifest["spec"]["runPolicy"] == {
        "activeDeadlineSeconds": 60,
        "backoffLimit": 2,
        "cleanPodPolicy": "None",
    }
    assert replica(manifest, "Master")["restartPolicy"] == "Never"


def test_the_whole_run_policy_is_spelled_as_upstream_has_it() -> None:
    policy = RunPolicyConfig(
        backoff_limit=0,
        active_deadline_seconds=60,
        ttl_seconds_after_finished=5,
        clean_pod_policy=CleanPodPolicy.ALL,
        suspend=True,
    )

    manifest = BUILDER.render(TrainingJobConfig(name="digits", run_policy=policy))

    assert manifest["spec"]["runPolicy"] == {
        "activeDeadlineSeconds": 60,
        "backoffLimit": 0,
        "cleanPodPolicy": "All",
        "suspend": True,
        "ttlSecondsAfterFinished": 5,
    }


def test_pods_go_where_they_are_told_and_share_what_they_are_given() -> None:
    affinity: dict[str, Any] = {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}
    }
    pod = PodConfig(
        node_selector={"gpu": "h100"},
        tolerations=(
            Toleration(key="gpu", value="yes", effect="NoSchedule"),
            Toleration(key="gone", effect="NoExecute", seconds=9),
            Toleration(),
        ),
        affinity=affinity,
        priority_class="high",
        volumes=(
            VolumeConfig(
                name="data",
                mount_path="/data",
                kind=VolumeKind.CLAIM,
                source="clinc",
                read_only=True,
                sub_path="a/b",
            ),
            VolumeConfig(name="cfg", mount_path="/cfg", kind=VolumeKind.CONFIG_MAP, source="c"),
            VolumeConfig(name="key", mount_path="/key", kind=VolumeKind.SECRET, source="s"),
            VolumeConfig(name="tmp", mount_path="/scratch", kind=VolumeKind.EMPTY, source="1Gi"),
        ),
        shared_memory="2Gi",
        service_account="trainer",
        image_pull_policy="Always",
        image_pull_secrets=("registry",),
        termination_grace_seconds=120,
    )

    manifest = BUILDER.render(TrainingJobConfig(name="digits", num_workers=2, pod=pod))

    spec = replica(manifest, "Worker")["template"]["spec"]
    trained = spec.pop("containers")[0]
    assert spec == {
        "nodeSelector": {"gpu": "h100"},
        "tolerations": [
            {"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"},
            {"key": "gone", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 9},
            {"operator": "Exists"},
        ],
        "affinity": affinity,
        "priorityClassName": "high",
        "serviceAccountName": "trainer",
        "imagePullSecrets": [{"name": "registry"}],
        "terminationGracePeriodSeconds": 120,
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "clinc", "readOnly": True}},
            {"name": "cfg", "configMap": {"name": "c"}},
            {"name": "key", "secret": {"secretName": "s"}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}},
        ],
    }
    assert trained["imagePullPolicy"] == "Always"
    assert trained["volumeMounts"] == [
        {"name": "data", "mountPath": "/data", "readOnly": True, "subPath": "a/b"},
        {"name": "cfg", "mountPath": "/cfg"},
        {"name": "key", "mountPath": "/key"},
        {"name": "tmp", "mountPath": "/scratch"},
        {"name": "shared-memory", "mountPath": "/dev/shm"},
    ]


def test_volcano_is_told_how_many_replicas_start_together() -> None:
    def render(**settings: int) -> dict[str, Any]:
        gang = GangConfig(
            scheduler=GangScheduler.VOLCANO, queue="research", priority_class="high", **settings
        )
        pod = PodConfig(gang=gang)
        return BUILDER.render(TrainingJobConfig(name="digits", num_workers=3, pod=pod))

    manifest = render()

    assert manifest["spec"]["runPolicy"]["schedulingPolicy"] == {
        "queue": "research",
        "minAvailable": 3,
        "priorityClass": "high",
    }
    partial = render(min_available=2, timeout_seconds=60)["spec"]["runPolicy"]["schedulingPolicy"]
    assert (partial["minAvailable"], partial["scheduleTimeoutSeconds"]) == (2, 60)
    assert replica(manifest, "Worker")["template"]["spec"]["schedulerName"] == "volcano"


def test_kueue_queues_a_suspended_job() -> None:
    gang = GangConfig(scheduler=GangScheduler.KUEUE, queue="research", priority_class="high")

    manifest = BUILDER.render(
        TrainingJobConfig(name="digits", run_id="r1", pod=PodConfig(gang=gang))
    )

    assert manifest["metadata"]["labels"] == {
        "pipeline/runid": "r1",
        "kueue.x-k8s.io/queue-name": "research",
        "kueue.x-k8s.io/priority-class": "high",
    }
    assert manifest["spec"]["runPolicy"]["suspend"] is True
    assert "schedulerName" not in replica(manifest, "Master")["template"]["spec"]


def test_elastic_workers_have_no_master_and_meet_through_torchrun() -> None:
    elastic = ElasticConfig(min_workers=1, max_workers=4, max_restarts=7)

    manifest = BUILDER.render(TrainingJobConfig(name="digits", num_workers=2, elastic=elastic))

    assert list(manifest["spec"]["pytorchReplicaSpecs"]) == ["Worker"]
    assert manifest["spec"]["elasticPolicy"] == {
        "minReplicas": 1,
        "maxReplicas": 4,
        "maxRestarts": 7,
        "rdzvBackend": "c10d",
    }
    assert manifest["spec"]["nprocPerNode"] == "1"
    assert "kubeloop.training.launch" in container(manifest, "Worker")["command"]


def volume(**changes: Any) -> VolumeConfig:
    return VolumeConfig(**{"name": "a", "mount_path": "/a", "kind": VolumeKind.EMPTY} | changes)


def gang(**changes: Any) -> GangConfig:
    return GangConfig(**{"scheduler": GangScheduler.VOLCANO, "queue": "q"} | changes)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RunPolicyConfig(backoff_limit=-1), "backoff_limit must be at least 0"),
        (lambda: ElasticConfig(min_workers=3, max_workers=2), "at most max_workers"),
        (
            lambda: TrainingJobConfig(name="a", num_workers=3, elastic=ElasticConfig()),
            "num_workers must be from 1 to 2",
        ),
        (
            lambda: GangConfig(scheduler=GangScheduler.KUEUE, queue="q", min_available=1),
            "are Volcano's",
        ),
        (
            lambda: VolumeConfig(name="a", mount_path="a", kind=VolumeKind.EMPTY),
            "mount_path must be absolute",
        ),
        (
            lambda: VolumeConfig(name="a", mount_path="/a", kind=VolumeKind.CLAIM),
            "needs the name of its claim",
        ),
        (
            lambda: PodConfig(
                shared_memory="1Gi",
                volumes=(VolumeConfig(name="a", mount_path="/dev/shm", kind=VolumeKind.EMPTY),),
            ),
            "Two volumes are named or mounted as '/dev/shm'",
        ),
        (lambda: RunPolicyConfig(active_deadline_seconds=-1), "active_deadline_seconds must be"),
        (lambda: RunPolicyConfig(ttl_seconds_after_finished=-1), "ttl_seconds_after_finished must"),
        (lambda: Toleration(effect="Never"), r"Toleration\.effect must be one of NoSchedule"),
        (lambda: Toleration(key="a b"), r"Toleration\.key has the key 'a b'"),
        (lambda: Toleration(value="a"), r"Toleration\.value 'a' needs a key"),
        (lambda: Toleration(seconds=1), r"Toleration\.seconds is for the effect NoExecute"),
        (lambda: volume(name="A"), r"VolumeConfig\.name must be"),
        (lambda: volume(source="much"), r"VolumeConfig\.source must be a positive"),
        (
            lambda: volume(kind=VolumeKind.CLAIM, source="A"),
            r"VolumeConfig\.source must name a Kubernetes object",
        ),
        (lambda: volume(sub_path="../a"), "sub_path must stay in the volume"),
        (lambda: gang(queue=""), "queue must name"),
        (lambda: gang(priority_class="A"), "priority_class must name"),
        (lambda: gang(min_available=0), "min_available must be at least 1"),
        (lambda: gang(timeout_seconds=0), "timeout_seconds must be at least 1"),
        (lambda: PodConfig(node_selector={"a b": "c"}), "node_selector has the key 'a b'"),
        (lambda: PodConfig(node_selector={"a": "b c"}), r"node_selector\['a'\] must be"),
        (lambda: PodConfig(affinity={"node": {}}), r"affinity has \['node'\]; it may have node"),
        (lambda: PodConfig(priority_class="A"), "priority_class must name"),
        (lambda: PodConfig(shared_memory="0"), "shared_memory must be a positive"),
        (lambda: PodConfig(service_account="a/b"), "service_account must name"),
        (lambda: PodConfig(image_pull_policy="Often"), "image_pull_policy must be one of Always"),
        (lambda: PodConfig(image_pull_secrets=("",)), "image_pull_secrets must name"),
        (lambda: PodConfig(termination_grace_seconds=-1), "termination_grace_seconds must be"),
    ],
)
def test_placement_that_cannot_work_is_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "9digits"}, "DNS-1035"),
        ({"name": "d" * 64}, "DNS-1035"),
        ({"program": "sound"}, "Unknown training program 'sound'; known are: image"),
        ({"num_workers": 0}, "num_workers must be at least 1"),
        ({"num_gpus": -1}, "num_gpus must be at least 0"),
        ({"processes_per_worker": 0}, "processes_per_worker must be at least 1"),
        ({"namespace": "a.b"}, "namespace must be"),
        ({"image": ""}, "image must name"),
        ({"cpu": "two"}, "cpu must be a positive Kubernetes quantity .* not 'two'"),
        ({"cpu": "0.0"}, "cpu must be a positive"),
        ({"memory": "2GB"}, "memory must be a positive"),
        ({"memory": "-1Gi"}, "memory must be a positive"),
        ({"env": {"1A": "x"}}, "env has '1A'"),
        ({"env_secrets": ("My_Secret",)}, "env_secrets must name"),
        ({"labels": {"a": "b c"}}, r"labels\['a'\] must be"),
        ({"annotations": {"a b": "c"}}, "annotations has the key 'a b'"),
        ({"hyperparameters": {"a b": 1}}, "'a b' cannot be a command-line flag"),
        ({"hyperparameters": {"model": "x"}}, "'model' is taken: --model is part"),
        ({"hyperparameters": {"rate": float("nan")}}, "rate must be finite"),
        ({"hyperparameters": {"rate": [1]}}, "rate must be text, a number or a boolean"),
    ],
)
def test_bad_configuration_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainingJobConfig(**({"name": "digits"} | changes))


@pytest.mark.parametrize("amount", ["1", "0.5", "500m", "1.5Gi", "2e9", "128974848", "1E"])
def test_kubernetes_quantities_pass(amount: str) -> None:
    assert TrainingJobConfig(name="digits", cpu=amount, memory=amount).memory == amount


def test_numbers_render_without_loss() -> None:
    assert [render_value(value) for value in (0.1 + 0.2, 3, False)] == [
        "0.30000000000000004",
        "3",
        "false",
    ]


def test_the_builder_is_registered_under_its_kind() -> None:
    assert JOB_BUILDERS["PyTorchJob"].container == "pytorch"


def test_building_jobs_does_not_load_torch() -> None:
    code = "import sys, kubeloop.training.jobs; print('torch' in sys.modules)"

    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout

    assert output.strip() == "False"
