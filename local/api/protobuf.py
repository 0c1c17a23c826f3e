"""Reads the protobuf bodies that kubectl's `create` and `auth can-i` insist on sending.

Only the messages and fields that those commands write are known; a body with any other field is
refused rather than read in part. Everything else that clients send is JSON, and so are all answers.

Source: the `generated.proto` files of kubernetes/api and kubernetes/apimachinery (field numbers).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any

from kubeloop.errors import ApiError
from kubeloop.local.api import refusals
from kubeloop.local.client import Manifest

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"

_MAGIC = b"k8s\x00"
_VARINT, _BYTES = 0, 2
_INT_OR_STRING, _QUANTITY, _TIME = "IntOrString", "Quantity", "Time"

# Types: str, int, bool, bytes, a message; [type] a list of it, {type} a map from strings to it.
_Fields = Mapping[int, tuple[str, str]]
_METADATA = ("metadata", "ObjectMeta")
_MESSAGES: Mapping[str, _Fields] = {
    "ObjectMeta": {
        1: ("name", "str"),
        2: ("generateName", "str"),
        3: ("namespace", "str"),
        4: ("selfLink", "str"),
        5: ("uid", "str"),
        6: ("resourceVersion", "str"),
        7: ("generation", "int"),
        8: ("creationTimestamp", _TIME),
        11: ("labels", "{str}"),
        12: ("annotations", "{str}"),
        14: ("finalizers", "[str]"),
    },
    "ConfigMap": {
        1: _METADATA,
        2: ("data", "{str}"),
        3: ("binaryData", "{bytes}"),
        4: ("immutable", "bool"),
    },
    "Secret": {
        1: _METADATA,
        2: ("data", "{bytes}"),
        3: ("type", "str"),
        4: ("stringData", "{str}"),
        5: ("immutable", "bool"),
    },
    "Namespace": {1: _METADATA, 2: ("spec", "NamespaceSpec"), 3: ("status", "Empty")},
    "NamespaceSpec": {1: ("finalizers", "[str]")},
    "ServiceAccount": {
        1: _METADATA,
        2: ("secrets", "[Reference]"),
        3: ("imagePullSecrets", "[LocalReference]"),
        4: ("automountServiceAccountToken", "bool"),
    },
    "Reference": {3: ("name", "str")},
    "LocalReference": {1: ("name", "str")},
    "Service": {1: _METADATA, 2: ("spec", "ServiceSpec"), 3: ("status", "Empty")},
    "ServiceSpec": {
        1: ("ports", "[ServicePort]"),
        2: ("selector", "{str}"),
        3: ("clusterIP", "str"),
        4: ("type", "str"),
        7: ("sessionAffinity", "str"),
        8: ("loadBalancerIP", "str"),
        10: ("externalName", "str"),
        11: ("externalTrafficPolicy", "str"),
        12: ("healthCheckNodePort", "int"),
        13: ("publishNotReadyAddresses", "bool"),
    },
    "ServicePort": {
        1: ("name", "str"),
        2: ("protocol", "str"),
        3: ("port", "int"),
        4: ("targetPort", _INT_OR_STRING),
        5: ("nodePort", "int"),
    },
    "Job": {1: _METADATA, 2: ("spec", "JobSpec"), 3: ("status", "Empty")},
    "JobSpec": {
        1: ("parallelism", "int"),
        2: ("completions", "int"),
        3: ("activeDeadlineSeconds", "int"),
        6: ("template", "PodTemplateSpec"),
        7: ("backoffLimit", "int"),
        8: ("ttlSecondsAfterFinished", "int"),
        9: ("completionMode", "str"),
        10: ("suspend", "bool"),
    },
    "Deployment": {1: _METADATA, 2: ("spec", "DeploymentSpec"), 3: ("status", "Empty")},
    "DeploymentSpec": {
        1: ("replicas", "int"),
        2: ("selector", "LabelSelector"),
        3: ("template", "PodTemplateSpec"),
        4: ("strategy", "DeploymentStrategy"),
        5: ("minReadySeconds", "int"),
        7: ("paused", "bool"),
    },
    "DeploymentStrategy": {1: ("type", "str")},
    "LabelSelector": {1: ("matchLabels", "{str}")},
    "PodTemplateSpec": {1: _METADATA, 2: ("spec", "PodSpec")},
    "PodSpec": {
        2: ("containers", "[Container]"),
        3: ("restartPolicy", "str"),
        4: ("terminationGracePeriodSeconds", "int"),
        5: ("activeDeadlineSeconds", "int"),
        6: ("dnsPolicy", "str"),
        7: ("nodeSelector", "{str}"),
        8: ("serviceAccountName", "str"),
        9: ("serviceAccount", "str"),
        10: ("nodeName", "str"),
        11: ("hostNetwork", "bool"),
        12: ("hostPID", "bool"),
        13: ("hostIPC", "bool"),
        16: ("hostname", "str"),
        17: ("subdomain", "str"),
        19: ("schedulerName", "str"),
        20: ("initContainers", "[Container]"),
        24: ("priorityClassName", "str"),
    },
    "Container": {
        1: ("name", "str"),
        2: ("image", "str"),
        3: ("command", "[str]"),
        4: ("args", "[str]"),
        5: ("workingDir", "str"),
        6: ("ports", "[ContainerPort]"),
        7: ("env", "[EnvVar]"),
        8: ("resources", "ResourceRequirements"),
        13: ("terminationMessagePath", "str"),
        14: ("imagePullPolicy", "str"),
        16: ("stdin", "bool"),
        17: ("stdinOnce", "bool"),
        18: ("tty", "bool"),
        20: ("terminationMessagePolicy", "str"),
    },
    "ContainerPort": {
        1: ("name", "str"),
        2: ("hostPort", "int"),
        3: ("containerPort", "int"),
        4: ("protocol", "str"),
        5: ("hostIP", "str"),
    },
    "EnvVar": {1: ("name", "str"), 2: ("value", "str")},
    "ResourceRequirements": {1: ("limits", "{Quantity}"), 2: ("requests", "{Quantity}")},
    "SelfSubjectAccessReview": {
        1: _METADATA,
        2: ("spec", "SelfSubjectAccessReviewSpec"),
        3: ("status", "Empty"),
    },
    "SelfSubjectAccessReviewSpec": {
        1: ("resourceAttributes", "ResourceAttributes"),
        2: ("nonResourceAttributes", "NonResourceAttributes"),
    },
    "ResourceAttributes": {
        1: ("namespace", "str"),
        2: ("verb", "str"),
        3: ("group", "str"),
        4: ("version", "str"),
        5: ("resource", "str"),
        6: ("subresource", "str"),
        7: ("name", "str"),
    },
    "NonResourceAttributes": {1: ("path", "str"), 2: ("verb", "str")},
}  # fmt: skip
_KEEPS_ZERO = frozenset({"replicas", "parallelism", "completions", "backoffLimit",
                         "ttlSecondsAfterFinished", "terminationGracePeriodSeconds"})  # fmt: skip


def parse_protobuf(body: bytes) -> Manifest:
    """The object in a protobuf body.

    Raises:
        ApiError: 400, it is none; 415, it uses a kind or a field that is not read here.
    """
    if not body.startswith(_MAGIC):
        raise refusals.bad_request("the protobuf body does not start with k8s and a zero byte")
    try:
        envelope = dict(_split(body[len(_MAGIC) :]))
        identity = {number: value.decode() for number, value in _split(_as_bytes(envelope[1]))}
        kind = identity[2]
        manifest = _read_message(kind, _as_bytes(envelope.get(2, b"")))
    except (IndexError, KeyError, UnicodeDecodeError, AttributeError) as error:
        raise refusals.bad_request(f"the protobuf body cannot be read: {error!r}") from error
    return {"apiVersion": identity[1], "kind": kind, **manifest}


def _read_message(type_: str, raw: bytes) -> Manifest:
    if type_ == "Empty":
        return {}
    fields = _MESSAGES.get(type_)
    if fields is None:
        raise _unknown(f"objects of type {type_}")
    message: Manifest = {}
    for number, value in _split(raw):
        if number not in fields:
            raise _unknown(f"field {number} of {type_}")
        name, field_type = fields[number]
        if field_type.startswith("["):
            message.setdefault(name, []).append(_read_value(field_type[1:-1], value))
        elif field_type.startswith("{"):
            entry = dict(_split(_as_bytes(value)))
            key = _as_bytes(entry.get(1, b"")).decode()
            inner = _read_value(field_type[1:-1], entry.get(2, b""))
            message.setdefault(name, {})[key] = inner
        else:
            read = _read_value(field_type, value)
            if read not in ("", 0, {}, None) or (read == 0 and name in _KEEPS_ZERO):
                message[name] = read
    return message


def _read_value(type_: str, value: int | bytes) -> Any:  # any JSON
    if isinstance(value, int):
        return bool(value) if type_ == "bool" else value - (1 << 64) * (value >> 63)
    if type_ == "str":
        return value.decode()
    if type_ == "bytes":
        return base64.b64encode(value).decode()
    if type_ == _TIME:
        return None  # clients do not set times of new objects
    if type_ == _QUANTITY:
        return _as_bytes(dict(_split(value)).get(1, b"0")).decode()
    if type_ == _INT_OR_STRING:
        parts = dict(_split(value))
        return _as_bytes(parts.get(3, b"")).decode() if parts.get(1) else parts.get(2, 0)
    return _read_message(type_, value)


def _split(raw: bytes) -> Iterator[tuple[int, Any]]:  # a varint or bytes
    """Field numbers and values of a message."""
    position = 0
    while position < len(raw):
        tag, position = _read_varint(raw, position)
        if tag & 7 == _VARINT:
            value, position = _read_varint(raw, position)
            yield tag >> 3, value
        elif tag & 7 == _BYTES:
            length, position = _read_varint(raw, position)
            if position + length > len(raw):
                raise IndexError("a field is longer than its message")
            yield tag >> 3, raw[position : position + length]
            position += length
        else:
            raise KeyError(f"wire type {tag & 7}")


def _read_varint(raw: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _as_bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise KeyError("a number where a message is expected")
    return value


def _unknown(what: str) -> ApiError:
    return ApiError(
        f"this server does not read {what} in protobuf; send JSON (kubectl create -f does)",
        status=415,
        reason="UnsupportedMediaType",
    )
