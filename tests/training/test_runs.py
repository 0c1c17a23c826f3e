import asyncio
import time
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kubeflow.training import KubeflowOrgV1PyTorchJob, TrainingClient
from kubernetes.client import V1Container

from kubeloop.errors import InputError, PermanentError, TransientError
from kubeloop.local.api.memory import MemoryClient
from kubeloop.local.kubelet.kubelet import Kubelet
from kubeloop.local.kubelet.node import KubeletConfig
from kubeloop.local.kubelet.warm_parent import WarmConfig
from kubeloop.local.operators.controller import Controller
from kubeloop.local.operators.pytorchjob import PyTorchJobReconciler
from kubeloop.testing.official_clients import close_connections
from kubeloop.testing.servers import running_api
from kubeloop.testing.waiting import wait_until
from kubeloop.training.jobs import PyTorchJobBuilder, RestartPolicy, TrainingJobConfig
from kubeloop.training.metric_lines import parse_metrics
from kubeloop.training.placement import (
    CleanPodPolicy,
    GangConfig,
    GangScheduler,
    PodConfig,
    RunPolicyConfig,
    VolumeConfig,
    VolumeKind,
)
from kubeloop.training.replica_ends import ReplicaEnd, find_cause
from kubeloop.training.runs import (
    TrainingRun,
    WatchConfig,
    run_training_job,
)

DEADLINE_SECONDS = 60
EPOCHS = "for e in (1, 2): print(f'epoch={e} train_loss={1 / e} val_accuracy=0.5', flush=True)"
FOREVER = "print('started', flush=True)\nimport time\ntime.sleep(600)"


@dataclass
class Cluster:
    """The official client of a small cluster that runs PyTorchJobs as processes."""

    client: TrainingClient
    folder: Path
    log: list[str] = field(default_factory=list)

    def build(self, code: str, **settings: Any) -> TrainingJobConfig:
        return TrainingJobConfig(
            **{
                "name": "job",
                "command": ("python", "-c", code),
                "cpu": "100m",
                "memory": "64Mi",
                "env_secrets": (),
                **settings,
            }
        )

    def run(self, config: TrainingJobConfig, **options: Any) -> TrainingRun:
        watch = WatchConfig(**{"poll_seconds": 0.05, **options.pop("watch", {})})
        return run_training_job(
            PyTorchJobBuilder().build(config),
            **{"client": self.client, "watch": watch, "on_log": self.log.append, **options},
        )

    def create(self, config: TrainingJobConfig) -> None:
        self.client.create_job(PyTorchJobBuilder().build(config))

    def pods(self) -> dict[str, str]:
        return {pod.metadata.name: pod.metadata.uid for pod in self.client.get_job_pods("job")}

    def wait_for(self, condition: Callable[[], bool]) -> None:
        asyncio.run(wait_until(condition, timeout_seconds=DEADLINE_SECONDS))

    def has_job(self) -> bool:
        return bool(self.client.list_jobs())


@asynccontextmanager
async def running_cluster(folder: Path) -> AsyncIterator[Cluster]:
    async with running_api(folder) as running:
        client = MemoryClient(running.api)
        config = KubeletConfig(warm=WarmConfig(layers=()))
        async with Kubelet(client, state=folder, config=config):
            controller = asyncio.create_task(Controller(client, PyTorchJobReconciler(client)).run())
            training = TrainingClient(config_file=str(running.kubeconfig), namespace="default")
            try:
                yield Cluster(client=training, folder=folder)
            finally:
                await asyncio.to_thread(close_connections, training.core_api)
                controller.cancel()
                await asyncio.gather(controller, return_exceptions=True)


@pytest.fixture
def on_cluster(tmp_path: Path) -> Callable[[Callable[[Cluster], None]], None]:
    """Run the blocking client of a test in a thread beside the cluster."""

    def play(test: Callable[[Cluster], None]) -> None:
        async def main() -> None:
            async with asyncio.timeout(DEADLINE_SECONDS), running_cluster(tmp_path) as cluster:
                await asyncio.to_thread(test, cluster)

        with warnings.catch_warnings():
            # The official client leaves connections to the garbage collector.
            warnings.simplefilter("ignore", ResourceWarning)
            asyncio.run(main())

    return play


