"""The official Python clients against a running server, with the kubeconfig alone."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from kubeloop.local.api.resources import PODS
from kubeloop.testing.manifests import build_config_map, build_job, build_pod
from kubeloop.testing.servers import RunningApi, running_api

kubernetes = pytest.importorskip("kubernetes")

_DEADLINE_SECONDS = 90.0


@contextmanager
def quiet() -> Iterator[None]:
    """The SDKs' own warnings are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def run(
    folder: Path, test: Callable[[RunningApi], None], *, kfp_app: Starlette | None = None
) -> None:
    """Run the blocking clients of `test` in a thread beside the server."""

    async def main() -> None:
        async with asyncio.timeout(_DEADLINE_SECONDS), running_api(folder) as running:
            if kfp_app is not None:
                running.proxies.register("kubeflow", "ml-pipeline", target=kfp_app)
            await asyncio.to_thread(test, running)

    with quiet():
        asyncio.run(main())


def test_core_objects_live_their_life(tmp_path: Path) -> None:
    def test(running: RunningApi) -> None:
        kubernetes.config.load_kube_config(str(running.kubeconfig))
        core = kubernetes.client.CoreV1Api()
        created = core.create_namespaced_config_map("default", build_config_map("c"))
        assert created.metadata.uid
        assert created.metadata.creation_timestamp.tzinfo is not None
        patched = core.patch_namespaced_config_map("c", "default", {"data": {"x": "y"}})
        assert patched.data == {"key": "value", "x": "y"}
        patched.data = {"only": "this"}
        assert core.replace_namespaced_config_map("c", "default", patched).data == {"only": "this"}
        with pytest.raises(kubernetes.client.ApiException) as caught:
            core.create_namespaced_config_map("default", build_config_map("c"))
        assert (caught.value.status, caught.value.reason) == (409, "Conflict")
        assert core.delete_namespaced_config_map("c", "default").status == "Success"
        assert core.list_namespaced_config_map("default").items == []

    run(tmp_path, test)


def test_pods_events_and_secrets_parse_as_models(tmp_path: Path) -> None:
    def test(running: RunningApi) -> None:
        kubernetes.config.load_kube_config(str(running.kubeconfig))
        core = kubernetes.client.CoreV1Api()
        pod = core.create_namespaced_pod("default", build_pod("p", nodeName="laptop"))
        assert pod.status.phase == "Pending"
        core.create_namespaced_event(
            "default",
            {
                "metadata": {"name": "p.1"},
                "involvedObject": {"kind": "Pod", "name": "p", "uid": pod.metadata.uid},
                "type": "Normal",
                "reason": "Scheduled",
            },
        )
        events = core.list_namespaced_event("default", field_selector="involvedObject.name=p")
        assert [event.reason for event in events.items] == ["Scheduled"]
        core.create_namespaced_secret(
            "default", {"metadata": {"name": "s"}, "stringData": {"key": "text"}}
        )
        assert core.read_namespaced_secret("s", "default").data == {"key": "dGV4dA=="}
        dying = core.delete_namespaced_pod("p", "default")
        assert dying.metadata.deletion_timestamp is not None

    run(tmp_path, test)


def test_watch_starts_follows_and_resumes(tmp_path: Path) -> None:
    def test(running: RunningApi) -> None:
        kubernetes.config.load_kube_config(str(running.kubeconfig))
        core = kubernetes.client.CoreV1Api()
        core.create_namespaced_config_map("default", build_config_map("a"))
        watch = kubernetes.watch.Watch()
        seen = []
        for event in watch.stream(core.list_namespaced_config_map, "default", timeout_seconds=30):
            seen.append((event["type"], event["object"].metadata.name))
            if len(seen) == 1:
                core.create_namespaced_config_map("default", build_config_map("b"))
                core.delete_namespaced_config_map("a", "default")
            if len(seen) == 3:
                watch.stop()
        assert seen == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a")]

    run(tmp_path, test)


def test_watch_of_a_forgotten_version_raises_410(tmp_path: Path) -> None:
    def test(running: RunningApi) -> None:
        kubernetes.config.load_kube_config(str(running.kubeconfig))
        core = kubernetes.client.CoreV1Api()
        watch = kubernetes.watch.Watch()
        events = watch.stream(
            core.list_namespaced_config_map, "default", resource_version="999999", timeout_seconds=5
        )
        with pytest.raises(kubernetes.client.ApiException) as caught:
            next(iter(events))
        assert caught.value.status == 410

    run(tmp_path, test)


