"""The pods, services and environment of a PyTorchJob, field by field."""

from __future__ import annotations

from typing import Any

from kubeloop.local.api.resources import PODS, PYTORCH_JOBS, SERVICES
from kubeloop.local.client import Manifest
from kubeloop.local.operators.pytorchjob import PyTorchJobReconciler
from kubeloop.local.operators.pytorchjob_environment import build_environment
from kubeloop.local.operators.pytorchjob_pods import build_pod, build_service
from kubeloop.local.operators.pytorchjob_spec import apply_defaults
from kubeloop.testing.stage import Stage, play


def replica(num_replicas: int | None = 1, **extra: Any) -> Manifest:  # any fields of a replica spec
    container = {"name": "pytorch", "image": "kubeloop/runtime", "command": ["true"]}
    spec: Manifest = {"template": {"spec": {"containers": [container]}}, **extra}
    return spec if num_replicas is None else {"replicas": num_replicas, **spec}


def build_job(*, master: Manifest | None = None, worker: Manifest | None = None,
              **spec: Any) -> Manifest:  # fmt: skip  # any fields of the spec
    replicas = {"Master": master, "Worker": worker}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "digits", "namespace": "default", "uid": "u-1"},
        "spec": {"pytorchReplicaSpecs": {k: v for k, v in replicas.items() if v}, **spec},
    }


def environment(job: Manifest, *, replica_type: str, index: int = 0) -> list[tuple[str, str]]:
    entries = build_environment(apply_defaults(job), replica_type=replica_type, index=index)
    return [(entry["name"], entry["value"]) for entry in entries]


def test_master_gets_its_environment_in_order() -> None:
    job = build_job(master=replica(), worker=replica(2))

    assert environment(job, replica_type="Master") == [
        ("PYTHONUNBUFFERED", "1"),
        ("MASTER_PORT", "23456"),
        ("PET_MASTER_PORT", "23456"),
        ("MASTER_ADDR", "digits-master-0"),
        ("PET_MASTER_ADDR", "digits-master-0"),
        ("WORLD_SIZE", "3"),
        ("RANK", "0"),
        ("PET_NODE_RANK", "0"),
        ("PET_NPROC_PER_NODE", "auto"),
        ("PET_NNODES", "3"),
    ]


def test_a_workers_rank_is_one_above_its_index() -> None:
    job = build_job(master=replica(), worker=replica(2))

    worker = dict(environment(job, replica_type="Worker", index=1))

    assert (worker["RANK"], worker["PET_NODE_RANK"]) == ("2", "2")
    assert worker["MASTER_ADDR"] == "digits-master-0"


def test_processes_per_node_multiply_the_world_size() -> None:
    job = build_job(master=replica(), worker=replica(2), nprocPerNode="4")

    values = dict(environment(job, replica_type="Master"))

    assert values["WORLD_SIZE"] == "12"
    assert values["PET_NPROC_PER_NODE"] == "4"
    assert values["PET_NNODES"] == "3"


def test_the_masters_own_port_is_used() -> None:
    job = build_job(master=replica(), worker=replica())
    ports = [{"name": "pytorchjob-port", "containerPort": 29500}]
    job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]["ports"] = (
        ports
    )

    assert dict(environment(job, replica_type="Worker"))["MASTER_PORT"] == "29500"


def test_workers_without_a_master_get_no_master_environment() -> None:
    assert environment(build_job(worker=replica(2)), replica_type="Worker") == [
        ("PYTHONUNBUFFERED", "1"),
        ("PET_NPROC_PER_NODE", "auto"),
        ("PET_NNODES", "2"),
    ]


def test_elastic_workers_get_the_rendezvous_in_order() -> None:
    elastic = {
        "minReplicas": 1,
        "maxReplicas": 4,
        "maxRestarts": 3,
        "nProcPerNode": 2,
        "rdzvId": "run-7",
        "rdzvConf": [{"key": "timeout", "value": "60"}, {"key": "is_host", "value": "1"}],
        "standalone": True,
    }

    assert environment(
        build_job(worker=replica(2), elasticPolicy=elastic), replica_type="Worker", index=1
    ) == [
        ("PYTHONUNBUFFERED", "1"),
        ("PET_RDZV_ENDPOINT", "digits-worker-0:23456"),
        ("PET_RDZV_BACKEND", "c10d"),
        ("PET_NNODES", "1:4"),
        ("PET_MAX_RESTARTS", "3"),
        ("PET_NPROC_PER_NODE", "2"),
        ("PET_RDZV_ID", "run-7"),
        ("PET_RDZV_CONF", "timeout=60,is_host=1"),
        ("PET_STANDALONE", ""),
    ]