OnCluster = Callable[[Callable[[Cluster], None]], None]


def test_a_job_runs_to_its_end_with_log_and_metrics(on_cluster: OnCluster) -> None:
    def test(cluster: Cluster) -> None:
        seen: list[Any] = []

        run = cluster.run(cluster.build(EPOCHS + "\nprint('done', end='')"), on_metrics=seen.append)

        assert [line for line in cluster.log if "epoch" in line or line == "done"] == [
            "epoch=1 train_loss=1.0 val_accuracy=0.5",
            "epoch=2 train_loss=0.5 val_accuracy=0.5",
            "done",
        ]
        assert seen == list(run.metrics)
        assert run.final_metrics == {"epoch": 2.0, "train_loss": 0.5, "val_accuracy": 0.5}
        assert (run.name, run.namespace, run.num_restarts) == ("job", "default", 0)

    on_cluster(test)


def test_lines_arrive_while_the_job_runs(on_cluster: OnCluster) -> None:
    def test(cluster: Cluster) -> None:
        gate = cluster.folder / "gate"
        code = (
            "import pathlib, time\nprint('waiting', flush=True)\n"
            f"while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.02)"
        )

        def open_gate(line: str) -> None:
            if line == "waiting":
                gate.touch()

        cluster.run(cluster.build(code), on_log=open_gate)

    on_cluster(test)


def test_each_line_is_asked_for_once(on_cluster: OnCluster) -> None:
    def test(cluster: Cluster) -> None:
        gate, num_looks, reads = cluster.folder / "gate", 0, []
        code = (
            "import pathlib, time\nprint('waiting', flush=True)\n"
            f"while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.02)\nprint('done')"
        )
        core = cluster.client.core_api
        read = core.read_namespaced_pod_log

        def count(*arguments: Any, **options: Any) -> Any:
            reads.append(options)
            return read(*arguments, **options)

        def open_gate_after_some_looks(seconds: float) -> None:
            nonlocal num_looks
            num_looks += "waiting" in cluster.log
            if num_looks == 5:
                gate.touch()
            time.sleep(seconds)

        core.read_namespaced_pod_log = count
        cluster.run(cluster.build(code), sleep=open_gate_after_some_looks)

        assert cluster.log == ["waiting", "done"]
        assert len(reads) == 1

    on_cluster(test)


def test_lines_of_a_life_that_ended_between_two_looks_are_not_lost(on_cluster: OnCluster) -> None:
    def test(cluster: Cluster) -> None:
        marker, gate = cluster.folder / "marker", cluster.folder / "gate"
        code = (
            f"import os, pathlib, time\nmarker = pathlib.Path({str(marker)!r})\n"
            "if not marker.exists():\n    marker.touch()\n"
            "    print('first', flush=True)\n    os.kill(os.getpid(), 9)\n"
            "print('second', flush=True)\n"
            f"while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.02)"
        )
        config = cluster.build(code, restart_policy=RestartPolicy.ON_FAILURE)
        cluster.create(config)

        def is_started_again() -> bool:
            statuses = [pod.status.container_statuses for pod in cluster.client.get_job_pods("job")]
            return any(s[0].restart_count == 1 and s[0].state.running for s in statuses if s)

        def go_on(line: str) -> None:
            cluster.log.append(line)
            if line == "second":
                gate.touch()

        cluster.wait_for(is_started_again)
        cluster.run(config, on_log=go_on)

        assert cluster.log[1:] == ["first", "second"]

    on_cluster(test)


