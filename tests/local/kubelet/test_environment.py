from __future__ import annotations

import base64
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from kubeloop.errors import InputError
from kubeloop.local.kubelet.environment import (
    PodFolders,
    build_base_env,
    build_env,
    build_shared_env,
    count_threads,
    expand,
    merge_env,
)
from kubeloop.local.kubelet.references import (
    MissingReferenceError,
    References,
    list_reference_names,
)

REFERENCES = References(
    config_maps={"settings": {"data": {"color": "red", "dotted.key": "x", "1bad": "y"}}},
    secrets={"keys": {"data": {"token": base64.b64encode(b"t0ken").decode()}}},
)


def build_pod(container: dict[str, Any]) -> dict[str, Any]:  # any fields of a container
    return {
        "metadata": {
            "name": "pod",
            "namespace": "default",
            "uid": "u-1",
            "labels": {"app": "web", "a/b": "c"},
            "annotations": {"note": "hi"},
        },
        "spec": {
            "nodeName": "kubeloop",
            "serviceAccountName": "default",
            "containers": [container],
        },
    }


def build(env: list[dict[str, Any]], **fields: Any) -> Mapping[str, str]:  # any fields
    container = {"name": "main", "env": env, **fields}
    return build_env(
        container,
        pod=build_pod(container),
        references=REFERENCES,
        allocatable={"cpu": Decimal(8), "memory": Decimal(1024)},
    )


def build_field(path: str) -> dict[str, Any]:  # JSON
    return {"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}}


def test_values_refer_to_earlier_ones() -> None:
    env = build(
        [
            {"name": "A", "value": "1"},
            {"name": "B", "value": "$(A)-$(C)-$$(A)-$$$(A)"},
            {"name": "C"},
            {"name": "A", "value": "2"},
        ]
    )

    assert env == {"A": "2", "B": "1-$(C)-$(A)-$1", "C": ""}


def test_shell_text_is_left_as_it_is() -> None:
    assert expand('x=$(mktemp -d); echo "$x" $? ${Y}', {"x": "no"}) == (
        'x=$(mktemp -d); echo "$x" $? ${Y}'
    )


def test_keys_of_config_maps_and_secrets_are_read() -> None:
    env = build(
        [
            {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}},
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
        ]
    )

    assert env == {"C": "red", "S": "t0ken"}


def test_whole_config_maps_and_secrets_are_read_and_overridden() -> None:
    env = build(
        [{"name": "P_token", "value": "own"}],
        envFrom=[
            {"configMapRef": {"name": "settings"}},
            {"secretRef": {"name": "keys"}, "prefix": "P_"},
            {"secretRef": {"name": "absent", "optional": True}},
        ],
    )

    assert env == {"color": "red", "dotted.key": "x", "P_token": "own"}


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"configMapKeyRef": {"name": "absent", "key": "k"}}, 'configmap "absent" not found'),
        ({"secretKeyRef": {"name": "absent", "key": "k"}}, 'secret "absent" not found'),
        (
            {"secretKeyRef": {"name": "keys", "key": "k"}},
            "couldn't find key k in Secret default/keys",
        ),
    ],
)
def test_missing_reference_is_an_error_unless_it_is_optional(
    reference: dict[str, Any], message: str
) -> None:
    with pytest.raises(MissingReferenceError, match=message):
        build([{"name": "X", "valueFrom": reference}])

    kind, fields = next(iter(reference.items()))
    assert build([{"name": "X", "valueFrom": {kind: {**fields, "optional": True}}}]) == {}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "pod"),
        ("metadata.namespace", "default"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['app']", "web"),
        ("metadata.labels['a/b']", "c"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['note']", "hi"),
        ("metadata.labels", 'a/b="c"\napp="web"'),
        ("spec.nodeName", "kubeloop"),
        ("spec.serviceAccountName", "default"),
        ("status.podIP", "127.0.0.1"),
        ("status.hostIP", "127.0.0.1"),
    ],
)
def test_fields_of_the_pod_are_read(path: str, value: str) -> None:
    assert build([build_field(path)]) == {"X": value}