def test_elastic_bounds_default_to_each_other_and_then_to_the_workers() -> None:
    def nnodes(elastic: Manifest) -> str:
        job = build_job(worker=replica(3), elasticPolicy=elastic)
        return dict(environment(job, replica_type="Worker"))["PET_NNODES"]

    assert nnodes({"minReplicas": 2}) == "2:2"
    assert nnodes({"maxReplicas": 5}) == "5:5"
    assert nnodes({}) == "3:3"


def test_elastic_rendezvous_can_be_elsewhere() -> None:
    elastic = {"rdzvHost": "etcd", "rdzvPort": 2379, "rdzvBackend": "etcd-v2"}
    job = build_job(worker=replica(2), elasticPolicy=elastic)

    values = dict(environment(job, replica_type="Worker"))

    assert values["PET_RDZV_ENDPOINT"] == "etcd:2379"
    assert values["PET_RDZV_BACKEND"] == "etcd-v2"


def test_defaults_are_filled_in_a_copy() -> None:
    job = build_job(worker=replica(None))

    spec = apply_defaults(job)["spec"]

    worker = spec["pytorchReplicaSpecs"]["Worker"]
    assert spec["runPolicy"] == {"cleanPodPolicy": "None"}
    assert spec["nprocPerNode"] == "auto"
    assert (worker["replicas"], worker["restartPolicy"]) == (1, "OnFailure")
    assert worker["template"]["spec"]["containers"][0]["ports"] == [
        {"name": "pytorchjob-port", "containerPort": 23456}
    ]
    assert job == build_job(worker=replica(None))


def test_replica_types_in_the_wrong_case_are_renamed() -> None:
    job = build_job()
    job["spec"]["pytorchReplicaSpecs"] = {"MASTER": replica(), "worker": replica()}

    assert list(apply_defaults(job)["spec"]["pytorchReplicaSpecs"]) == ["Master", "Worker"]


def test_the_default_port_goes_to_the_container_named_pytorch() -> None:
    worker = replica()
    worker["template"]["spec"]["containers"].insert(0, {"name": "sidecar", "image": "x"})

    [sidecar, trainer] = apply_defaults(build_job(worker=worker))["spec"]["pytorchReplicaSpecs"][
        "Worker"
    ]["template"]["spec"]["containers"]

    assert "ports" not in sidecar
    assert trainer["ports"] == [{"name": "pytorchjob-port", "containerPort": 23456}]