def test_training_client_manages_jobs(tmp_path: Path) -> None:
    training = pytest.importorskip("kubeflow.training")

    def test(running: RunningApi) -> None:
        client = training.TrainingClient(config_file=str(running.kubeconfig))
        manifest = build_job("j")
        typed = training.KubeflowOrgV1PyTorchJob(
            api_version=manifest["apiVersion"],
            kind=manifest["kind"],
            metadata=kubernetes.client.V1ObjectMeta(name="j", namespace="default"),
            spec={**manifest["spec"], "runPolicy": {}},
        )
        client.create_job(typed, namespace="default")
        with pytest.raises(RuntimeError):
            client.create_job(typed, namespace="default")
        job = client.get_job("j", namespace="default", job_kind="PyTorchJob")
        assert job.metadata.name == "j"
        assert client.get_job_conditions("j", namespace="default", job_kind="PyTorchJob") == []
        typed.spec["runPolicy"] = {"suspend": True}
        client.update_job(
            typed,
            name="j",
            namespace="default",
            job_kind="PyTorchJob",
        )
        jobs = client.list_jobs(namespace="default", job_kind="PyTorchJob")
        assert [found.spec.run_policy.suspend for found in jobs] == [True]
        assert client.get_job_pods("j", namespace="default") == []
        client.delete_job("j", namespace="default", job_kind="PyTorchJob")
        assert client.list_jobs(namespace="default", job_kind="PyTorchJob") == []

    run(tmp_path, test)


def test_katib_client_manages_experiments(tmp_path: Path) -> None:
    katib = pytest.importorskip("kubeflow.katib")

    def test(running: RunningApi) -> None:
        client = katib.KatibClient(config_file=str(running.kubeconfig))
        client.create_experiment(_build_experiment(katib), namespace="default")
        stored = client.get_experiment("e", namespace="default")
        assert stored.spec.max_trial_count == 3
        client.edit_experiment_budget("e", namespace="default", max_trial_count=5)
        assert client.get_experiment("e", namespace="default").spec.max_trial_count == 5
        assert [found.metadata.name for found in client.list_experiments("default")] == ["e"]
        assert client.list_trials("e", namespace="default") == []
        assert client.get_optimal_hyperparameters("e", namespace="default") is None
        client.delete_experiment("e", namespace="default")
        assert client.list_experiments("default") == []

    run(tmp_path, test)


def test_kserve_client_manages_inference_services(tmp_path: Path) -> None:
    kserve = pytest.importorskip("kserve")

    def test(running: RunningApi) -> None:
        client = kserve.KServeClient(config_file=str(running.kubeconfig))
        client.create(_build_inference_service(kserve, replicas=1), namespace="default")
        assert client.get("i", namespace="default")["metadata"]["generation"] == 1
        assert client.is_isvc_ready("i", namespace="default") is False
        client.patch("i", _build_inference_service(kserve, replicas=2), namespace="default")
        client.replace("i", _build_inference_service(kserve, replicas=3), namespace="default")
        stored = client.get("i", namespace="default")
        assert stored["spec"]["predictor"]["minReplicas"] == 3
        assert stored["metadata"]["generation"] == 3
        client.delete("i", namespace="default")
        with pytest.raises(RuntimeError, match="not found"):
            client.get("i", namespace="default")

    run(tmp_path, test)


def test_kfp_client_without_a_host_goes_through_the_service_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with quiet():
        kfp = pytest.importorskip("kfp")
    asked = []

    async def answer(request: Request) -> JSONResponse:
        asked.append((request.url.path, request.headers["authorization"]))
        return JSONResponse({"multi_user": False, "experiments": [], "total_size": 0})

    def test(running: RunningApi) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("KUBECONFIG", str(running.kubeconfig))
        monkeypatch.setattr(
            "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(running.kubeconfig)
        )
        client = kfp.Client(namespace="kubeflow")
        assert client.list_experiments().total_size == 0
        assert ("/apis/v2beta1/experiments", "Bearer token-of-tests") in asked

    run(tmp_path, test, kfp_app=Starlette(routes=[Route("/{path:path}", answer)]))


