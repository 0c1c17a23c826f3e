"""Protobuf bodies of kubectl: what is known is read, anything else is refused."""

from __future__ import annotations

import pytest

from kubeloop.errors import ApiError
from kubeloop.local.api.protobuf import parse_protobuf


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return bytes((number << 3, value))
    return bytes((number << 3 | 2, len(value))) + value


def body(kind: str, raw: bytes, *, api_version: str = "v1") -> bytes:
    identity = field(1, api_version.encode()) + field(2, kind.encode())
    return b"k8s\x00" + field(1, identity) + field(2, raw)


METADATA = field(1, field(1, b"x") + field(3, b"") + field(8, b""))


def test_config_maps_are_read() -> None:
    entry = field(1, b"key") + field(2, "välue".encode())
    assert parse_protobuf(body("ConfigMap", METADATA + field(2, entry) + field(4, 1))) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "x"},
        "data": {"key": "välue"},
        "immutable": True,
    }


def test_bytes_of_secrets_stay_encoded() -> None:
    entry = field(1, b"key") + field(2, b"\x00\xff")
    assert parse_protobuf(body("Secret", METADATA + field(2, entry)))["data"] == {"key": "AP8="}


def test_ports_are_numbers_or_names() -> None:
    ports = b"".join(
        field(1, field(3, 80) + field(4, target))
        for target in (field(2, 81), field(1, 1) + field(3, b"web"))
    )
    service = parse_protobuf(body("Service", METADATA + field(2, ports)))
    assert [port["targetPort"] for port in service["spec"]["ports"]] == [81, "web"]


def test_zero_replicas_are_kept() -> None:
    raw = METADATA + field(2, field(1, 0) + field(5, 0))
    deployment = parse_protobuf(body("Deployment", raw, api_version="apps/v1"))
    assert deployment["spec"] == {"replicas": 0}


@pytest.mark.parametrize(
    ("raw", "status", "message"),
    [
        (b"{}", 400, "does not start with k8s"),
        (b"k8s\x00", 400, "cannot be read"),
        (b"k8s\x00\x0a\xff", 400, "cannot be read"),
        (body("Pod", b""), 415, "does not read objects of type Pod"),
        (body("ConfigMap", field(9, b"x")), 415, "does not read field 9 of ConfigMap"),
        (body("ConfigMap", b"\x0d1234"), 400, "wire type 5"),
        (body("ConfigMap", field(1, field(1, b"\xff"))), 400, "cannot be read"),
    ],
)
def test_other_bodies_are_refused(raw: bytes, status: int, message: str) -> None:
    with pytest.raises(ApiError, match=message) as caught:
        parse_protobuf(raw)
    assert caught.value.status == status