def test_a_pod_carries_labels_owner_and_the_templates_metadata() -> None:
    worker = replica()
    worker["template"]["metadata"] = {"labels": {"team": "vision"}, "annotations": {"note": "x"}}
    job = apply_defaults(build_job(master=replica(), worker=worker))

    pod = build_pod(job, replica_type="Worker", index=0)

    assert pod["metadata"] == {
        "name": "digits-worker-0",
        "namespace": "default",
        "labels": {
            "team": "vision",
            "training.kubeflow.org/operator-name": "pytorchjob-controller",
            "training.kubeflow.org/job-name": "digits",
            "training.kubeflow.org/replica-type": "worker",
            "training.kubeflow.org/replica-index": "0",
        },
        "annotations": {"note": "x"},
        "ownerReferences": [
            {
                "apiVersion": "kubeflow.org/v1",
                "kind": "PyTorchJob",
                "name": "digits",
                "uid": "u-1",
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def test_the_master_role_is_the_master_or_else_the_first_worker() -> None:
    def role(job: Manifest, replica_type: str, index: int = 0) -> str | None:
        pod = build_pod(apply_defaults(job), replica_type=replica_type, index=index)
        role: str | None = pod["metadata"]["labels"].get("training.kubeflow.org/job-role")
        return role

    with_master = build_job(master=replica(), worker=replica(2))
    without_master = build_job(worker=replica(2))

    assert role(with_master, "Master") == "master"
    assert role(with_master, "Worker") is None
    assert role(without_master, "Worker", 0) == "master"
    assert role(without_master, "Worker", 1) is None


def test_every_container_gets_the_environment_after_its_own() -> None:
    worker = replica()
    containers = worker["template"]["spec"]["containers"]
    containers[0]["env"] = [{"name": "MINE", "value": "1"}]
    containers.append({"name": "sidecar", "image": "x"})
    job = apply_defaults(build_job(worker=worker))

    pod = build_pod(job, replica_type="Worker", index=0)

    trainer, sidecar = pod["spec"]["containers"]
    added = build_environment(job, replica_type="Worker", index=0)
    assert trainer["env"] == [{"name": "MINE", "value": "1"}, *added]
    assert sidecar["env"] == added


def test_a_worker_waits_for_the_masters_name_after_its_own_init_containers() -> None:
    worker = replica()
    worker["template"]["spec"]["initContainers"] = [{"name": "mine", "image": "x"}]
    job = apply_defaults(build_job(master=replica(), worker=worker))

    mine, waiting = build_pod(job, replica_type="Worker", index=0)["spec"]["initContainers"]

    assert mine == {"name": "mine", "image": "x"}
    assert (waiting["name"], waiting["image"]) == ("init-pytorch", "alpine:3.10")
    assert waiting["imagePullPolicy"] == "IfNotPresent"
    assert waiting["env"] == [{"name": "MASTER_ADDR", "value": "digits-master-0"}]
    assert waiting["resources"] == {
        "limits": {"cpu": "100m", "memory": "20Mi"},
        "requests": {"cpu": "50m", "memory": "10Mi"},
    }


def test_nobody_waits_for_a_master_but_its_workers() -> None:
    job = apply_defaults(build_job(master=replica(), worker=replica()))
    without_master = apply_defaults(build_job(worker=replica()))

    assert "initContainers" not in build_pod(job, replica_type="Master", index=0)["spec"]
    assert "initContainers" not in build_pod(without_master, replica_type="Worker", index=0)["spec"]


def test_the_replicas_restart_policy_replaces_the_templates() -> None:
    def policy_of(policy: str) -> str:
        worker = replica(restartPolicy=policy)
        worker["template"]["spec"]["restartPolicy"] = "Always"
        pod = build_pod(apply_defaults(build_job(worker=worker)), replica_type="Worker", index=0)
        return str(pod["spec"]["restartPolicy"])

    assert policy_of("OnFailure") == "OnFailure"
    assert policy_of("Never") == "Never"
    assert policy_of("ExitCode") == "Never"


def test_a_service_is_headless_and_selects_one_replica() -> None:
    worker = replica()
    worker["template"]["spec"]["containers"][0]["ports"] = [
        {"name": "metrics", "containerPort": 9000},
        {"containerPort": 9001},
    ]
    job = apply_defaults(build_job(worker=worker))

    service = build_service(job, replica_type="Worker", index=0)

    labels = {
        "training.kubeflow.org/operator-name": "pytorchjob-controller",
        "training.kubeflow.org/job-name": "digits",
        "training.kubeflow.org/replica-type": "worker",
        "training.kubeflow.org/replica-index": "0",
    }
    assert service["metadata"]["name"] == "digits-worker-0"
    assert service["metadata"]["labels"] == labels
    assert service["metadata"]["ownerReferences"][0]["uid"] == "u-1"
    assert service["spec"] == {
        "clusterIP": "None",
        "selector": labels,
        "ports": [
            {"name": "metrics", "port": 9000},
            {"name": "pytorchjob-port", "port": 23456},
        ],
    }


def test_a_pass_creates_one_pod_and_one_service_a_replica() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job(master=replica(), worker=replica(2)))

        await stage.step("digits")

        names = ["digits-master-0", "digits-worker-0", "digits-worker-1"]
        assert await stage.names(PODS) == names
        assert await stage.names(SERVICES) == names
        assert len(await stage.events("SuccessfulCreatePod")) == 3
        assert len(await stage.events("SuccessfulCreateService")) == 3

    play(PyTorchJobReconciler, scenario)


def test_a_second_pass_changes_nothing() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job(master=replica(), worker=replica(2)))
        await stage.step("digits")
        before = await stage.get("digits")

        stage.clock.advance(60)
        await stage.step("digits")

        assert await stage.get("digits") == before
        assert len(await stage.events("SuccessfulCreatePod")) == 3

    play(PyTorchJobReconciler, scenario)


def test_the_stored_spec_stays_as_the_user_wrote_it() -> None:
    async def scenario(stage: Stage) -> None:
        job = build_job(master=replica(), worker=replica(None))
        await stage.client.create(job)

        await stage.step("digits")

        assert (await stage.get("digits"))["spec"] == job["spec"]

    play(PyTorchJobReconciler, scenario)


def test_a_restart_policy_in_the_template_is_warned_about() -> None:
    async def scenario(stage: Stage) -> None:
        worker = replica()
        worker["template"]["spec"]["restartPolicy"] = "Always"
        await stage.client.create(build_job(worker=worker))

        await stage.step("digits")

        [event] = await stage.events("SetPodTemplateRestartPolicy")
        assert event["type"] == "Warning"

    play(PyTorchJobReconciler, scenario)


def test_scaling_down_deletes_the_highest_indices_and_up_creates_them() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job(master=replica(), worker=replica(3)))
        await stage.step("digits")

        await stage.change_spec("digits", {"pytorchReplicaSpecs": {"Worker": {"replicas": 1}}})
        await stage.step("digits")

        assert await stage.names(PODS) == ["digits-master-0", "digits-worker-0"]
        assert await stage.names(SERVICES) == ["digits-master-0", "digits-worker-0"]

        await stage.change_spec("digits", {"pytorchReplicaSpecs": {"Worker": {"replicas": 2}}})
        await stage.step("digits")

        assert (await stage.names(PODS))[-1] == "digits-worker-1"

    play(PyTorchJobReconciler, scenario)