def test_the_last_words_of_a_pod_that_is_deleted_are_not_lost(on_cluster: OnCluster) -> None:
    def test(cluster: Cluster) -> None:
        marker = cluster.folder / "marker"
        code = (
            f"import pathlib, signal, sys, time\nmarker = pathlib.Path({str(marker)!r})\n"
            "def stop(*_):\n    print('last words', flush=True)\n    sys.exit(143)\n"
            "if not marker.exists():\n    marker.touch()\n"
            "    signal.signal(signal.SIGTERM, stop)\n"
            "    print('started', flush=True)\n    time.sleep(600)\nprint('again')"
        )

        def delete(line: str) -> None:
            cluster.log.append(line)
            if line == "started":
                before = cluster.pods()
                cluster.client.core_api.delete_namespaced_pod("job-master-0", "default")
                cluster.wait_for(lambda: cluster.pods() not in ({}, before))

        run = cluster.run(cluster.build(code), on_log=delete)

        assert cluster.log == ["started", "last words", "again"]
        assert run.num_restarts == 1

    on_cluster(test)


def test_a_failure_names_the_rank_and_the_end_of_its_log(on_cluster: OnCluster) -> None:
    def test(cluster: Cluster) -> None:
        code = (
            "import os, sys, time\n"
            "if os.environ['RANK'] == '0': time.sleep(600)\n"
            "print('\\n'.join(f'line {n}' for n in range(50)))\nsys.exit('no such column')"
        )

        with pytest.raises(PermanentError) as caught:
            cluster.run(cluster.build(code, num_workers=2))

        message = str(caught.value)
        assert message.splitlines()[0] == (
            "PyTorchJob default/job failed: rank 1, pod job-worker-0, exited with code 1:"
            " no such column"
        )
        assert message.endswith("line 48\nline 49\nno such column")
        assert "line 20" not in message
        assert cluster.has_job()

    on_cluster(test)


def test_a_running_job_is_found_again(on_cluster: OnCluster) -> None:
    def test(cluster: Cluster) -> None:
        gate = cluster.folder / "gate"
        code = (
            "import pathlib, time\nprint('once', flush=True)\n"
            f"while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.02)"
        )
        cluster.create(cluster.build(code))
        cluster.wait_for(lambda: bool(cluster.pods()))
        before = cluster.pods()

        def go_on(line: str) -> None:
            cluster.log.append(line)
            gate.touch()

        cluster.run(cluster.build(code), on_log=go_on)

        assert cluster.pods() == before
        assert cluster.log == [
            "PyTorchJob default/job is there already; its log follows from the beginning.",
            "once",
        ]

    on_cluster(test)


def test_a_finished_job_is_not_run_again(on_cluster: OnCluster) -> None:
    def test(cluster: Cluster) -> None:
        first = cluster.run(cluster.build(EPOCHS))
        before = cluster.pods()

        again = cluster.run(cluster.build(EPOCHS))

        assert again == first
        assert cluster.pods() == before

    on_cluster(test)


def test_a_failed_job_is_replaced(on_cluster: OnCluster) -> None:
    def test(cluster: Cluster) -> None:
        marker = cluster.folder / "marker"
        code = (
            f"import pathlib, sys\nmarker = pathlib.Path({str(marker)!r})\n"
            "if not marker.exists():\n    marker.touch()\n    sys.exit(1)\n" + EPOCHS
        )
        with pytest.raises(PermanentError):
            cluster.run(cluster.build(code))

        assert len(cluster.run(cluster.build(code)).metrics) == 2

    on_cluster(test)


def test_a_cancelled_run_deletes_its_job(on_cluster: OnCluster) -> None:
    def test(cluster: Cluster) -> None:
        def interrupt(line: str) -> None:
            if line == "started":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            cluster.run(cluster.build(FOREVER), on_log=interrupt)

        assert not cluster.has_job()
        cluster.wait_for(lambda: not cluster.pods())

    on_cluster(test)


def test_a_program_that_is_killed_once_is_started_again(on_cluster: OnCluster) -> None:
    def test(cluster: Cluster) -> None:
        marker = cluster.folder / "marker"
        code = (
            f"import os, pathlib\nmarker = pathlib.Path({str(marker)!r})\n"
            "if not marker.exists():\n    marker.touch()\n    os.kill(os.getpid(), 9)\n" + EPOCHS
        )

        run = cluster.run(cluster.build(code))

        assert run.num_restarts == 1
        assert len(run.metrics) == 2

    on_cluster(test)