def test_unknown_field_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"metadata\.name"):
        build([build_field("status.phase")])


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ({"resource": "limits.cpu"}, "2"),
        ({"resource": "requests.cpu", "divisor": "1m"}, "1500"),
        ({"resource": "limits.memory", "divisor": "1Ki"}, "1"),
        ({"resource": "requests.memory"}, "100"),
    ],
)
def test_resource_fields_are_rounded_up_to_their_divisor(
    source: dict[str, Any], value: str
) -> None:
    resources = {
        "limits": {"cpu": "1500m"},
        "requests": {"cpu": "1500m", "memory": "100"},
    }
    entry = {"name": "X", "valueFrom": {"resourceFieldRef": source}}

    assert build([entry], resources=resources)["X"] == value


@pytest.mark.parametrize(
    ("resources", "num_threads"),
    [
        ({}, None),
        ({"limits": {"memory": "1Gi"}}, None),
        ({"limits": {"cpu": "500m"}}, 1),
        ({"limits": {"cpu": "2"}, "requests": {"cpu": "1"}}, 2),
        ({"requests": {"cpu": "3500m"}}, 3),
    ],
)
def test_threads_follow_the_cpu_that_a_container_asks_for(
    resources: dict[str, Any], num_threads: int | None
) -> None:
    assert count_threads({"resources": resources}) == num_threads
    expected = None if num_threads is None else str(num_threads)
    assert build([], resources=resources).get("OMP_NUM_THREADS") == expected


def test_threads_that_a_container_sets_stay() -> None:
    env = build([{"name": "OMP_NUM_THREADS", "value": "7"}], resources={"limits": {"cpu": "2"}})

    assert env["OMP_NUM_THREADS"] == "7"


def test_base_holds_nothing_of_the_daemon_s_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    folders = PodFolders.below(Path("/state/pods/u-1"))

    env = build_base_env(
        build_shared_env(kubeconfig=Path("/state/kubeconfig")),
        python="/venv/bin/python",
        hostname="pod",
        folders=folders,
    )

    assert env | {"PYTHONUSERBASE": ""} == {
        "PATH": "/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "KUBECONFIG": "/state/kubeconfig",
        "HOSTNAME": "pod",
        "HOME": "/state/pods/u-1/work/home",
        "TMPDIR": "/state/pods/u-1/work/tmp",
        "PIP_TARGET": "/state/pods/u-1/work/site-packages",
        "PYTHONPATH": "/state/pods/u-1/work/site-packages",
        "PYTHONUSERBASE": "",
    }


def test_own_python_path_comes_before_the_base_s() -> None:
    merged = merge_env({"PYTHONPATH": "/base", "A": "1"}, {"PYTHONPATH": "/own", "A": "2"})

    assert merged == {"PYTHONPATH": "/own:/base", "A": "2"}


def test_all_references_of_a_pod_are_listed() -> None:
    pod = build_pod(
        {
            "name": "main",
            "envFrom": [{"configMapRef": {"name": "c1"}}, {"secretRef": {"name": "s1"}}],
            "env": [
                {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c2", "key": "k"}}},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s2", "key": "k"}}},
                {"name": "C", "value": "x"},
            ],
        }
    )
    pod["spec"]["volumes"] = [
        {"name": "a", "configMap": {"name": "c3"}},
        {"name": "b", "secret": {"secretName": "s3"}},
        {"name": "c", "persistentVolumeClaim": {"claimName": "p1"}},
        {
            "name": "d",
            "projected": {"sources": [{"secret": {"name": "s4"}}, {"configMap": {"name": "c4"}}]},
        },
    ]

    names = list_reference_names(pod)

    assert names.config_maps == {"c1", "c2", "c3", "c4"}
    assert names.secrets == {"s1", "s2", "s3", "s4"}
    assert names.claims == {"p1"}