def test_a_pod_that_disappears_is_created_again() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job(master=replica()))
        await stage.step("digits")
        await stage.client.delete(PODS, "digits-master-0", namespace="default")

        await stage.step("digits")

        assert await stage.names(PODS) == ["digits-master-0"]

    play(PyTorchJobReconciler, scenario)


def test_a_foreign_pod_in_the_way_is_reported_and_left_alone() -> None:
    async def scenario(stage: Stage) -> None:
        foreign = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "digits-master-0", "namespace": "default"},
            "spec": {"containers": [{"name": "c", "image": "x"}]},
        }
        created = await stage.client.create(foreign)
        await stage.client.create(build_job(master=replica()))

        error = None
        try:
            await stage.step("digits")
        except Exception as caught:
            error = caught

        assert "already exists" in str(error)
        [event] = await stage.events("FailedCreatePod")
        assert event["type"] == "Warning"
        pod = await stage.client.get(PODS, "digits-master-0", namespace="default")
        assert pod["metadata"]["uid"] == created["metadata"]["uid"]

    play(PyTorchJobReconciler, scenario)


def test_deleting_the_job_deletes_its_pods_and_services() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.client.create(build_job(master=replica(), worker=replica()))
        await stage.step("digits")

        await stage.client.delete(PYTORCH_JOBS, "digits", namespace="default")

        assert await stage.names(PODS) == []
        assert await stage.names(SERVICES) == []
        await stage.step("digits")

    play(PyTorchJobReconciler, scenario)


def test_pods_that_only_look_like_the_jobs_are_not_counted_as_its_own() -> None:
    async def scenario(stage: Stage) -> None:
        job = await stage.client.create(build_job(worker=replica()))
        stranger = build_pod(apply_defaults(job), replica_type="Worker", index=0)
        stranger["metadata"] |= {"name": "stranger", "ownerReferences": []}
        await stage.client.create(stranger)

        await stage.step("digits")

        assert await stage.names(PODS) == ["digits-worker-0", "stranger"]

    play(PyTorchJobReconciler, scenario)
