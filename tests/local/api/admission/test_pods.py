"""Pods get Kubernetes' defaults, and what cannot run is refused with its field."""

from __future__ import annotations

from typing import Any

import pytest

from kubeloop.errors import InvalidError
from kubeloop.local.api.admission.pods import PodAdmission
from kubeloop.local.api.resources import PODS
from kubeloop.local.api.storage import ObjectStorage
from kubeloop.local.api.verbs import ApiServer, ensure_namespace
from kubeloop.local.client import Manifest
from kubeloop.testing.manifests import build_pod


def default(**container: Any) -> Any:
    manifest = build_pod("p", containers=[{"name": "main", "image": "x", **container}])
    return PodAdmission().default(manifest)["spec"]["containers"][0]


def faults_of(spec: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidError) as caught:
        PodAdmission().validate({**build_pod("p"), "spec": spec}, None)
    causes = caught.value.details.causes
    return [(cause["field"], cause["reason"].removeprefix("FieldValue")) for cause in causes]


def fault_of(**container: Any) -> tuple[str, str]:
    (fault,) = faults_of({"containers": [{"name": "main", "image": "x", **container}]})
    return fault


def test_defaults_are_those_of_kubernetes() -> None:
    pod = PodAdmission().default(build_pod("p"))
    assert pod["spec"]["restartPolicy"] == "Always"
    assert pod["spec"]["terminationGracePeriodSeconds"] == 30
    assert pod["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
    again = PodAdmission().default(PodAdmission().default(build_pod("p")))
    assert again == pod


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("x", "Always"),
        ("x:latest", "Always"),
        ("x:1", "IfNotPresent"),
        ("host:5000/x", "Always"),
        ("host:5000/x:1", "IfNotPresent"),
        ("x@sha256:0", "IfNotPresent"),
    ],
)
def test_images_without_a_version_are_always_pulled(image: str, policy: str) -> None:
    assert default(image=image)["imagePullPolicy"] == policy


def test_requests_default_to_limits() -> None:
    resources = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}
    container = default(resources=resources)
    assert container["resources"]["requests"] == {"cpu": "500m", "memory": "1Gi"}


def test_probes_ports_and_field_references_are_filled_in() -> None:
    container = default(
        readinessProbe={"httpGet": {"port": 80}},
        ports=[{"containerPort": 80}],
        env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
    )
    assert container["readinessProbe"]["periodSeconds"] == 10
    assert container["readinessProbe"]["httpGet"] == {"port": 80, "path": "/", "scheme": "HTTP"}
    assert container["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
    ],
)
def test_quality_of_service_follows_from_resources(resources: Any, expected: str) -> None:
    containers = [{"name": "main", "image": "x", "resources": resources}]
    pod = PodAdmission().default(build_pod("p", containers=containers))
    assert pod["status"]["qosClass"] == expected


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (None, "spec.containers"),
        ("text", "spec.containers"),
        ({"containers": []}, "spec.containers"),
        ({"containers": "text"}, "spec"),
        ({"containers": ["text"]}, "spec"),
        ({"containers": [{"name": "a", "image": "x", "env": {"A": "1"}}]}, "spec"),
        ({"containers": [{"name": "a", "image": "x", "resources": {"limits": 1}}]}, "spec"),
        (
            {"containers": [{"name": "a", "image": "x"}], "restartPolicy": "Sometimes"},
            "spec.restartPolicy",
        ),
    ],
)
def test_bad_specs_are_refused(spec: Any, field: str) -> None:
    assert [name for name, _ in faults_of(spec)] == [field]


@pytest.mark.parametrize(
    ("container", "fault"),
    [
        ({"name": ""}, ("name", "Required")),
        ({"name": "Main"}, ("name", "Invalid")),
        ({"image": ""}, ("image", "Required")),
        ({"imagePullPolicy": "Never ever"}, ("imagePullPolicy", "NotSupported")),
        ({"env": [{"value": "x"}]}, ("env[0].name", "Required")),
        ({"env": [{"name": "A", "value": 1}]}, ("env[0].value", "Invalid")),
        ({"ports": [{"containerPort": 0}]}, ("ports[0].containerPort", "Invalid")),
        ({"volumeMounts": [{"name": "v"}]}, ("volumeMounts[0].name", "NotFound")),
        ({"resources": {"limits": {"cpu": "much"}}}, ("resources.limits[cpu]", "Invalid")),
        (
            {"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1500m"}}},
            ("resources.requests", "Invalid"),
        ),
    ],
)
def test_bad_containers_are_refused(container: Any, fault: tuple[str, str]) -> None:
    assert fault_of(**container) == (f"spec.containers[0].{fault[0]}", fault[1])


def test_names_of_containers_are_unique() -> None:
    twice = [{"name": "a", "image": "x"}]
    faults = faults_of({"containers": twice, "initContainers": twice})
    assert faults == [("spec.initContainers[0].name", "Duplicate")]


def test_only_few_fields_of_a_pod_may_change() -> None:
    api = ApiServer(ObjectStorage())
    ensure_namespace(api, "default")

    def change(pod: Manifest) -> Manifest:
        return api.replace(PODS, pod, name="p", namespace="default").load()

    pod = api.create(PODS, build_pod("p")).load()
    pod["spec"]["containers"][0]["image"] = "other"
    pod["spec"]["activeDeadlineSeconds"] = 5
    pod["spec"]["nodeName"] = "laptop"
    pod = change(pod)
    pod["spec"]["nodeName"] = "elsewhere"
    with pytest.raises(InvalidError, match="pod updates may not change fields other than"):
        change(pod)