def test_parallel_requests_of_threads_are_answered(tmp_path: Path) -> None:
    def test(running: RunningApi) -> None:
        kubernetes.config.load_kube_config(str(running.kubeconfig))
        core = kubernetes.client.CoreV1Api()
        threads = [
            core.create_namespaced_config_map(
                "default", build_config_map(f"c{index}"), async_req=True
            )
            for index in range(50)
        ]
        assert len({thread.get().metadata.uid for thread in threads}) == 50
        core.api_client.close()

    run(tmp_path, test)


def test_followed_logs_end_with_the_container(tmp_path: Path) -> None:
    def test(running: RunningApi) -> None:
        kubernetes.config.load_kube_config(str(running.kubeconfig))
        core = kubernetes.client.CoreV1Api()
        pod = core.create_namespaced_pod("default", build_pod("p"))
        folder = running.pods_dir / pod.metadata.uid / "logs" / "main"
        folder.mkdir(parents=True)
        (folder / "0.log").write_text("epoch=1\nepoch=2\n")
        state = {"terminated": {"exitCode": 0, "reason": "Completed"}}
        entry = {"name": "main", "image": "", "imageID": "", "ready": False, "restartCount": 0}
        status = {"phase": "Succeeded", "containerStatuses": [{**entry, "state": state}]}
        core.patch_namespaced_pod_status("p", "default", {"status": status})
        watch = kubernetes.watch.Watch()
        lines = list(watch.stream(core.read_namespaced_pod_log, "p", "default"))
        assert lines == ["epoch=1", "epoch=2"]
        stamped = core.read_namespaced_pod_log("p", "default", timestamps=True, since_seconds=600)
        assert [line.split("Z ")[1] for line in stamped.splitlines()] == ["epoch=1", "epoch=2"]
        assert core.read_namespaced_pod_log("p", "default", tail_lines=1) == "epoch=2\n"
        assert running.api.get(PODS, "p", namespace="default").load()["status"] == {
            **status,
            "qosClass": "BestEffort",
        }

    run(tmp_path, test)


_TRIAL_SPEC = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "spec": {
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "main",
                        "image": "train",
                        "command": ["train", "--lr=${trialParameters.lr}"],
                    }
                ],
                "restartPolicy": "Never",
            }
        }
    },
}


def _build_experiment(katib: Any) -> object:  # the SDK is untyped
    return katib.V1beta1Experiment(
        api_version="kubeflow.org/v1beta1",
        kind="Experiment",
        metadata=kubernetes.client.V1ObjectMeta(name="e", namespace="default"),
        spec=katib.V1beta1ExperimentSpec(
            max_trial_count=3,
            parallel_trial_count=1,
            max_failed_trial_count=1,
            objective=katib.V1beta1ObjectiveSpec(type="maximize", objective_metric_name="accuracy"),
            algorithm=katib.V1beta1AlgorithmSpec(algorithm_name="random"),
            parameters=[
                katib.V1beta1ParameterSpec(
                    name="lr",
                    parameter_type="double",
                    feasible_space=katib.V1beta1FeasibleSpace(min="0.1", max="0.9"),
                )
            ],
            trial_template=katib.V1beta1TrialTemplate(
                primary_container_name="main",
                trial_parameters=[katib.V1beta1TrialParameterSpec(name="lr", reference="lr")],
                trial_spec=_TRIAL_SPEC,
            ),
        ),
    )


def _build_inference_service(kserve: Any, *, replicas: int) -> object:  # untyped too
    return kserve.V1beta1InferenceService(
        api_version="serving.kserve.io/v1beta1",
        kind="InferenceService",
        metadata=kubernetes.client.V1ObjectMeta(name="i", namespace="default"),
        spec=kserve.V1beta1InferenceServiceSpec(
            predictor=kserve.V1beta1PredictorSpec(
                min_replicas=replicas,
                max_replicas=replicas,
                model=kserve.V1beta1ModelSpec(
                    model_format=kserve.V1beta1ModelFormat(name="kubeloop"),
                    storage_uri="s3://bucket/model",
                ),
            )
        ),
    )