def test_a_program_that_is_killed_again_and_again_is_given_up(on_cluster: OnCluster) -> None:
    def test(cluster: Cluster) -> None:
        code = "import os\nprint('hello', flush=True)\nos.kill(os.getpid(), 9)"

        with pytest.raises(PermanentError) as caught:
            cluster.run(cluster.build(code), watch={"max_restarts": 2})

        assert "was restarted more than 2 times and was deleted" in str(caught.value)
        assert "perhaps: rank 0, pod job-master-0, exited with code 137" in str(caught.value)
        assert not cluster.has_job()

    on_cluster(test)


def test_a_job_that_does_not_fit_says_what_it_waits_for(on_cluster: OnCluster) -> None:
    def test(cluster: Cluster) -> None:
        config = cluster.build(EPOCHS, memory="100Ti")

        with pytest.raises(PermanentError) as caught:
            cluster.run(config, watch={"timeout_seconds": 1.0})

        assert "did not finish in 1 seconds and was deleted" in str(caught.value)
        assert "job-master-0 is Pending. Pod job-master-0 waits:" in str(caught.value)
        assert not str(caught.value).endswith("..")
        assert len([line for line in cluster.log if "waits" in line]) == 1
        assert not cluster.has_job()

    on_cluster(test)


def test_a_job_that_takes_too_long_is_given_up_with_its_last_words(on_cluster: OnCluster) -> None:
    def test(cluster: Cluster) -> None:
        with pytest.raises(PermanentError) as caught:
            cluster.run(
                cluster.build(FOREVER),
                watch={"timeout_seconds": 1e6},
                clock=lambda: 1e9 if "started" in cluster.log else 0.0,
            )

        assert str(caught.value).splitlines() == [
            "PyTorchJob default/job did not finish in 1e+06 seconds and was deleted. Its pods:"
            " job-master-0 is Running.",
            "The last lines of its log:",
            "started",
        ]

    on_cluster(test)


def test_a_job_that_is_deleted_meanwhile_is_an_error(on_cluster: OnCluster) -> None:
    def test(cluster: Cluster) -> None:
        def delete(line: str) -> None:
            if line == "started":
                cluster.client.delete_job("job")

        with pytest.raises(PermanentError, match="default/job was deleted while it ran"):
            cluster.run(cluster.build(FOREVER), on_log=delete)

    on_cluster(test)


def test_a_job_of_another_pipeline_run_is_not_taken_over(on_cluster: OnCluster) -> None:
    def test(cluster: Cluster) -> None:
        cluster.create(cluster.build(FOREVER, run_id="first"))

        with pytest.raises(InputError, match="belongs to pipeline run 'first', not 'second'"):
            cluster.run(cluster.build(FOREVER, run_id="second"))

        assert cluster.has_job()

    on_cluster(test)


def test_a_failed_job_of_another_pipeline_run_is_left_alone(on_cluster: OnCluster) -> None:
    def test(cluster: Cluster) -> None:
        with pytest.raises(PermanentError):
            cluster.run(cluster.build("raise SystemExit(1)", run_id="first"))

        with pytest.raises(InputError, match="belongs to pipeline run 'first', not 'second'"):
            cluster.run(cluster.build(EPOCHS, run_id="second"))

        assert cluster.has_job()

    on_cluster(test)


def test_a_job_that_was_built_otherwise_is_not_taken_for_this_one(on_cluster: OnCluster) -> None:
    def test(cluster: Cluster) -> None:
        cluster.run(cluster.build(EPOCHS))
        before = cluster.pods()

        with pytest.raises(InputError, match="default/job is there already, and was built other"):
            cluster.run(cluster.build(EPOCHS, hyperparameters={"learning_rate": 0.1}))

        assert cluster.pods() == before

    on_cluster(test)


