"""What Katib's webhook does to the pods of trials."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kubeloop.errors import ApiError
from kubeloop.local.api.resources import TRIALS
from kubeloop.local.client import Client, Manifest
from kubeloop.testing.katib_admission import run
from kubeloop.testing.katib_lab import build_pytorch_job
from kubeloop.testing.manifests import build_config_map, build_pod, own
from kubeloop.testing.pods import FakeKubelet

TRIAL_NAME = {
    "name": "KATIB_TRIAL_NAME",
    "valueFrom": {
        "fieldRef": {
            "apiVersion": "v1",
            "fieldPath": "metadata.labels['katib.kubeflow.org/trial']",
        }
    },
}


async def create_trial(client: Client, **spec: Any) -> Manifest:  # any part of the spec
    return await client.create(
        {
            "apiVersion": TRIALS.api_version,
            "kind": TRIALS.kind,
            "metadata": {"name": "t", "namespace": "default", "labels": {"team": "a"}},
            "spec": {"primaryContainerName": "main", **spec},
        }
    )


def build_trial_pod(owner: Manifest | None, *, container: str = "main") -> Manifest:
    pod = build_pod("p", containers=[{"name": container, "image": "i"}])
    return own(pod, owner) if owner else pod


def test_a_pod_owned_through_others_is_labelled_like_its_trial() -> None:
    async def scenario(client: Client) -> None:
        trial = await create_trial(client, metricsCollector={"collector": {"kind": "StdOut"}})
        job = build_pytorch_job()
        job["metadata"] = {"name": "t", "namespace": "default"}
        owner = await client.create(own(job, trial))

        pod = await client.create(build_trial_pod(owner))

        assert pod["metadata"]["labels"] == {"team": "a", "katib.kubeflow.org/trial": "t"}
        assert pod["spec"]["containers"][0]["env"] == [TRIAL_NAME]
        again = await client.replace(copy.deepcopy(pod))
        assert again["spec"] == pod["spec"]

    run(scenario)


def test_a_trials_pod_without_the_primary_container_is_refused() -> None:
    async def scenario(client: Client) -> None:
        trial = await create_trial(client)

        with pytest.raises(ApiError, match="Unable to find primary container main") as caught:
            await client.create(build_trial_pod(trial, container="other"))
        assert caught.value.status == 400

    run(scenario)


def assert_untouched(pod: Manifest) -> None:
    assert "labels" not in pod["metadata"]
    assert "env" not in pod["spec"]["containers"][0]


def test_pods_of_nobody_are_left_alone() -> None:
    async def scenario(client: Client) -> None:
        await create_trial(client)

        assert_untouched(await client.create(build_trial_pod(None)))

    run(scenario)


def test_pods_of_strangers_are_left_alone() -> None:
    async def scenario(client: Client) -> None:
        await create_trial(client)
        stranger = await client.create(build_config_map("o"))

        assert_untouched(await client.create(build_trial_pod(stranger, container="other")))

    run(scenario)


def test_the_collectors_log_is_only_that_of_primary_pods() -> None:
    async def scenario(client: Client) -> None:
        trial = await create_trial(
            client,
            metricsCollector={"collector": {"kind": "StdOut"}},
            primaryPodLabels={"role": "master"},
        )
        await client.create(build_trial_pod(trial))
        await FakeKubelet(client).run("p")

        with pytest.raises(ApiError, match="container metrics-logger-and-collector is not valid"):
            await client.read_log(
                "p", namespace="default", container="metrics-logger-and-collector"
            )

    run(scenario)


FILE_COLLECTOR = {
    "collector": {"kind": "File"},
    "source": {"fileSystemPath": {"kind": "File", "path": "/var/log/katib/metrics.log"}},
}


async def create_pod_of(client: Client, collector: Manifest, **pod_spec: Any) -> Manifest:
    trial = await create_trial(client, metricsCollector=collector)
    pod = build_trial_pod(trial)
    pod["spec"]["containers"][0] |= pod_spec.pop("container", {})
    pod["spec"] |= pod_spec
    created = await client.create(pod)
    assert (await client.replace(copy.deepcopy(created)))["spec"] == created["spec"]
    return created


def mounts_of(pod: Manifest) -> list[list[tuple[str, str]]]:
    return [
        [(mount["name"], mount["mountPath"]) for mount in container.get("volumeMounts") or ()]
        for container in pod["spec"]["containers"]
    ]


def test_the_folder_of_a_metrics_file_is_a_volume() -> None:
    async def scenario(client: Client) -> None:
        pod = await create_pod_of(client, FILE_COLLECTOR)

        assert mounts_of(pod) == [[("metrics-volume", "/var/log/katib")]]
        assert pod["spec"]["volumes"] == [{"name": "metrics-volume", "emptyDir": {}}]

    run(scenario)


def test_the_folder_of_tensorflows_events_is_a_volume() -> None:
    async def scenario(client: Client) -> None:
        place = {"kind": "Directory", "path": "/train/events/"}
        collector = {
            "collector": {"kind": "TensorFlowEvent"},
            "source": {"fileSystemPath": place},
        }

        pod = await create_pod_of(client, collector)

        assert mounts_of(pod) == [[("metrics-volume", "/train/events")]]

    run(scenario)


def test_a_collector_of_the_users_own_shares_the_metrics() -> None:
    async def scenario(client: Client) -> None:
        own_collector = {"name": "mine", "image": "mine:1", "args": ["--watch"]}
        collector = {
            "collector": {"kind": "Custom", "customCollector": own_collector},
            "source": {"fileSystemPath": {"kind": "Directory", "path": "/metrics"}},
        }

        pod = await create_pod_of(client, collector)

        assert [c["name"] for c in pod["spec"]["containers"]] == ["main", "mine"]
        assert mounts_of(pod) == [[("metrics-volume", "/metrics")]] * 2

    run(scenario)


@pytest.mark.parametrize("kind", ["StdOut", "Push"])
def test_other_collectors_need_no_volume(kind: str) -> None:
    async def scenario(client: Client) -> None:
        pod = await create_pod_of(client, {"collector": {"kind": kind}})

        assert mounts_of(pod) == [[]]

    run(scenario)


STDOUT_COLLECTOR = {"collector": {"kind": "StdOut"}}


def read_command(
    command: list[str], args: list[str], *, collector: Manifest = STDOUT_COLLECTOR
) -> tuple[list[str], list[str]]:
    """What becomes of the command of a trial's pod."""
    found: list[Manifest] = []

    async def scenario(client: Client) -> None:
        trial = await create_trial(client, metricsCollector=collector)
        container = {"name": "main", "image": "i", "command": command, "args": args}
        pod = await client.create(own(build_pod("p", containers=[container]), trial))
        again = await client.replace(copy.deepcopy(pod))
        assert again["spec"] == pod["spec"]
        found.extend(pod["spec"]["containers"])

    run(scenario)
    return found[0]["command"], found[0]["args"]


