"""Defaults and rules of the small core kinds."""

from __future__ import annotations

from typing import Any

import pytest

from kubeloop.errors import InvalidError
from kubeloop.local.api.admission.base import Admission
from kubeloop.local.api.admission.core import SecretAdmission
from kubeloop.local.api.admission.registry import index_admissions
from kubeloop.local.api.resources import (
    CONFIG_MAPS,
    EVENTS,
    NAMESPACES,
    PERSISTENT_VOLUME_CLAIMS,
    SECRETS,
    SERVICES,
    Resource,
)
from kubeloop.local.api.storage import ObjectStorage
from kubeloop.local.api.verbs import ApiServer, ensure_namespace
from kubeloop.local.client import Manifest


def create(resource: Resource, **manifest: Any) -> Manifest:
    api = ApiServer(ObjectStorage())
    ensure_namespace(api, "default")
    return api.create(resource, {"metadata": {"name": "x"}, **manifest}).load()


def test_namespaces_are_active_and_carry_their_name() -> None:
    namespace = create(NAMESPACES)
    assert namespace["metadata"]["labels"] == {"kubernetes.io/metadata.name": "x"}
    assert namespace["status"] == {"phase": "Active"}


def test_texts_of_secrets_are_encoded() -> None:
    secret = create(SECRETS, stringData={"a": "text"}, data={"b": "Yg=="})
    assert secret["data"] == {"a": "dGV4dA==", "b": "Yg=="}
    assert "stringData" not in secret
    assert secret["type"] == "Opaque"


def test_the_type_of_a_secret_is_fixed() -> None:
    secret = create(SECRETS)
    with pytest.raises(InvalidError, match="field is immutable"):
        SecretAdmission().validate({**secret, "type": "kubernetes.io/tls"}, secret)


def test_claims_are_bound_at_once() -> None:
    claim = create(PERSISTENT_VOLUME_CLAIMS, spec={"resources": {"requests": {"storage": "1Gi"}}})
    assert claim["status"]["phase"] == "Bound"
    assert claim["status"]["capacity"] == {"storage": "1Gi"}


def test_services_get_an_address_and_target_ports() -> None:
    service = create(SERVICES, spec={"ports": [{"port": 80}]})
    assert service["spec"]["clusterIP"] == "127.0.0.1"
    assert service["spec"]["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]


def test_headless_services_need_no_ports() -> None:
    assert create(SERVICES, spec={"clusterIP": "None"})["spec"]["clusterIP"] == "None"


@pytest.mark.parametrize(
    ("resource", "manifest", "message"),
    [
        (SECRETS, {"data": {"a": "not base64!"}}, r"data\[a\]"),
        (CONFIG_MAPS, {"data": {"a": 1}}, r"data\[a\]"),
        (SERVICES, {"spec": {"ports": []}}, "spec.ports: Required value"),
        (SERVICES, {"spec": {"ports": [{"port": 0}]}}, r"spec\.ports\[0\]\.port"),
        (EVENTS, {}, "involvedObject: Required value"),
        (CONFIG_MAPS, {"metadata": {"name": "x" * 254}}, "no more than 253"),
        (NAMESPACES, {"metadata": {"name": "a.b"}}, "RFC 1123 label"),
        (SERVICES, {"metadata": {"name": "1a"}}, "DNS-1035"),
        (CONFIG_MAPS, {"metadata": {"name": "x", "labels": {"-a": "b"}}}, "metadata.labels"),
        (CONFIG_MAPS, {"metadata": {"name": "x", "labels": {"a": "b c"}}}, "metadata.labels"),
        (CONFIG_MAPS, {"metadata": {"name": "x", "labels": {"a": "b" * 64}}}, "63 characters"),
        (CONFIG_MAPS, {"metadata": {"name": "x", "labels": {"a": 1}}}, "must be a string"),
        (CONFIG_MAPS, {"metadata": {"name": "x", "annotations": {"a": 1}}}, "must be a string"),
        (CONFIG_MAPS, {"metadata": {"name": "x", "annotations": {"a": "b" * 300_000}}}, "Too long"),
        (CONFIG_MAPS, {"metadata": {"name": "x", "finalizers": ["a b"]}}, r"finalizers\[0\]"),
        (CONFIG_MAPS, {"metadata": {"name": "x", "ownerReferences": [{}]}}, "kind must not be"),
    ],
)
def test_bad_objects_are_refused(resource: Resource, manifest: Any, message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        create(resource, **manifest)


def test_only_one_owner_may_be_the_controller() -> None:
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": True}
    with pytest.raises(InvalidError, match="Only one reference can have Controller set to true"):
        create(CONFIG_MAPS, metadata={"name": "x", "ownerReferences": [owner, owner]})


def test_two_hooks_for_a_kind_are_an_error() -> None:
    class Other(Admission):
        resource = SECRETS

    with pytest.raises(ValueError, match="SecretAdmission"):
        index_admissions([SecretAdmission(), Other()])