def test_pods_of_a_replaced_job_do_not_speak_for_the_new_one(on_cluster: OnCluster) -> None:
    def test(cluster: Cluster) -> None:
        failed, gate = cluster.folder / "failed", cluster.folder / "gate"
        code = (
            "import os, pathlib, signal, sys, time\n"
            f"failed, gate = pathlib.Path({str(failed)!r}), pathlib.Path({str(gate)!r})\n"
            "def wait(path):\n    while not path.exists(): time.sleep(0.02)\n"
            "if gate.exists():\n    print('epoch=1', flush=True)\n"
            "elif os.environ['RANK'] == '0':\n"
            "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "    print('epoch=99', flush=True)\n    failed.touch()\n    wait(gate)\n"
            "else:\n    wait(failed)\n    sys.exit(1)"
        )
        config = cluster.build(code, num_workers=2)
        with pytest.raises(PermanentError):
            cluster.run(config)
        cluster.log.clear()
        num_looks = 0

        def sleep(seconds: float) -> None:
            nonlocal num_looks
            num_looks += 1
            if num_looks == 5:
                assert "job-master-0" in cluster.pods()
                gate.touch()
            time.sleep(seconds)

        run = cluster.run(config, sleep=sleep)

        assert num_looks >= 5
        assert run.metrics == ({"epoch": 1.0},)
        assert run.num_restarts == 0

    on_cluster(test)


def test_a_failure_keeps_its_last_words_when_its_pods_are_cleaned_up(
    on_cluster: OnCluster,
) -> None:
    def test(cluster: Cluster) -> None:
        gate = cluster.folder / "gate"
        code = (
            "import pathlib, sys, time\nprint('error: no such column', flush=True)\n"
            f"while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.02)\nsys.exit(3)"
        )
        config = cluster.build(
            code, run_policy=RunPolicyConfig(clean_pod_policy=CleanPodPolicy.ALL)
        )

        def open_gate_once_cleaned(line: str) -> None:
            gate.touch()
            cluster.wait_for(lambda: not cluster.pods())

        with pytest.raises(PermanentError) as caught:
            cluster.run(config, on_log=open_gate_once_cleaned)

        assert str(caught.value).splitlines() == [
            'PyTorchJob default/job failed: job "job" is failing because "Master" replica(s)'
            " failed: rank 0, pod job-master-0, exited with code 3: no such column",
            "The last lines of its log:",
            "error: no such column",
        ]

    on_cluster(test)


def test_a_failed_init_container_is_named(on_cluster: OnCluster) -> None:
    def test(cluster: Cluster) -> None:
        config = cluster.build(EPOCHS, restart_policy=RestartPolicy.NEVER)
        job = PyTorchJobBuilder().build(config)
        job.spec.pytorch_replica_specs["Master"].template.spec.init_containers = [
            V1Container(
                name="fetch", image="any", command=["sh", "-c", "echo no such bucket; exit 4"]
            )
        ]

        with pytest.raises(PermanentError) as caught:
            run_training_job(job, client=cluster.client, watch=WatchConfig(poll_seconds=0.05))

        assert str(caught.value).splitlines()[0] == (
            "PyTorchJob default/job failed: rank 0, pod job-master-0, init container fetch, exited"
            " with code 4: no such bucket"
        )

    on_cluster(test)


def test_a_pod_that_lacks_its_volume_says_what_it_waits_for(on_cluster: OnCluster) -> None:
    def test(cluster: Cluster) -> None:
        volume = VolumeConfig(
            name="keys", kind=VolumeKind.SECRET, source="no-such", mount_path="/keys"
        )
        config = cluster.build(EPOCHS, pod=PodConfig(volumes=(volume,)))

        def interrupt(line: str) -> None:
            if "no-such" in line:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            cluster.run(config, on_log=interrupt)

    on_cluster(test)


def test_a_suspended_job_says_that_it_waits(on_cluster: OnCluster) -> None:
    def test(cluster: Cluster) -> None:
        gang = GangConfig(scheduler=GangScheduler.KUEUE, queue="team")
        config = cluster.build(EPOCHS, pod=PodConfig(gang=gang))

        def resume(line: str) -> None:
            if "is suspended: it waits to be resumed" in line:
                cluster.client.update_job(
                    KubeflowOrgV1PyTorchJob(spec={"runPolicy": {"suspend": False}}), "job"
                )

        assert len(cluster.run(config, on_log=resume).metrics) == 2

    on_cluster(test)