def test_quotes_for_katibs_shell_do_not_reach_the_program() -> None:
    words = [
        "--architecture=\"[[3], [1, 0], {'opt': 'max'}]\"",
        "--name='a b'",
        r'"say \"\$HOME\""',
        r"a\ b",
        "--rate=0.1",
    ]

    assert read_command(["python3", "'run trial.py'"], words) == (
        ["python3", "run trial.py"],
        [
            "--architecture=[[3], [1, 0], {'opt': 'max'}]",
            "--name=a b",
            'say "$HOME"',
            "a b",
            *words[4:],
        ],
    )


@pytest.mark.parametrize(
    ("command", "collector"),
    [
        (["python", "-c", "print('x=1')"], STDOUT_COLLECTOR),
        (["python", '--home="$HOME"'], STDOUT_COLLECTOR),
        (["python", "it's"], STDOUT_COLLECTOR),
        (["sh", "-c", "'echo'"], STDOUT_COLLECTOR),
        (["python", "--a='b'"], {"collector": {"kind": "Push"}}),
    ],
    ids=["code", "variable", "open quote", "script", "no shell"],
)
def test_a_command_that_no_shell_should_touch_stays(
    command: list[str], collector: Manifest
) -> None:
    assert read_command(command, ["x"], collector=collector) == (command, ["x"])