def test_a_job_that_gave_way_to_another_was_not_restarted(on_cluster: OnCluster) -> None:
    def test(cluster: Cluster) -> None:
        def suspend(value: bool) -> None:
            cluster.client.update_job(
                KubeflowOrgV1PyTorchJob(spec={"runPolicy": {"suspend": value}}), "job"
            )

        marker = cluster.folder / "marker"
        code = (
            f"import pathlib, time\nmarker = pathlib.Path({str(marker)!r})\n"
            "if not marker.exists():\n    marker.touch()\n"
            "    print('started', flush=True)\n    time.sleep(600)\n" + EPOCHS
        )

        def give_way(line: str) -> None:
            if line == "started":
                suspend(True)
            if "is suspended" in line:
                cluster.wait_for(lambda: not cluster.pods())
                suspend(False)

        run = cluster.run(cluster.build(code), on_log=give_way, watch={"max_restarts": 0})

        assert (len(run.metrics), run.num_restarts) == (2, 0)

    on_cluster(test)


def test_a_refused_job_carries_the_servers_reason(on_cluster: OnCluster) -> None:
    def test(cluster: Cluster) -> None:
        job = PyTorchJobBuilder().build(cluster.build(EPOCHS))
        job.spec.pytorch_replica_specs["Master"].replicas = 2

        with pytest.raises(PermanentError, match=r"Failed to create PyTorchJob .* must be 1"):
            run_training_job(job, client=cluster.client)

    on_cluster(test)


def test_an_api_that_is_down_is_worth_another_try(on_cluster: OnCluster) -> None:
    clients: list[Cluster] = []
    on_cluster(clients.append)

    with pytest.raises(TransientError, match="Failed to read PyTorchJob default/job"):
        clients[0].run(clients[0].build(EPOCHS))


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        (["error: no column", "epoch=1"], "epoch=1"),
        (["ValueError: no column", "error: processes ended with [1]"], "ValueError: no column"),
        (
            [
                "error: batch_size must be positive.",
                "error: Lost another process of the job: reset by peer",
                "Stopped after 3 steps, as asked by SIGTERM.",
                "E1130 11:09:38.589000 20506 torch/distributed/elastic/x.py:1002] failed (1)",
                "error: processes ended with [1, -15]",
            ],
            "batch_size must be positive.",
        ),
        (["error: processes ended with [-9]"], "processes ended with [-9]"),
    ],
)
def test_the_cause_of_an_end_is_what_the_program_said(log: list[str], cause: str) -> None:
    assert find_cause(log) == cause


def test_a_program_that_took_too_much_memory_says_what_to_change() -> None:
    end = ReplicaEnd(pod="job-master-0", rank=0, exit_code=137, reason="OOMKilled")

    assert end.render(["epoch=1"]) == (
        ": rank 0, pod job-master-0, exited with code 137 (OOMKilled): it took more memory than its"
        " limit; raise memory, or lower batch_size\nThe last lines of its log:\nepoch=1"
    )


@pytest.mark.parametrize(
    ("line", "metrics"),
    [
        ("epoch=1 val_accuracy=0.5", {"epoch": 1.0, "val_accuracy": 0.5}),
        ("loss = -1.5e-3, lr=+.5", {"loss": -0.0015, "lr": 0.5}),
        ("a|b-c=3.", {"a|b-c": 3.0}),
        ("no metrics here", {}),
        ("loss=nan name=text", {}),
    ],
)
def test_metric_lines_are_read(line: str, metrics: dict[str, float]) -> None:
    assert parse_metrics(line) == metrics


def test_limits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="poll_seconds must be positive"):
        WatchConfig(poll_seconds=0)
    with pytest.raises(InputError, match=r"timeout_seconds must be positive, not -1"):
        WatchConfig(timeout_seconds=-1)
